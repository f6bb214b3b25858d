"""A potential together with what tells it from others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hint_plugins.potential import Potential
from hint_plugins.potential.worker import identity


@dataclass(frozen=True)
class KnownPotential:
    """A potential, and what it is known by.

    Attributes
    ----------
    potential
        The model or the reference method.
    identity
        What tells it from others (:func:`hint_plugins.potential.worker.identity`).
    """

    potential: Potential
    identity: str

    @classmethod
    def load(cls, model: Any, label: str | None, device: str | None, dtype: str | None) -> KnownPotential:
        """What :meth:`hint_plugins.potential.Potential.load` understands; ``label`` stands for it where given.

        Raises
        ------
        PotentialError
            If the model cannot be loaded.
        """
        known = identity(model if label is None else label)
        return cls(Potential.load(model, device=device, dtype=dtype), known)
