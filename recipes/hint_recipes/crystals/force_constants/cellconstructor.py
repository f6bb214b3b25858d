"""CellConstructor's phonons and structures, to and from :class:`ForceConstants`.

CellConstructor is an optional dependency (extra ``sscha``); it works in Rydberg atomic units.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from hint_plugins.datasets.record import RecordError
from hint_plugins.errors import InputError
from hint_plugins.structures.species import element
from hint_recipes.crystals.force_constants.force_constants import ForceConstants

if TYPE_CHECKING:
    from cellconstructor.Phonons import Phonons
    from cellconstructor.Structure import Structure


def require_cellconstructor():
    """The ``cellconstructor`` package with the modules used here.

    Raises
    ------
    InputError
        If it is not installed; the message says how to install it.
    """
    os.environ.setdefault("GFORTRAN_UNBUFFERED_PRECONNECTED", "y")  # else its Fortran prints escape redirection
    try:
        import cellconstructor as CC
        import cellconstructor.Phonons
        import cellconstructor.Structure
        import cellconstructor.symmetries
    except ImportError as error:
        raise InputError(
            f"this needs CellConstructor and python-sscha ({error}); they build from source: run `make env-sscha` "
            "(scripts/env_sscha.sh), which also installs the compilers they need"
        ) from None
    return CC


@contextlib.contextmanager
def output_to(path: Path | None) -> Iterator[None]:
    """python-sscha, CellConstructor and their Fortran parts print much: into ``path``, or nowhere."""
    sys.stdout.flush()
    saved = os.dup(1)
    with open(path or os.devnull, "a") as handle, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.dup2(handle.fileno(), 1)
        try:
            with contextlib.redirect_stdout(handle):
                yield
        finally:
            handle.flush()
            os.dup2(saved, 1)
            os.close(saved)


def unit_factor() -> float:
    """eV/A^2 in one Ry/Bohr^2, with CellConstructor's constants."""
    CC = require_cellconstructor()
    return CC.Units.RY_TO_EV / CC.Units.BOHR_TO_ANGSTROM**2


def to_structure(atoms: Atoms) -> Structure:
    """CellConstructor's structure of a crystal, with its masses.

    Raises
    ------
    InputError
        If atoms of one element have different masses, which CellConstructor cannot hold.
    """
    CC = require_cellconstructor()
    for symbol in set(atoms.get_chemical_symbols()):
        masses = atoms.get_masses()[atoms.symbols == symbol]
        if np.ptp(masses) > 1e-10:
            raise InputError(f"{symbol} atoms of different mass in one cell: CellConstructor has one mass an element")
    structure = CC.Structure.Structure()
    structure.generate_from_ase_atoms(atoms)
    structure.unit_cell = np.array(atoms.cell.array)
    return structure


def from_structure(structure: Structure) -> Atoms:
    """ASE's atoms of a CellConstructor structure, with its masses (u); labels as ``Fe1`` and ``D`` become elements.

    Raises
    ------
    InputError
        If a label names no element.
    """
    CC = require_cellconstructor()
    masses = [structure.masses[label] * CC.Units.MASS_RY_TO_UMA for label in structure.atoms]
    try:
        symbols = [element(label)[0] for label in structure.atoms]
    except RecordError as error:
        raise InputError(f"dynamical matrices: {error}") from None
    return Atoms(symbols, positions=structure.coords, cell=structure.unit_cell, masses=masses, pbc=True)


def to_cellconstructor(constants: ForceConstants) -> Phonons:
    """CellConstructor's ``Phonons`` on the supercell's q grid, grouped into stars; nothing is symmetrised."""
    CC = require_cellconstructor()
    structure = to_structure(constants.primitive)
    q_grid = CC.symmetries.GetQGrid(structure.unit_cell, constants.multiples)
    dyn = CC.Phonons.Phonons(structure, nqirr=len(q_grid))
    dyn.q_tot = [np.array(q) for q in q_grid]
    dyn.q_stars = [[np.array(q)] for q in q_grid]
    try:
        dyn.AdjustQStar()
    except (ValueError, IndexError):
        raise InputError(
            f"CellConstructor cannot group the q points of a {'x'.join(map(str, constants.multiples))} supercell into "
            "stars: the supercell breaks the crystal's symmetry; repeat equivalent directions equally (2x2x2)"
        ) from None
    order = _lattice_vectors(structure, constants)
    blocks = constants.hessian.reshape(constants.num_cells, 3 * len(structure.atoms), constants.num_cells, -1)
    phases = np.exp(-2j * np.pi * np.array(dyn.q_tot) @ order.T)
    fourier = np.einsum("qI,IaJb,qJ->qab", phases, blocks, phases.conj(), optimize=True)
    dyn.dynmats = list(fourier / constants.num_cells / unit_factor())
    dyn.initialized = True
    return dyn


def _lattice_vectors(structure: Structure, constants: ForceConstants) -> np.ndarray:
    """``(num_cells, 3)`` Cartesian lattice vectors (A) of the supercell's unit cells."""
    return constants.cell_indices @ structure.unit_cell


def from_cellconstructor(dyn: Phonons) -> ForceConstants:
    """Force constants (eV/A^2) in the supercell that belongs to the q grid of ``dyn``.

    Raises
    ------
    InputError
        If the q points do not form a whole Gamma-centred grid.
    """
    multiples = complete_grid(dyn)
    primitive = from_structure(dyn.structure)
    cells = ForceConstants(primitive, multiples, np.zeros((3 * len(primitive) * len(dyn.q_tot),) * 2))
    vectors = _lattice_vectors(dyn.structure, cells)
    phases = np.exp(2j * np.pi * np.array(dyn.q_tot) @ vectors.T)
    blocks = np.einsum("qI,qab,qJ->IaJb", phases, np.array(dyn.dynmats), phases.conj(), optimize=True)
    blocks = blocks / len(dyn.q_tot) * unit_factor()
    largest = np.abs(blocks).max()
    if np.abs(blocks.imag).max() > 1e-5 * largest:
        raise InputError(
            "the dynamical matrices give complex force constants: matrices at q and -q are not conjugates of each other"
        )
    size = cells.hessian.shape[0]
    return cells.replace(np.ascontiguousarray(blocks.real).reshape(size, size))


def complete_grid(dyn: Phonons) -> tuple[int, int, int]:
    """Repetitions of the grid that the q points of ``dyn`` form.

    Raises
    ------
    InputError
        If q points are missing, listed twice or off the grid.
    """
    fractions = np.array(dyn.q_tot) @ dyn.structure.unit_cell.T
    multiples = tuple(int(n) for n in dyn.GetSupercell())
    scaled = fractions * multiples
    points = {tuple(p) for p in np.mod(np.rint(scaled).astype(int), multiples)}
    expected = int(np.prod(multiples))
    if np.abs(scaled - np.rint(scaled)).max() > 1e-3 or len(points) != expected or len(fractions) != expected:
        raise InputError(
            f"the q points do not form a whole grid: {len(fractions)} points, {len(points)} different ones, where a "
            f"{'x'.join(map(str, multiples))} grid has {expected}. Is a file of the set missing?"
        )
    return multiples  # type: ignore[return-value]
