"""OpenREACT-CHON-EFH: HDF5 files of molecules along reactions, with energies, forces and Hessians.

Nandi, Zubatyuk and others; three files, ``molecules-RTP.h5`` (stationary points), ``molecules-IRC.h5`` and
``molecules-NMS.h5``, in the layout of pyanitools: a group a molecule (in groups of any depth) with ``species`` (N
symbols or atomic numbers), ``coordinates`` (M, N, 3) in A, ``energies`` (M,), ``forces`` (M, N, 3) and ``hessian``
(M, 3N, 3N) in Hartree and A. Written from the description; not yet tried on a real file, so that the rotation of every
molecule against its forces is what says that the units are right.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.units import Hartree

from hint_plugins.datasets.hdf5 import group_items, open_hdf5, read_array
from hint_plugins.datasets.record import RecordError, labelled, square_hessian
from hint_plugins.storage.store import OnBad, StoreError
from hint_plugins.structures.species import element

FIELDS = ("species", "coordinates", "energies", "forces")
#: Names of the Hessians, and how deep groups may lie in each other.
HESSIANS, MAX_DEPTH = ("hessian", "hessians"), 5


def is_openreact(file: Any) -> bool:
    """Whether the first molecule of an HDF5 file is in this layout."""
    return any("species" in group and "coordinates" in group for _, group in _molecules(file, lambda *_: None))


def read_openreact(path: Path, bad: OnBad) -> Iterator[Atoms]:
    """Stream the structures of a file."""
    index = 0
    with open_hdf5(path) as file:
        for name, group in _molecules(file, bad):
            try:
                arrays = _arrays(group)
                numbers = _numbers(arrays["species"])
                count = _count(arrays, len(numbers))
            except (RecordError, OSError, TypeError, ValueError) as error:
                bad(index, f"{name}: {error}")
                index += 1
                continue
            for k in range(count):
                try:
                    hessian = arrays.get("hessian")
                    yield labelled(
                        numbers,
                        arrays["coordinates"][k],
                        energy=float(arrays["energies"].reshape(-1)[k]) * Hartree,
                        forces=np.asarray(arrays["forces"][k], dtype=float) * Hartree,
                        hessian=None if hessian is None else square_hessian(hessian[k], len(numbers)) * Hartree,
                        info={"name": f"{name.strip('/')}/{k}"},
                    )
                except (RecordError, TypeError, ValueError) as error:
                    bad(index, f"{name}, structure {k}: {error}")
                index += 1
    if not index:
        raise StoreError(f"{path}: no molecules with {', '.join(FIELDS)} in it")


def _molecules(group: Any, bad: OnBad, depth: int = 0) -> Iterator[tuple[str, Any]]:
    if "species" in group:
        yield group.name, group
    elif depth < MAX_DEPTH:
        for _, member in group_items(group, bad):
            if hasattr(member, "keys"):
                yield from _molecules(member, bad, depth + 1)


def _arrays(group: Any) -> dict[str, np.ndarray]:
    missing = [name for name in FIELDS if name not in group]
    if missing:
        raise RecordError(f"no data set {missing[0]!r}: not the layout of OpenREACT")
    arrays = {name: np.asarray(read_array(group, name)) for name in FIELDS}
    hessian = next((name for name in HESSIANS if name in group), None)
    return arrays if hessian is None else arrays | {"hessian": np.asarray(read_array(group, hessian))}


def _count(arrays: dict[str, np.ndarray], atoms: int) -> int:
    """Number of structures, the same in all arrays."""
    shape = arrays["coordinates"].shape
    if len(shape) != 3 or shape[1:] != (atoms, 3):
        raise RecordError(f"coordinates of the shape {shape} where (M, {atoms}, 3) is expected")
    for name, array in arrays.items():
        if name != "species" and len(array.reshape(-1) if name == "energies" else array) != shape[0]:
            raise RecordError(f"{name} has {len(array)} structures, coordinates {shape[0]}")
    return shape[0]


def _numbers(species: np.ndarray) -> np.ndarray:
    if species.dtype.kind in "iuf":
        return species.astype(int)
    names = [x.decode() if isinstance(x, bytes) else str(x) for x in species.reshape(-1)]
    return np.array([atomic_numbers[element(name)[0]] for name in names])
