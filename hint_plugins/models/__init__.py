"""Models of the potential energy surface and what they read."""

from hint_plugins.models.energy_model import EnergyModel, energy_and_forces, energy_forces_stress
from hint_plugins.models.graph import Graph, edge_vectors
from hint_plugins.models.neighbours import graph_from_atoms, neighbour_list

__all__ = [
    "EnergyModel",
    "Graph",
    "edge_vectors",
    "energy_and_forces",
    "energy_forces_stress",
    "graph_from_atoms",
    "neighbour_list",
]
