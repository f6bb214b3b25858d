"""Structures that are periodic in some directions only, for codes that know three periodic directions."""

from __future__ import annotations

import logging

import numpy as np
from ase import Atoms

from hint_plugins.labelling.engine import EngineError

logger = logging.getLogger(__name__)

AXES = "abc"


def is_partial(atoms: Atoms) -> bool:
    """Whether one or two directions are periodic."""
    return bool(atoms.pbc.any() and not atoms.pbc.all())


def with_vacuum(atoms: Atoms, vacuum: float | None, code: str) -> Atoms:
    """A copy of the structure in a cell that is periodic in three directions, the missing ones filled with vacuum.

    Parameters
    ----------
    atoms
        Positions are kept as they are.
    vacuum
        Empty space in A between an atom and the next image, in each direction that is not periodic.
    code
        For messages.

    Raises
    ------
    EngineError
        If the structure is not periodic in three directions and ``vacuum`` is None.
    """
    if atoms.pbc.all():
        return atoms.copy()
    flags = " ".join("FT"[int(flag)] for flag in atoms.pbc)
    if vacuum is None:
        raise EngineError(
            f"the structure's pbc is {flags!r}, and {code} repeats it in all three directions: give a cell with enough "
            f"vacuum and pbc 'T T T', or let it be built with --set vacuum=15 (A)"
        )
    copy = atoms.copy()
    copy.set_constraint()
    for axis in np.flatnonzero(~atoms.pbc):
        copy.center(vacuum=vacuum / 2, axis=int(axis))
    cell = copy.cell.copy()
    boxed = Atoms(atoms.numbers, atoms.positions, cell=cell, pbc=True)
    lengths = ", ".join(f"{AXES[axis]} = {cell.lengths()[axis]:.3f} A" for axis in np.flatnonzero(~atoms.pbc))
    logger.warning("%s with pbc %r is computed with %g A of vacuum: %s", atoms.symbols, flags, vacuum, lengths)
    return boxed


def check_vacuum(vacuum: float | None) -> float | None:
    """A usable width of vacuum, or None.

    Raises
    ------
    ValueError
        If it is too thin to separate images.
    """
    if vacuum is not None and not 5 <= vacuum <= 1000:
        raise ValueError(f"vacuum is a width in A between 5 and 1000, got {vacuum}")
    return vacuum
