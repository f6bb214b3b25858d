"""Force constants and displaced supercells of a phonopy file, from itself or from the files beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hint_plugins.datasets.phonopy_units import units
from hint_plugins.datasets.record import RecordError

#: Files beside the YAML file that may hold its forces or force constants.
BESIDE = ("FORCE_CONSTANTS", "force_constants.hdf5", "FORCE_SETS")


def has_forces(dataset: Any) -> bool:
    """Whether a phonopy dataset holds forces beside its displacements."""
    if not dataset:
        return False
    return "forces" in dataset or all("forces" in entry for entry in dataset.get("first_atoms", [{}]))


def forces_beside(phonon: Any, directory: Path) -> tuple[np.ndarray | None, list[Path]]:
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


def produced(phonon: Any) -> np.ndarray:
    """Force constants from displacements and forces, symmetrised as ``phonopy.load`` does."""
    if not has_forces(phonon.dataset):
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


def displaced(phonon: Any) -> list[tuple[np.ndarray, np.ndarray, float | None]]:
    """Positions (A), forces (eV/A) and energy (eV) of the displaced supercells that have forces."""
    if not has_forces(phonon.dataset):
        return []
    length, energy, force = units(phonon)
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
