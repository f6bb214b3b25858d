"""What an autograd model must offer to be trained, evaluated and differentiated here."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from hint_plugins.models.graph import Graph


@runtime_checkable
class EnergyModel(Protocol):
    """A model of the potential energy surface.

    Any ``torch.nn.Module`` with a ``cutoff`` and this ``forward`` qualifies; it gains forces, stress, Hessian
    products and Hessian supervision. The energy must be differentiable three times in the positions (the
    third derivative enters the gradient of a Hessian loss) and must not depend on anything but the edge
    vectors, the atomic numbers and the parameters.
    """

    cutoff: float
    """Radius in Angstrom within which a caller must list every neighbour."""

    def forward(self, graph: Graph) -> Tensor:
        """Energies of the structures of ``graph``, (B,) in eV."""
        ...

    def __call__(self, graph: Graph) -> Tensor: ...


def energy_and_forces(model: EnergyModel, graph: Graph, create_graph: bool = False) -> tuple[Tensor, Tensor]:
    """Energies and forces of a batch.

    Parameters
    ----------
    model : EnergyModel
    graph : Graph
        If ``graph.positions`` requires gradients, the derivative is taken with respect to that tensor, so
        that the caller can differentiate the forces again; else a fresh leaf is used.
    create_graph : bool
        Keep the graph of the forces, for a force loss or Hessian products.

    Returns
    -------
    energy : (B,) tensor
        eV.
    forces : (N, 3) tensor
        Minus the gradient of the energy, eV/Angstrom.
    """
    with torch.enable_grad():
        graph = _differentiable(graph)
        energy = model(graph)
        (gradient,) = torch.autograd.grad(energy.sum(), graph.positions, create_graph=create_graph)
    return (energy if create_graph else energy.detach()), -gradient


def energy_forces_stress(model: EnergyModel, graph: Graph, create_graph: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Energies, forces and stresses of a batch from one backward pass.

    Parameters
    ----------
    model, graph, create_graph
        As in :func:`energy_and_forces`.

    Returns
    -------
    energy : (B,) tensor
        eV.
    forces : (N, 3) tensor
        eV/Angstrom.
    stress : (B, 3, 3) tensor
        ``dE/d(strain) / volume`` in eV/Angstrom^3, symmetric, positive under tension (the convention of ASE).
        NaN for a structure without a cell.

    Raises
    ------
    ValueError
        If no structure of the batch has a cell.
    """
    if graph.cell is None:
        raise ValueError("stress: the structures have no cell; use energy_and_forces for molecules")
    with torch.enable_grad():
        graph = _differentiable(graph)
        displacement = torch.zeros_like(graph.cell, requires_grad=True)  # type: ignore[arg-type]
        energy = model(graph.strained(0.5 * (displacement + displacement.transpose(1, 2))))
        gradient, virial = torch.autograd.grad(energy.sum(), (graph.positions, displacement), create_graph=create_graph)
    volume = torch.linalg.det(graph.cell).abs()  # type: ignore[arg-type]
    volume = torch.where(volume > 0, volume, torch.full_like(volume, torch.nan))
    return (energy if create_graph else energy.detach()), -gradient, virial / volume[:, None, None]


def _differentiable(graph: Graph) -> Graph:
    if graph.positions.requires_grad:
        return graph
    return graph.with_positions(graph.positions.detach().requires_grad_())
