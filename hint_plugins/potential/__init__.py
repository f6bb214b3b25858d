"""Anything that gives energies and forces, behind one class with exact Hessians, batches and an ASE calculator."""

from hint_plugins.potential.backends.protocol import PotentialError, Predictions
from hint_plugins.potential.potential import Calls, Potential

__all__ = ["Calls", "Potential", "PotentialError", "Predictions"]
