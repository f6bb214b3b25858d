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
from ase.data import atomic_masses, atomic_numbers

from hint_plugins.datasets.directories import files_below
from hint_plugins.datasets.record import RecordError, labelled
from hint_plugins.storage.store import OnBad, StoreError
from hint_plugins.structures.species import element


def read_deepmd(path: Path, bad: OnBad) -> Iterator[Atoms]:
    """Stream a DeePMD system, or all systems below a directory; a set that cannot be read is one bad record."""
    systems = [file.parent for file in files_below(path, "type.raw")] if path.is_dir() else []
    if not systems:
        raise StoreError(f"{path}: no type.raw below it: not a DeePMD system")
    index = 0
    for system in systems:
        try:
            numbers, masses = _elements(system)
            parts = sorted(system.glob("set.*"))
            if not parts:
                raise RecordError(f"{system}: no set.*: a system without frames")
        except (RecordError, OSError) as error:
            bad(index, str(error))
            index += 1
            continue
        for part in parts:
            try:
                for atoms in _frames(system, part, numbers, index, bad):
                    index += 1
                    if atoms is not None:
                        atoms.set_masses(masses)
                        yield atoms
            except (RecordError, OSError) as error:
                bad(index, str(error))
                index += 1


def _elements(system: Path) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers and masses (u)."""
    names_file = system / "type_map.raw"
    if not names_file.is_file():
        raise RecordError(f"{system}: no type_map.raw: the elements are unknown")
    names = names_file.read_text(errors="replace").split()
    try:
        kinds = [element(name) for name in names]
    except RecordError as error:
        raise RecordError(f"{names_file}: {error}") from None
    try:
        types = [int(t) for t in (system / "type.raw").read_text(errors="replace").split()]
    except ValueError as error:
        raise RecordError(f"{system}/type.raw: {error}") from None
    if not types:
        raise RecordError(f"{system}/type.raw: no atoms")
    wrong = [t for t in types if not 0 <= t < len(names)]
    if wrong:
        raise RecordError(f"{system}/type.raw: type {wrong[0]}, but type_map.raw has the types 0 to {len(names) - 1}")
    numbers = np.array([atomic_numbers[symbol] for symbol, _ in kinds])
    masses = np.array([mass or atomic_masses[atomic_numbers[symbol]] for symbol, mass in kinds])
    return numbers[types], masses[types]


def _frames(system: Path, part: Path, numbers: np.ndarray, index: int, bad: OnBad) -> Iterator[Atoms | None]:
    arrays = {p.stem: _load(p) for p in sorted(part.glob("*.npy"))}
    if "coord" not in arrays:
        raise RecordError(f"{part}: no coord.npy")
    if "real_atom_types" in arrays:
        raise RecordError(f"{part}: mixed-type systems (real_atom_types.npy) are not read; convert with dpdata first")
    count = len(arrays["coord"])
    if not count:
        raise RecordError(f"{part}/coord.npy: no frames")
    for name in ("energy", "force", "box", "virial", "hessian"):
        if name in arrays and len(arrays[name]) != count:
            raise RecordError(f"{part}/{name}.npy has {len(arrays[name])} frames, coord.npy {count}")
    periodic = not (system / "nopbc").exists()
    if periodic and "box" not in arrays:
        raise RecordError(f"{part}: no box.npy and no file nopbc")
    for k in range(count):
        frame: dict[str, Any] = {name: np.asarray(a[k]) for name, a in arrays.items()}
        try:
            box = stress = None
            if periodic:
                box = frame["box"].reshape(3, 3)
            if box is not None and "virial" in frame:
                volume = abs(np.linalg.det(box))
                if not volume > 1e-6:
                    raise RecordError("periodic, but the cell has no volume")
                stress = -frame["virial"].reshape(3, 3).flat[[0, 4, 8, 5, 2, 1]] / volume
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
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, OverflowError, MemoryError, SyntaxError) as error:
        raise RecordError(f"{path}: not a numpy file, or cut short: {error}") from error
    if not isinstance(array, np.ndarray) or array.ndim == 0 or array.dtype.kind not in "fiu":
        raise RecordError(f"{path}: an array of real numbers with one entry a frame is expected")
    return array
