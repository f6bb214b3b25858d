"""Frozen atoms: which Cartesian components of a structure are free to move."""

from __future__ import annotations

from collections.abc import Sequence

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


def coordinate_masks(structures: Sequence[Atoms], free: bool | Sequence[np.ndarray]) -> list[np.ndarray]:
    """(3N,) of bool of each structure: the coordinates whose block of a Hessian is wanted.

    Parameters
    ----------
    structures
        The structures.
    free
        True: what their constraints leave free. Or of each structure (N,) or (N, 3) truth values.

    Raises
    ------
    LabelError
        As :func:`free_components`, or for masks of another shape, and masks that choose nothing.
    """
    if free is True:
        return [free_components(atoms).reshape(-1) for atoms in structures]
    masks = []
    for atoms, chosen in zip(structures, free, strict=True):  # type: ignore[arg-type]
        mask = np.asarray(chosen)
        if mask.dtype != bool or mask.shape not in ((len(atoms),), (len(atoms), 3)) or not mask.any():
            raise LabelError(
                f"the free atoms of {atoms.get_chemical_formula()} are (N,) or (N, 3) truth values, of which at least "
                f"one is true; got {mask.dtype} of shape {mask.shape}"
            )
        masks.append(np.broadcast_to(mask.reshape(len(atoms), -1), (len(atoms), 3)).reshape(-1))
    return masks


def with_zeros(block: np.ndarray, free: np.ndarray) -> np.ndarray:
    """(3N, 3N) with the ``block`` (b, b) of the coordinates ``free`` ((N, 3) of bool), and zeros elsewhere."""
    index = np.flatnonzero(free)
    matrix = np.zeros((free.size, free.size))
    matrix[np.ix_(index, index)] = block
    return matrix


def only(atoms: Atoms, coordinates: np.ndarray) -> Atoms:
    """A copy of the structure in which nothing moves but those of the ``coordinates`` (3N,) that were free before.

    Raises
    ------
    LabelError
        As :func:`free_components`, and when nothing is left to move.
    """
    free = free_components(atoms) & np.asarray(coordinates, dtype=bool).reshape(-1, 3)
    if not free.any():
        raise LabelError("all coordinates of the label's block belong to frozen atoms")
    copy = atoms.copy()
    copy.set_constraint(frozen(free))
    return copy


def frozen(free: np.ndarray) -> list[FixCartesian]:
    """Constraints that leave the components ``free`` (N, 3) to move: the inverse of :func:`free_components`."""
    return [FixCartesian([k], ~row) for k, row in enumerate(free) if not row.all()]
