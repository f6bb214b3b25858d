"""One phonopy file: its supercell, force constants and displaced supercells, in eV and A.

Only the file itself and, where it holds no forces, ``FORCE_CONSTANTS``, ``force_constants.hdf5`` and ``FORCE_SETS`` of
its own directory are read; the working directory plays no part. The file is parsed without running what a YAML tag
may ask for.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers

from hint_plugins.curvature.layouts import Layout, convert
from hint_plugins.datasets.record import RecordError
from hint_plugins.storage.store import StoreError
from hint_plugins.structures.species import element

_OPENERS: dict[str, Callable[..., Any]] = {".bz2": bz2.open, ".xz": lzma.open, ".lzma": lzma.open, ".gz": gzip.open}
#: A file may hold so many bytes when unpacked (parsed, they take some thirty times as much memory).
MAX_BYTES = 256 * 2**20
#: Lists and mappings of a file may lie so deep in each other; phonopy's reach 5.
MAX_DEPTH = 50
#: A supercell may hold so many atoms.
MAX_ATOMS = 5000
#: Files beside the YAML file that may hold its forces or force constants.
BESIDE = ("FORCE_CONSTANTS", "force_constants.hdf5", "FORCE_SETS")


@dataclass
class PhonopyFile:
    """Content of a phonopy file."""

    supercell: Atoms  #: undisplaced, with the masses of the file
    hessian: np.ndarray  #: ``(3N, 3N)`` eV/A^2, in the order of :attr:`supercell`
    displaced: list[tuple[np.ndarray, np.ndarray, float | None]]
    """Positions (A), forces (eV/A) and energy (eV) of the displaced supercells that have forces."""
    has_born: bool  #: Born effective charges belong to the crystal; they are not part of the Hessian
    taken: list[Path] = field(default_factory=list)  #: files beside the YAML file that were read


def read_phonopy_file(path: Path) -> PhonopyFile:
    """Read a ``phonopy*.yaml``, also packed (``.bz2``, ``.xz``, ``.lzma``, ``.gz``).

    Raises
    ------
    RecordError
        If there is no such file, it is damaged, holds no forces (nor does its directory), or states what is not
        understood.
    StoreError
        If phonopy is not installed.
    """
    try:
        import phonopy  # noqa: F401
    except ImportError as error:
        raise StoreError(f"{path}: needs `pip install phonopy` ({error})") from error
    if not path.is_file():
        raise RecordError("no such file, or a link to none")
    try:
        return _content(path, _parse(_unpacked(path)))
    except RecordError:
        raise
    except Exception as error:  # phonopy and the parser raise many kinds
        raise RecordError(f"phonopy cannot read it: {type(error).__name__}: {error}") from error


def _unpacked(path: Path) -> bytes:
    try:
        with _OPENERS.get(path.suffix.lower(), open)(path, "rb") as source:
            content = source.read(MAX_BYTES + 1)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise RecordError(f"cannot be unpacked (damaged or cut short): {error}") from error
    if len(content) > MAX_BYTES:
        raise RecordError(f"holds more than {MAX_BYTES >> 20} MiB when unpacked; such files are not read")
    return content


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Plain numbers, texts, lists and mappings; a tag that asks for an object is an error."""

    depth = 0

    def descend_resolver(self, parent: Any, index: Any) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:  # the parser is recursive and would end the process
            raise RecordError(f"phonopy cannot read it: lists in lists, more than {MAX_DEPTH} deep")
        super().descend_resolver(parent, index)

    def ascend_resolver(self) -> None:
        self.depth -= 1
        super().ascend_resolver()

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        if node in self.constructed_objects:  # a list of references to lists of references ... fills the memory
            raise RecordError("it holds YAML references (*name), which phonopy does not write; they are not read")
        return super().construct_object(node, deep=deep)


def _parse(content: bytes) -> dict[str, Any]:
    try:
        document = yaml.load(content, Loader=_Loader)
    except yaml.constructor.ConstructorError as error:
        raise RecordError(f"it asks for objects that are not built from a file: {error.problem}") from None
    if not isinstance(document, dict):
        raise RecordError("phonopy cannot read it: no mapping of names to values")
    header = document.get("phonopy")
    calculator = header.get("calculator") if isinstance(header, dict) else None
    _current_units(document.get("physical_unit"), calculator)
    for cell in (document, *(document.get(name) for name in ("unit_cell", "primitive_cell", "supercell"))):
        sites = (cell.get("points") or cell.get("atoms") or []) if isinstance(cell, dict) else []
        isotopes = [_plain_label(site) for site in sites]
        if any(isotopes):  # phonopy wants masses of all sites or of none
            for site, mass in zip(sites, isotopes, strict=True):
                site.setdefault("mass", mass or atomic_masses[atomic_numbers[element(site["symbol"])[0]]])
    return document


def _current_units(stated: Any, calculator: str | None) -> None:
    """Units of older versions differ in upper and lower case only (``Angstrom``); phonopy refuses all others."""
    from phonopy.interface.calculator import get_calculator_physical_units

    known = get_calculator_physical_units(calculator)
    for name, value in (stated or {}).items():
        own = getattr(known, name, None) or getattr(known, f"{name}_unit", None)
        if isinstance(own, str) and str(value).lower() == own.lower():
            stated[name] = own


def _plain_label(site: dict[str, Any]) -> float | None:
    """Labels that phonopy does not know (``D``, ``O_s``) as symbols; ``Fe1``, another sort of Fe, stays.

    Returns
    -------
    float or None
        The mass (u) that the label stands for.
    """
    mass = None
    if "mixture" in site or float(site.get("weight", 1.0)) != 1.0:
        raise RecordError("sites that several elements share (mixture, weight) have no Hessian of atoms")
    for key in ("extended_symbol", "symbol"):
        if key in site:
            symbol, isotope = element(str(site[key]))
            mass = mass or isotope
            if not (str(site[key]).startswith(symbol) and str(site[key])[len(symbol) :].isdecimal()):
                site[key] = symbol
    return mass


def _content(path: Path, document: dict[str, Any]) -> PhonopyFile:
    from phonopy.harmonic.force_constants import compact_fc_to_full_fc
    from phonopy.interface.phonopy_yaml import PhonopyYamlLoader

    data = PhonopyYamlLoader(document).parse().data
    if data.unitcell is None:
        raise RecordError("no crystal structure")
    matrix = np.eye(3, dtype=int) if data.supercell_matrix is None else data.supercell_matrix
    size = len(data.unitcell) * abs(np.linalg.det(matrix))
    if not 0 < size < MAX_ATOMS + 0.5:
        raise RecordError(f"a supercell of {size:.0f} atoms; at least 1 and at most {MAX_ATOMS} are read")
    phonon = _phonon(data, matrix)
    _same_supercell(phonon.supercell, data.supercell)
    phonon.dataset = data.dataset
    constants = data.force_constants
    taken: list[Path] = []
    if constants is None and not _has_forces(data.dataset):
        constants, taken = _beside(phonon, path.parent)
        for name in taken:
            print(f"hint: {path}: the forces come from {name}", file=sys.stderr)
    if constants is None:
        constants = _produced(phonon)
    n = len(phonon.supercell)
    if constants.shape not in ((n, n, 3, 3), (len(phonon.primitive), n, 3, 3)):
        raise RecordError(
            f"force constants of the shape {constants.shape}, where the supercell has {n} atoms and the primitive cell "
            f"{len(phonon.primitive)}"
        )
    if constants.shape[0] != n:
        constants = compact_fc_to_full_fc(phonon.primitive, constants)
    length, energy, force = _units(phonon)
    hessian = convert(constants, Layout.BLOCKS, Layout.FLAT) * _force_constant_unit(phonon)
    cell = phonon.supercell
    supercell = Atoms(
        [element(symbol)[0] for symbol in cell.symbols], positions=cell.positions * length, cell=cell.cell * length,
        masses=cell.masses, pbc=True,
    )  # fmt: skip
    return PhonopyFile(
        supercell,
        hessian,
        _displaced(phonon, length, energy, force),
        data.nac_params is not None or (path.parent / "BORN").is_file(),
        taken,
    )


def _phonon(data: Any, matrix: np.ndarray) -> Any:
    """The ``Phonopy`` object of a file; older files leave the primitive matrix out, which is then the one that fits."""
    from phonopy import Phonopy

    stated = data.primitive_matrix
    choices: list[Any] = [stated] if stated is not None else [np.eye(3), "auto"]
    for choice in choices:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            phonon = Phonopy(data.unitcell, matrix, primitive_matrix=choice, calculator=data.calculator, log_level=0)
        sizes = len(phonon.primitive), len(phonon.supercell)
        if data.force_constants is None or data.force_constants.shape[0] in sizes:
            break
    return phonon


def _same_supercell(built: Any, stated: Any) -> None:
    """Forces and force constants of a file are in the order of its supercell: it must be the one built here."""
    if stated is None:
        return
    same = len(built) == len(stated) and list(built.symbols) == list(stated.symbols)
    if same:
        difference = built.scaled_positions - stated.scaled_positions
        same = np.allclose(built.cell, stated.cell, atol=1e-5) and np.abs(difference - np.rint(difference)).max() < 1e-4
    if not same:
        raise RecordError("the supercell of the file is not the one that its unit cell and supercell matrix give")


def _has_forces(dataset: Any) -> bool:
    if not dataset:
        return False
    return "forces" in dataset or all("forces" in entry for entry in dataset.get("first_atoms", [{}]))


def _beside(phonon: Any, directory: Path) -> tuple[np.ndarray | None, list[Path]]:
    """Force constants or forces from phonopy's other files in the directory of the YAML file."""
    from phonopy.cui.load_helper import read_force_constants_from_hdf5
    from phonopy.file_IO import get_FORCE_SETS_type, parse_FORCE_CONSTANTS, parse_FORCE_SETS
    from phonopy.structure.dataset import get_displacements_and_forces

    plain, packed, sets = (directory / name for name in BESIDE)
    n, constants, taken = len(phonon.supercell), None, []
    if plain.is_file():
        with plain.open() as handle:
            shape = [int(x) for x in handle.readline(100).split()]
        if not shape or max(shape) > n:
            raise RecordError(f"{plain.name} beside it has {shape} atoms, the supercell {n}")
        constants = parse_FORCE_CONSTANTS(filename=plain, p2s_map=phonon.primitive.p2s_map)
        taken.append(plain)
    elif packed.is_file():
        import h5py

        with h5py.File(packed) as file:
            if any(getattr(member, "size", 0) > 9 * n * n for member in file.values()):
                raise RecordError(f"{packed.name} beside it holds more numbers than the supercell of {n} atoms has")
        constants = read_force_constants_from_hdf5(packed, phonon.primitive.p2s_map, phonon.calculator)
        taken.append(packed)
    if sets.is_file():
        stated = phonon.dataset
        if get_FORCE_SETS_type(sets) == 1:
            dataset: Any = parse_FORCE_SETS(filename=sets)
            if dataset["natom"] != n:
                raise RecordError(f"FORCE_SETS beside it has {dataset['natom']} atoms, the supercell {n}")
        else:
            dataset = parse_FORCE_SETS(natom=n, filename=sets)
        if stated:
            own, found = (get_displacements_and_forces(d)[0] for d in (stated, dataset))
            if own[: len(found)].shape != found.shape or not np.allclose(own[: len(found)], found, atol=1e-6):
                raise RecordError("FORCE_SETS beside it has other displacements than the file itself")
        phonon.dataset = dataset
        taken.append(sets)
    return constants, taken


def _produced(phonon: Any) -> np.ndarray:
    """Force constants from displacements and forces, symmetrised as ``phonopy.load`` does."""
    if not _has_forces(phonon.dataset):
        raise RecordError(
            "neither force constants nor displacements with forces, and none of "
            f"{', '.join(BESIDE)} is in its directory"
        )
    one_by_one = "first_atoms" in phonon.dataset
    phonon.produce_force_constants(
        calculate_full_force_constants=False, fc_calculator=None if one_by_one else "symfc", show_drift=False
    )
    if one_by_one:
        phonon.symmetrize_force_constants(show_drift=False, use_symfc_projector=True)
    return np.asarray(phonon.force_constants)


def _displaced(
    phonon: Any, length: float, energy: float, force: float
) -> list[tuple[np.ndarray, np.ndarray, float | None]]:
    if not _has_forces(phonon.dataset):
        return []
    energies = _stored(phonon, "supercell_energies")
    structures = phonon.supercells_with_displacements or []
    if len(structures) != len(phonon.forces):
        raise RecordError(f"{len(structures)} displaced supercells, but forces of {len(phonon.forces)}")
    return [
        (s.positions * length, f * force, float(energies[k]) * energy if energies is not None else None)
        for k, (s, f) in enumerate(zip(structures, phonon.forces, strict=True))
        if s is not None
    ]


def _stored(phonon: Any, name: str) -> Any:
    try:
        return getattr(phonon, name)
    except RuntimeError:  # phonopy's way to say that there are none
        return None


def _units(phonon: Any) -> tuple[float, float, float]:
    """Factors of lengths to A, energies to eV and forces to eV/A; force constants are forces over lengths."""
    from phonopy.interface.calculator import get_calculator_physical_units

    units = get_calculator_physical_units(phonon.calculator)
    return units.distance_to_A, units.energy_to_eV, units.force_to_eVperA


def _force_constant_unit(phonon: Any) -> float:
    """Factor of force constants to eV/A^2, from the unit that phonopy names for the calculator."""
    from ase.units import Bohr, Hartree, Rydberg
    from phonopy.interface.calculator import get_calculator_physical_units

    name = get_calculator_physical_units(phonon.calculator).force_constants_unit
    energy, _, length = name.partition("/")
    energies = {"eV": 1.0, "Ry": Rydberg, "hartree": Hartree, "mRy": Rydberg / 1000}
    lengths = {"angstrom^2": 1.0, "au^2": Bohr**-2, "angstrom.au": 1.0 / Bohr}
    if energy not in energies or length not in lengths:
        raise RecordError(f"force constants in {name}: unknown unit")
    return energies[energy] * lengths[length]
