"""Phonopy files, as in the MDR phonon database: force constants become the Hessian of the supercell.

``phonopy*.yaml`` (also ``.bz2``, ``.xz``, ``.gz``) with force constants, or with displacements and forces from which
phonopy makes them. Two kinds of structures come out: the undisplaced supercell with its Hessian, and the displaced
supercells with their forces. Tried on files that phonopy wrote here, not yet on one of the MDR database.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.datasets.record import RecordError, labelled
from hint_plugins.labels.store import OnBad, StoreError

_OPENERS: dict[str, Callable[..., Any]] = {".bz2": bz2.open, ".xz": lzma.open, ".gz": gzip.open}


def read_phonopy(path: Path, bad: OnBad, *, displaced: bool = True) -> Iterator[Atoms]:
    """Stream one phonopy file, or all below a directory.

    Parameters
    ----------
    path
        File or directory (``*.yaml``, ``*.yaml.bz2``, ``.xz``, ``.gz``).
    bad
        Takes index and reason of files that cannot be used.
    displaced
        Give the displaced supercells with their forces, too.
    """
    files = sorted(p for p in path.rglob("*.yaml*") if p.is_file()) if path.is_dir() else [path]
    if not files:
        raise StoreError(f"{path}: no *.yaml files")
    for index, file in enumerate(files):
        try:
            yield from _structures(file, displaced)
        except RecordError as error:
            bad(index, f"{file.name}: {error}")


def _structures(file: Path, displaced: bool) -> Iterator[Atoms]:
    phonon = _load(file)
    cell = phonon.supercell
    info = {"name": file.name.partition(".")[0]}
    n = len(cell)
    constants = phonon.force_constants
    if constants is None:
        raise RecordError("neither force constants nor displacements with forces")
    if constants.shape[0] != n:
        from phonopy.harmonic.force_constants import compact_fc_to_full_fc

        constants = compact_fc_to_full_fc(phonon.primitive, constants)
    length, energy, force = _units(phonon)
    hessian = np.asarray(constants).transpose(0, 2, 1, 3).reshape(-1) * _force_constant_unit(phonon)
    common = {"cell": cell.cell * length, "pbc": True}
    supercell = {**info, "role": "supercell"}
    yield labelled(cell.numbers, cell.positions * length, hessian=hessian, info=supercell, **common)
    if not displaced or phonon.dataset is None:
        return
    forces, energies = _stored(phonon, "forces"), _stored(phonon, "supercell_energies")
    for k, structure in enumerate(phonon.supercells_with_displacements or []):
        if structure is None or forces is None or len(forces) <= k:
            continue
        yield labelled(
            structure.numbers,
            structure.positions * length,
            forces=forces[k] * force,
            energy=energies[k] * energy if energies is not None and len(energies) > k else None,
            info={**info, "role": "displaced"},
            **common,
        )


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


def _load(file: Path) -> Any:
    try:
        import phonopy
    except ImportError as error:
        raise StoreError(f"{file}: needs `pip install phonopy` ({error})") from error
    if not file.is_file():
        raise StoreError(f"{file}: no such file")
    opener = _OPENERS.get(file.suffix, open)
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch) / "phonopy.yaml"
        try:
            with opener(file, "rb") as source, plain.open("wb") as target:
                while chunk := source.read(1 << 20):
                    target.write(chunk)
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise RecordError(f"cannot be unpacked (damaged or cut short): {error}") from error
        try:
            return phonopy.load(plain, is_nac=False, log_level=0)
        except Exception as error:  # YAML and phonopy raise many kinds
            raise RecordError(f"phonopy cannot read it: {type(error).__name__}: {error}") from error
