"""What a structure is, apart from what was computed for it: the part that every command hands on."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.labelling.engine import EngineError
from hint_plugins.structures.charges import COLUMNS, raw_info, stated

#: Entries of ``info`` that are handed on beside charge and spin: what a structure is called, and what is known of it.
KEPT = ("symmetry_number", "name", "reaction", "role")
#: Columns that are handed on.
KEPT_ARRAYS = ("masses", "tags", "initial_charges", "initial_magmoms")

#: Entries of ``info`` that the commands add as results for one geometry.
RESULTS = ("energy", "gibbs", "gibbs_correction", "n_imaginary", "frequencies_cm1", "temperature_K")


def bare(atoms: Atoms, positions: np.ndarray | None = None) -> Atoms:
    """The structure without results of any kind: no energies, labels, frequencies, velocities or calculator.

    Parameters
    ----------
    atoms
        The structure; not changed.
    positions
        (N, 3) in A, to be taken instead of its own, frozen atoms included.

    Returns
    -------
    ase.Atoms
        Elements, positions, cell, periodicity, constraints, the columns :data:`KEPT_ARRAYS`, charge and spin under
        whatever name, and the entries :data:`KEPT` of ``info``. What else ``info`` holds is not taken over: it may
        belong to the old positions.
    """
    copy = atoms.copy()
    copy.calc = None
    for name in set(copy.arrays) - {"numbers", "positions", *KEPT_ARRAYS}:
        del copy.arrays[name]
    copy.info = raw_info(copy) | {name: copy.info[name] for name in KEPT if name in copy.info}
    if positions is not None:
        copy.arrays["positions"] = np.array(positions, dtype=float).reshape(-1, 3)
    return copy


def moved(atoms: Atoms, positions: np.ndarray | None = None) -> Atoms:
    """As :func:`bare`, without name, role and symmetry number, which belong to the place that the atoms leave."""
    copy = bare(atoms, positions)
    for name in ("name", "role", "symmetry_number"):
        copy.info.pop(name, None)
    return copy


def state(atoms: Atoms) -> dict[str, Any]:
    """What, apart from geometry and masses, decides a result: charges, spins, frozen atoms, a given symmetry number."""
    found = {name: atoms.info[name] for name in ("symmetry_number",) if name in atoms.info}
    try:
        found |= stated(atoms)
    except EngineError as error:  # what the structure is used for will refuse it
        found["charge"] = str(error)
    found |= {name: atoms.arrays[name] for name in COLUMNS if name in atoms.arrays}
    fixed = [repr(constraint.todict()) for constraint in atoms.constraints]
    return found | ({"constraints": fixed} if fixed else {})
