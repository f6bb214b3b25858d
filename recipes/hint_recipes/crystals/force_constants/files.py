"""Force constants in files: phonopy, ``q2r.x``, dynamical matrices, and this package's ``.npz``."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.datasets.born import DielectricTensors, read_born_file
from hint_plugins.datasets.phonopy_file import read_phonopy_file
from hint_plugins.datasets.q2r import read_q2r
from hint_plugins.errors import InputError
from hint_plugins.runs.files import replacing
from hint_plugins.runs.progress import note
from hint_plugins.storage.store import StoreError
from hint_recipes.crystals.force_constants.dielectric import tell_tensors
from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.force_constants.supercells import find_matrix, find_multiples, match_sites, repetitions
from hint_recipes.crystals.force_constants.unit_cells import describe_matrix, for_supercell

#: Largest number of bytes of an unpacked ``.npz`` (a Hessian of 7000 atoms).
MAX_BYTES = 4 * 2**30
#: Masses of file and crystal that differ by more than this share are told (isotopes, not roundings).
MASS_TOLERANCE = 0.01


def read_force_constants(
    path: str | Path, primitive: Atoms, *, file_masses: bool = False, any_cell: bool = False
) -> ForceConstants:
    """Reference force constants: dynamical matrix files (prefix), ``phonopy*.yaml``, q2r's ``.fc`` or ``.npz``.

    What the file says beyond that is told on stderr: Born effective charges, which are taken, and masses of isotopes,
    which are not.

    Parameters
    ----------
    path
        ``dyn`` for ``dyn1, dyn2, ...``; a phonopy yaml, also packed, with force constants or displacements and forces;
        a force constant file of ``q2r.x``; or an ``.npz`` of :func:`save_force_constants`.
    primitive
        The crystal, in the setting that is wanted; its masses are kept.
    file_masses
        Take the masses (u) of the file instead.
    any_cell
        Where the file's supercell is no n1 x n2 x n3 repetition of ``primitive``, describe the crystal by the cell that
        it repeats (:func:`hint_recipes.crystals.force_constants.unit_cells.for_supercell`) instead of refusing.

    Raises
    ------
    InputError
        If the file cannot be read or belongs to another crystal.
    """
    path = Path(path)
    try:
        supercell, hessian, tensors = _read(path)
    except InputError:
        raise
    except (OSError, EOFError, ValueError, KeyError, IndexError, RuntimeError, MemoryError) as error:
        raise InputError(f"{path}: no force constants: {error or type(error).__name__}") from None
    except (StoreError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: {error}") from None
    try:
        matrix = find_matrix(primitive, supercell)
        if any_cell:
            primitive, _ = for_supercell(primitive, matrix)
        elif repetitions(matrix.T) is None:
            raise InputError(
                f"{path}: the file's supercell is no n1 x n2 x n3 repetition of the given cell; its matrix is "
                f"{describe_matrix(matrix)}. Give these nine numbers as --supercell where the command has that option, "
                "or a cell that repeats to it (for a conventional supercell the conventional cell)"
            )
        masses = _unit_cell_masses(primitive, supercell)
        if file_masses:
            primitive = primitive.copy()
            primitive.set_masses(masses)
        else:
            _tell_other_masses(path, primitive, masses)
        constants = ForceConstants.from_supercell(primitive, supercell, hessian, tolerance=0.1)
        return constants if tensors is None else _with_charges(path, constants, tensors)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: no force constants of this crystal: the file's supercell ({len(supercell)} atoms) is no "
            f"repetition of the given cell ({len(primitive)} atoms): {error}\nGive the unit cell of the file or its "
            "primitive cell (same lattice constants, setting and origin)"
        ) from None


def _read(path: Path) -> tuple[Atoms, np.ndarray, DielectricTensors | None]:
    """Supercell with the masses of the file, Hessian (eV/A^2) in its order, Born charges with the dielectric tensor."""
    if any(suffix in (".yaml", ".yml") for suffix in path.suffixes[-2:]):
        content = read_phonopy_file(path)
        tensors = content.tensors
        if content.born_file is not None:
            tensors = read_born_file(content.born_file, content.primitive)
            note(f"{path}: the Born effective charges come from {content.born_file}")
        return content.supercell, content.hessian, tensors
    if path.suffix == ".fc":
        crystal = read_q2r(path)
        return crystal.supercell, crystal.hessian(), crystal.tensors
    if path.suffix == ".npz":
        found = _read_npz(path)
        return found.supercell, found.hessian, found.tensors
    from hint_recipes.crystals.force_constants.cellconstructor import from_cellconstructor
    from hint_recipes.crystals.force_constants.dynamical_matrices import read_dynamical_matrices, tensors_of

    dyn = read_dynamical_matrices(path)
    found = from_cellconstructor(dyn)
    return found.supercell, found.hessian, tensors_of(dyn)


def _with_charges(path: Path, constants: ForceConstants, tensors: DielectricTensors) -> ForceConstants:
    """Force constants with the Born charges of their file, which are told.

    Raises
    ------
    InputError
        If the charges do not fit the crystal.
    """
    try:
        polar = constants.with_tensors(tensors)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if polar.tensors is not None:
        note(f"{path}: {tell_tensors(polar.tensors)} are used between the q points of its supercell and at Gamma")
    return polar


def _unit_cell_masses(primitive: Atoms, supercell: Atoms) -> np.ndarray:
    """Masses of the supercell on the sites of the unit cell.

    Raises
    ------
    ValueError
        If the crystals differ, or equivalent sites have different masses.
    """
    multiples = find_multiples(primitive, supercell)
    order = match_sites(primitive.repeat(multiples), supercell, tolerance=0.1)
    masses = supercell.get_masses()[order].reshape(-1, len(primitive))
    if np.ptp(masses, axis=0).max() > 1e-6:
        raise ValueError("the same site has different masses in different unit cells")
    return masses[0]


def _tell_other_masses(path: Path, primitive: Atoms, masses: np.ndarray) -> None:
    own = primitive.get_masses()
    other = np.abs(masses / own - 1) > MASS_TOLERANCE
    if other.any():
        first = int(other.argmax())
        print(
            f"hint: {path}: its mass of {primitive.symbols[first]} is {masses[first]:.4g} u, that of the given cell "
            f"{own[first]:.4g} u, which is used; give --mass {primitive.symbols[first]}={masses[first]:.6g} for the "
            "file's",
            file=sys.stderr,
        )


def _read_npz(path: Path) -> ForceConstants:
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > MAX_BYTES:
        raise InputError(f"{path}: holds {size} bytes when unpacked; at most {MAX_BYTES} are read")
    with np.load(path) as content:
        crystal = Atoms(content["numbers"], positions=content["positions"], cell=content["cell"], pbc=True)
        crystal.set_masses(content["masses"])
        tensors = None
        if "born" in content:
            tensors = DielectricTensors(crystal, content["born"], content["dielectric"])
        return ForceConstants(crystal, tuple(content["multiples"]), content["hessian"], tensors)


def save_force_constants(constants: ForceConstants, directory: Path, name: str = "phonopy") -> None:
    """Write ``NAME.yaml`` (phonopy, with force constants) and ``NAME.npz`` (exact).

    The latter holds ``hessian`` (eV/A^2), ``multiples`` and the unit cell: ``numbers``, ``positions`` and ``cell`` (A),
    ``masses`` (u); of a polar crystal also ``born`` (e, direction of the field first) and ``dielectric``.
    """
    with replacing(Path(directory) / f"{name}.yaml") as temporary:
        constants.to_phonopy().save(temporary, settings={"force_constants": True})
    with replacing(Path(directory) / f"{name}.npz") as temporary:
        crystal, tensors = constants.primitive, constants.tensors
        polar: dict[str, Any] = {} if tensors is None else {"born": tensors.born, "dielectric": tensors.dielectric}
        np.savez(
            temporary,
            hessian=constants.hessian,
            multiples=np.array(constants.multiples),
            numbers=crystal.numbers,
            positions=crystal.positions,
            cell=crystal.cell.array,
            masses=crystal.get_masses(),
            **polar,
        )
