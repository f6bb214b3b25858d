"""The protocol between :class:`hint_plugins.potential.Potential` and whatever computes energies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from ase import Atoms

from hint_plugins.curvature.engines import Engine, ForceView
from hint_plugins.errors import HintError


class PotentialError(HintError, ValueError):
    """A potential that cannot be loaded, or a structure that it cannot evaluate; the message says which and why."""


@dataclass
class Predictions:
    """Energies, forces and stresses of some structures.

    Attributes
    ----------
    energies
        (B,) eV.
    forces
        One (N, 3) array a structure, eV/A.
    stresses
        (B, 6) Voigt (xx, yy, zz, yz, xz, xy) in eV/A^3, positive under tension (ASE's convention), NaN for
        structures without a periodic direction; None unless asked for.
    """

    energies: np.ndarray
    forces: list[np.ndarray]
    stresses: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.forces)

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        """Energy and forces, structure by structure."""
        return zip(self.energies.tolist(), self.forces, strict=True)


@runtime_checkable
class Backend(Protocol):
    """What :class:`~hint_plugins.potential.Potential` needs of a model, whatever package it comes from.

    Attributes
    ----------
    name
        For messages and tables.
    device, dtype
        Where and in which precision it computes.
    cutoff
        Radius of its neighbour list in A; None when it has none or does not tell.
    elements
        Atomic numbers it knows; None when it does not tell.
    engine
        How Hessian-vector products are made: exact for conservative autograd models
        (:func:`hint_plugins.potential.products.exact_engine`), finite differences for calculators and direct-force
        models.
    batched
        Whether several structures at a time are cheaper than one by one.
    sees_charge
        Optional; False for a model that reads positions and elements alone, so that charged and open-shell structures
        are named in a warning.
    """

    name: str
    device: torch.device
    dtype: torch.dtype
    cutoff: float | None
    elements: frozenset[int] | None
    engine: Engine
    batched: bool

    def evaluate(self, structures: Sequence[Atoms], stress: bool = False) -> Predictions:
        """Evaluate a batch. A structure that cannot be evaluated raises :class:`PotentialError`."""
        ...

    def view(self, structures: Sequence[Atoms]) -> tuple[ForceView, list[int]]:
        """Forces of the batch as a function of its positions, and the number of atoms of each structure."""
        ...
