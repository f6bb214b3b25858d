"""Born effective charges and dielectric tensors as other codes write them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.datasets.record import RecordError
from hint_plugins.structures.species import element


@dataclass(frozen=True)
class DielectricTensors:
    """How a crystal answers a uniform electric field with the nuclei fixed.

    Attributes
    ----------
    crystal
        The cell of the tensors, which are Cartesian in its frame.
    born
        ``(n, 3, 3)`` Born effective charges in e, direction of the field first, direction of the displacement second.
    dielectric
        ``(3, 3)`` high-frequency dielectric tensor.

    Raises
    ------
    RecordError
        If a shape does not fit, a number is not finite, or the dielectric tensor is not positive.
    """

    crystal: Atoms
    born: np.ndarray
    dielectric: np.ndarray

    def __post_init__(self) -> None:
        if self.born.shape != (len(self.crystal), 3, 3) or self.dielectric.shape != (3, 3):
            raise RecordError(
                f"Born effective charges of the shape {self.born.shape} and a dielectric tensor of the shape "
                f"{self.dielectric.shape}, where the cell has {len(self.crystal)} atoms"
            )
        if not (np.isfinite(self.born).all() and np.isfinite(self.dielectric).all()):
            raise RecordError("Born effective charges or a dielectric tensor that are not finite")
        if not np.linalg.eigvalsh((self.dielectric + self.dielectric.T) / 2).min() > 0:
            raise RecordError("the dielectric tensor is not positive")


def read_born_file(path: Path, crystal: Atoms) -> DielectricTensors:
    """Read phonopy's ``BORN``, which holds the charges of the symmetry-independent atoms of ``crystal``, in its order.

    Raises
    ------
    RecordError
        If it is not such a file, or its number of atoms does not fit.
    """
    from phonopy.file_IO import parse_BORN
    from phonopy.structure.atoms import PhonopyAtoms

    cell = PhonopyAtoms(
        symbols=crystal.get_chemical_symbols(), cell=crystal.cell.array, positions=crystal.positions,
        masses=crystal.get_masses(),
    )  # fmt: skip
    try:
        content = parse_BORN(cell, filename=path)
    except (RuntimeError, ValueError, IndexError) as error:
        raise RecordError(f"not phonopy's BORN of this crystal: {error}") from None
    return DielectricTensors(crystal, np.array(content["born"]), np.array(content["dielectric"]))


def read_vasp_tensors(path: Path) -> DielectricTensors:
    """Read ``vasprun.xml`` or ``OUTCAR`` of a VASP run with ``LEPSILON`` or ``LCALCEPS``.

    Raises
    ------
    RecordError
        If the file is damaged or holds no such tensors.
    """
    try:
        return _from_vasprun(path) if path.suffix == ".xml" else _from_outcar(path)
    except RecordError:
        raise
    except Exception as error:  # the parsers raise whatever a damaged file triggers
        raise RecordError(f"not readable as VASP's output: {type(error).__name__}: {error}") from None


def _from_vasprun(path: Path) -> DielectricTensors:
    from phonopy.interface.vasp import VasprunxmlExpat

    with path.open("rb") as handle:
        run = VasprunxmlExpat(handle)
        run.parse()
    return _tensors(run.cell, run.born, run.epsilon)


def _from_outcar(path: Path) -> DielectricTensors:
    from ase.io import read
    from phonopy.interface.vasp import _read_born_and_epsilon_from_OUTCAR

    born, dielectric = _read_born_and_epsilon_from_OUTCAR(path)
    crystal = read(path, index=0, format="vasp-out")
    if not isinstance(crystal, Atoms):
        raise RecordError("no crystal structure")
    return _tensors(crystal, born, dielectric)


def _tensors(cell: Any, born: Any, dielectric: Any) -> DielectricTensors:
    if born is None or dielectric is None or not len(born) or not len(dielectric):
        raise RecordError(
            "no Born effective charges with a dielectric tensor (VASP writes them with LEPSILON = .TRUE.)"
        )
    symbols = cell.get_chemical_symbols() if isinstance(cell, Atoms) else cell.symbols
    vectors = cell.cell.array if isinstance(cell, Atoms) else cell.cell
    crystal = Atoms([element(s)[0] for s in symbols], positions=cell.positions, cell=vectors, pbc=True)
    return DielectricTensors(crystal, np.array(born, dtype=float), np.array(dielectric, dtype=float).reshape(3, 3))
