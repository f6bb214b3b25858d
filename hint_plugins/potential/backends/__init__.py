"""What gives energies and forces: one small protocol over autograd models, ASE calculators and host packages."""

from hint_plugins.potential.backends.protocol import Backend, PotentialError, Predictions

__all__ = ["Backend", "PotentialError", "Predictions"]
