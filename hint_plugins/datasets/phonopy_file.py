"""One phonopy file: its supercell, force constants, displaced supercells and Born charges, in eV and A.

Only the file itself and, where it holds no forces, ``FORCE_CONSTANTS``, ``force_constants.hdf5`` and ``FORCE_SETS`` of
its own directory are read, and ``BORN`` there; the working directory plays no part. The file is parsed without running
what a YAML tag may ask for.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.curvature.layouts import Layout, convert
from hint_plugins.datasets.born import DielectricTensors
from hint_plugins.datasets.phonopy_forces import displaced, forces_beside, has_forces, produced
from hint_plugins.datasets.phonopy_units import force_constant_unit, units
from hint_plugins.datasets.phonopy_yaml import read_document
from hint_plugins.datasets.record import RecordError
from hint_plugins.storage.store import StoreError
from hint_plugins.structures.species import element

#: A supercell may hold so many atoms.
MAX_ATOMS = 5000


@dataclass
class PhonopyFile:
    """Content of a phonopy file."""

    supercell: Atoms  #: undisplaced, with the masses of the file
    hessian: np.ndarray  #: ``(3N, 3N)`` eV/A^2, in the order of :attr:`supercell`
    displaced: list[tuple[np.ndarray, np.ndarray, float | None]]
    """Positions (A), forces (eV/A) and energy (eV) of the displaced supercells that have forces."""
    primitive: Atoms  #: the primitive cell of the file
    tensors: DielectricTensors | None = None  #: of the file itself; they are not part of the Hessian
    born_file: Path | None = None  #: ``BORN`` beside the file; it holds the tensors of :attr:`primitive`
    taken: list[Path] = field(default_factory=list)  #: files beside the YAML file that were read

    @property
    def has_born(self) -> bool:
        """Whether Born effective charges belong to the crystal."""
        return self.tensors is not None or self.born_file is not None


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
        return _content(path, read_document(path))
    except RecordError:
        raise
    except Exception as error:  # phonopy and the parser raise many kinds
        raise RecordError(f"phonopy cannot read it: {type(error).__name__}: {error}") from error


def _data(document: dict[str, Any]) -> Any:
    from phonopy.interface.phonopy_yaml import PhonopyYamlLoader

    data = PhonopyYamlLoader(document).parse().data
    if data.unitcell is None:
        raise RecordError("no crystal structure")
    return data


def _matrix(data: Any) -> np.ndarray:
    """The supercell matrix of a file, of a size that is read."""
    matrix = np.eye(3, dtype=int) if data.supercell_matrix is None else data.supercell_matrix
    size = len(data.unitcell) * abs(np.linalg.det(matrix))
    if not 0 < size < MAX_ATOMS + 0.5:
        raise RecordError(f"a supercell of {size:.0f} atoms; at least 1 and at most {MAX_ATOMS} are read")
    return matrix


def _content(path: Path, document: dict[str, Any]) -> PhonopyFile:
    from phonopy.harmonic.force_constants import compact_fc_to_full_fc

    data = _data(document)
    phonon = _phonon(data, _matrix(data))
    _same_supercell(phonon.supercell, data.supercell)
    phonon.dataset = data.dataset
    constants = data.force_constants
    taken: list[Path] = []
    if constants is None and not has_forces(data.dataset):
        constants, taken = forces_beside(phonon, path.parent)
        for name in taken:
            print(f"hint: {path}: the forces come from {name}", file=sys.stderr)
    if constants is None:
        constants = produced(phonon)
    n = len(phonon.supercell)
    if constants.shape not in ((n, n, 3, 3), (len(phonon.primitive), n, 3, 3)):
        raise RecordError(
            f"force constants of the shape {constants.shape}, where the supercell has {n} atoms and the primitive cell "
            f"{len(phonon.primitive)}"
        )
    if constants.shape[0] != n:
        constants = compact_fc_to_full_fc(phonon.primitive, constants)
    length, _, _ = units(phonon)
    hessian = convert(constants, Layout.BLOCKS, Layout.FLAT) * force_constant_unit(phonon)
    cell = phonon.supercell
    supercell = Atoms(
        [element(symbol)[0] for symbol in cell.symbols], positions=cell.positions * length, cell=cell.cell * length,
        masses=cell.masses, pbc=True,
    )  # fmt: skip
    return PhonopyFile(supercell, hessian, displaced(phonon), *_polar_part(path, data, phonon), taken=taken)


def _polar_part(path: Path, data: Any, phonon: Any) -> tuple[Atoms, DielectricTensors | None, Path | None]:
    """Primitive cell, tensors in the file, and ``BORN`` beside a file that holds none."""
    cell, (length, _, _) = phonon.primitive, units(phonon)
    primitive = Atoms(
        [element(symbol)[0] for symbol in cell.symbols], positions=cell.positions * length, cell=cell.cell * length,
        masses=cell.masses, pbc=True,
    )  # fmt: skip
    if data.nac_params is not None:
        born, dielectric = (np.array(data.nac_params[name]) for name in ("born", "dielectric"))
        return primitive, DielectricTensors(primitive, born, dielectric), None
    beside = path.parent / "BORN"
    return primitive, None, beside if beside.is_file() else None


def read_phonopy_tensors(path: Path) -> DielectricTensors:
    """Born effective charges and dielectric tensor of a ``phonopy*.yaml``, which need not hold forces.

    Raises
    ------
    RecordError
        If there are none, or the file cannot be read.
    """
    try:
        data = _data(read_document(path))
        _, tensors, _ = _polar_part(path, data, _phonon(data, _matrix(data)))
    except RecordError:
        raise
    except Exception as error:  # phonopy and the parser raise many kinds
        raise RecordError(f"phonopy cannot read it: {type(error).__name__}: {error}") from error
    if tensors is None:
        raise RecordError("no Born effective charges in it")
    return tensors


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
