"""DeePMD systems: ``type.raw``, ``type_map.raw`` and ``set.*/*.npy``, with ``hessian.npy`` where there is one.

``coord`` (M, 3N) in A, ``energy`` (M,) in eV, ``force`` (M, 3N) in eV/A, ``box`` (M, 9) in A, ``virial`` (M, 9) in eV
(minus the strain derivative), ``hessian`` (M, 9 N^2) in eV/A^2; a file ``nopbc`` marks molecules.
Written from DeePMD's documentation; not yet tried on a published data set.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from hint_plugins.datasets.record import RecordError, labelled
from hint_plugins.labels.store import OnBad, StoreError


def read_deepmd(path: Path, bad: OnBad) -> Iterator[Atoms]:
    """Stream a DeePMD system, or all systems below a directory."""
    systems = sorted(p.parent for p in path.rglob("type.raw"))
    if not systems:
        raise StoreError(f"{path}: no type.raw below it: not a DeePMD system")
    index = 0
    for system in systems:
        numbers = _elements(system)
        for part in sorted(system.glob("set.*")):
            for atoms in _frames(system, part, numbers, index, bad):
                index += 1
                if atoms is not None:
                    yield atoms


def _elements(system: Path) -> np.ndarray:
    names_file = system / "type_map.raw"
    if not names_file.is_file():
        raise StoreError(f"{system}: no type_map.raw: the elements are unknown")
    names = names_file.read_text().split()
    unknown = [n for n in names if n not in atomic_numbers]
    if unknown:
        raise StoreError(f"{names_file}: {unknown[0]!r} is no element")
    try:
        types = np.array([int(t) for t in (system / "type.raw").read_text().split()])
        return np.array([atomic_numbers[n] for n in names])[types]
    except (ValueError, IndexError) as error:
        raise StoreError(f"{system}/type.raw: {error}") from error


def _frames(system: Path, part: Path, numbers: np.ndarray, index: int, bad: OnBad) -> Iterator[Atoms | None]:
    arrays = {p.stem: _load(p) for p in sorted(part.glob("*.npy"))}
    if "coord" not in arrays:
        raise StoreError(f"{part}: no coord.npy")
    if "real_atom_types" in arrays:
        raise StoreError(f"{part}: mixed-type systems (real_atom_types.npy) are not read; convert with dpdata first")
    count = len(arrays["coord"])
    for name in ("energy", "force", "box", "virial", "hessian"):
        if name in arrays and len(arrays[name]) != count:
            raise StoreError(f"{part}/{name}.npy has {len(arrays[name])} frames, coord.npy {count}")
    periodic = not (system / "nopbc").exists()
    if periodic and "box" not in arrays:
        raise StoreError(f"{part}: no box.npy and no file nopbc")
    for k in range(count):
        frame: dict[str, Any] = {name: np.asarray(a[k]) for name, a in arrays.items()}
        try:
            box = stress = None
            if periodic:
                box = frame["box"].reshape(3, 3)
            if box is not None and "virial" in frame:
                stress = -frame["virial"].reshape(3, 3).flat[[0, 4, 8, 5, 2, 1]] / abs(np.linalg.det(box))
            yield labelled(
                numbers,
                frame["coord"],
                energy=frame.get("energy"),
                forces=frame.get("force"),
                stress=stress,
                hessian=frame.get("hessian"),
                cell=box,
                pbc=periodic,
                info={"system": system.name},
            )
        except (RecordError, ValueError) as error:
            bad(index + k, f"{part} frame {k}: {error}")
            yield None


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise StoreError(f"{path}: not a numpy file, or cut short: {error}") from error
