"""Frozen atoms: which Cartesian components of a structure are free to move."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian

from hint_plugins.labels.hessian_label import LabelError


def frozen_components(atoms: Atoms) -> np.ndarray:
    """(N, 3) of bool: which components ``FixAtoms`` and ``FixCartesian`` hold; other constraints are not seen."""
    held: np.ndarray = np.zeros((len(atoms), 3), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            held[constraint.index] = True
        elif isinstance(constraint, FixCartesian):
            held[constraint.index] |= np.asarray(constraint.mask, dtype=bool)
    return held


def free_components(atoms: Atoms) -> np.ndarray:
    """Which components are free.

    Parameters
    ----------
    atoms
        The structure with ASE's ``FixAtoms`` and ``FixCartesian``.

    Returns
    -------
    numpy.ndarray
        (N, 3) of bool.

    Raises
    ------
    LabelError
        For another kind of constraint, or when nothing is left to move.
    """
    for constraint in atoms.constraints:
        if not isinstance(constraint, (FixAtoms, FixCartesian)):
            raise LabelError(
                f"the constraint {type(constraint).__name__} has no Hessian of free atoms: use FixAtoms or "
                "FixCartesian, or remove the constraint"
            )
    free = ~frozen_components(atoms)
    if not free.any():
        raise LabelError("all atoms are frozen, so no component of the Hessian is left")
    return free


def frozen(free: np.ndarray) -> list[FixCartesian]:
    """Constraints that leave the components ``free`` (N, 3) to move: the inverse of :func:`free_components`."""
    return [FixCartesian([k], ~row) for k, row in enumerate(free) if not row.all()]
