"""What the crystal commands share: reading the cell, isotopes, models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from hint_plugins.errors import InputError
from hint_recipes.crystals.force_constants.force_constants import set_masses
from hint_recipes.crystals.force_constants.unit_cells import primitive_cell

if TYPE_CHECKING:
    from hint_plugins.potential import Potential


def read_crystal(path: str | Path, masses: Sequence[str] = (), *, primitive: bool = False) -> Atoms:
    """Read a periodic cell (any format ASE knows) and set isotopes.

    Parameters
    ----------
    path
        Structure file; the last frame is taken.
    masses
        ``SYMBOL=MASS`` in u, e.g. ``H=2.014``.
    primitive
        Reduce it to its primitive cell (same orientation).

    Raises
    ------
    InputError
        If the file cannot be read, is not periodic in three dimensions, a mass is malformed, or the primitive cell
        cannot be taken.
    """
    from ase.io import read

    try:
        atoms = read(path)
    except Exception as error:  # ASE's readers raise whatever the format happens to trigger
        if not (isinstance(error, KeyError) and re.search(r"(^|label )[DT]\b", str(error.args[0]))):
            raise InputError(f"{path}: cannot read a structure: {error}") from None
        atoms = _with_isotopes(path)
    if not isinstance(atoms, Atoms):
        raise InputError(f"{path}: holds no atoms")
    require_crystal(atoms, str(path))
    values = parse_masses(masses)
    try:
        crystal = set_masses(atoms, values)
        return primitive_cell(crystal) if primitive else crystal
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def _with_isotopes(path: str | Path) -> Atoms:
    """The last structure of a file that names deuterium (``D``) or tritium (``T``), which ASE does not know."""
    from hint_plugins.storage.store import StoreError, read_structures

    try:
        return list(read_structures(path))[-1]
    except StoreError as error:
        raise InputError(
            f"{path}: deuterium (D) or tritium (T) in a format that is not read with it; write H in the file and give "
            f"--mass H=2.014 or H=3.016 ({error})"
        ) from None


def require_crystal(atoms: Atoms, name: str) -> None:
    """Refuse what is no crystal; ``name`` stands in the message.

    Raises
    ------
    InputError
        If there are no atoms, or the cell is not periodic in three dimensions.
    """
    if not len(atoms):
        raise InputError(f"{name}: holds no atoms")
    if not all(atoms.pbc) or abs(np.linalg.det(atoms.cell.array)) < 1e-6:
        raise InputError(f"{name}: a crystal needs a cell that is periodic in all three directions")


def read_candidates(paths: Sequence[Path], masses: Sequence[str] = (), *, primitive: bool = False) -> dict[str, Atoms]:
    """Crystals by name, which is that of the file up to its first dot (:func:`read_crystal`).

    Raises
    ------
    InputError
        If two files have the same name, or one cannot be read.
    """
    names = [Path(path).name.split(".")[0] for path in paths]
    if len(set(names)) != len(names):
        raise InputError("candidates need different file names: " + ", ".join(sorted(names)))
    return {name: read_crystal(path, masses, primitive=primitive) for name, path in zip(names, paths, strict=True)}


def parse_masses(entries: Sequence[str]) -> dict[str, float]:
    """``["H=2.014"]`` -> ``{"H": 2.014}``.

    Raises
    ------
    InputError
        If an entry is malformed.
    """
    values = {}
    for entry in entries:
        symbol, _, value = entry.partition("=")
        try:
            values[symbol.strip()] = float(value)
        except ValueError:
            raise InputError(f"--mass {entry}: expected SYMBOL=MASS in u, e.g. H=2.014") from None
    return values


def parse_options(entries: Sequence[str]) -> dict[str, str]:
    """``["lr=0.01"]`` -> ``{"lr": "0.01"}``.

    Raises
    ------
    InputError
        If an entry is malformed.
    """
    values = {}
    for entry in entries:
        name, mark, value = entry.partition("=")
        if not mark or not name:
            raise InputError(f"--option {entry}: expected NAME=VALUE")
        values[name] = value
    return values


def relax(potential: Potential, atoms: Atoms, *, cell: bool, fmax: float = 1e-3, pressure: float = 0.0) -> Atoms:
    """Relax positions, and the cell at ``pressure`` (GPa), keeping the symmetry that is there.

    Raises
    ------
    InputError
        If the relaxation does not converge in 500 steps, or flies apart.
    """
    from ase import units
    from ase.constraints import FixSymmetry
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    from hint_recipes.failures import SearchFailure
    from hint_recipes.steps import WatchedCalculator

    relaxed = atoms.copy()
    relaxed.calc = WatchedCalculator(potential, relaxed)
    relaxed.set_constraint(FixSymmetry(relaxed))
    target: Any = FrechetCellFilter(relaxed, scalar_pressure=pressure * units.GPa) if cell else relaxed
    try:
        converged = BFGS(target, logfile=None, maxstep=0.05).run(fmax=fmax, steps=500)
    except (SearchFailure, np.linalg.LinAlgError) as error:
        raise InputError(f"the relaxation failed: {error}; give a structure that is nearer to its minimum") from error
    if not converged:
        raise InputError(
            f"the relaxation did not reach {fmax} eV/A in 500 steps: give a structure that is nearer to its minimum"
        )
    relaxed.set_constraint()
    relaxed.calc = None
    return relaxed


def model_names(specs: Sequence[str]) -> list[str]:
    """Short, distinct names of models for legends and file names."""
    stems = [Path(spec.replace(":", "_")).stem or spec for spec in specs]
    return [stem if stems.count(stem) == 1 else f"{stem}-{i + 1}" for i, stem in enumerate(stems)]
