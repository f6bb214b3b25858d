"""Structures with labels on disk: extended XYZ and ``.aselmdb`` behind one streaming reader and writer.

In memory a label always has the same names: ``info["REF_energy"]`` (eV), ``arrays["REF_forces"]`` (eV/A),
``info["REF_stress"]`` (6, eV/A^3) and ``info["REF_hessian*"]`` (eV/A^2). In an ``.aselmdb`` file energy,
forces and stress are the row's own, and the rest of ``info``, the Hessian as ``hessian*``, is in
``row.data``: the place where both MACE and fairchem find them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ase import Atoms

from hint_plugins.storage.aselmdb import open_database, read_aselmdb, write_aselmdb
from hint_plugins.storage.extxyz import frames, open_text, read_extxyz, write_extxyz
from hint_plugins.storage.other_formats import known_to_ase, read_other
from hint_plugins.storage.records import (
    OnBad,
    StoreError,
    UnwritableError,
    adopt_calculator,
    raise_bad,
    voigt,
)

__all__ = [
    "OnBad",
    "StoreError",
    "UnwritableError",
    "count_structures",
    "raise_bad",
    "read_numbered",
    "read_structures",
    "store_format",
    "write_structures",
    "writing",
]

XYZ_SUFFIXES = (".xyz", ".extxyz")


def store_format(path: Path) -> str:
    """Kind of file that labels are written to: ``extxyz`` or ``aselmdb``, from the name (``.gz`` allowed for extxyz).

    Raises
    ------
    StoreError
        For any other suffix.
    """
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(XYZ_SUFFIXES):
        return "extxyz"
    if name.endswith(".aselmdb"):
        return "aselmdb"
    raise StoreError(f"{path}: unknown kind of file; use .xyz, .extxyz, .extxyz.gz or .aselmdb")


def input_format(path: Path) -> str:
    """``extxyz``, ``aselmdb``, or ``other`` for what ASE reads besides.

    Raises
    ------
    StoreError
        Missing file, or one of a kind that ASE does not know.
    """
    try:
        return store_format(path)
    except StoreError:
        if not path.is_file():
            raise StoreError(f"{path}: {'a directory' if path.is_dir() else 'no such file'}") from None
        if not known_to_ase(path):
            raise StoreError(
                f"{path}: unknown kind of file; use .xyz, .extxyz, .aselmdb, or a format that ASE recognises (POSCAR, "
                ".cif, .traj, ...)"
            ) from None
        return "other"


def read_numbered(path: Path | str, on_bad: OnBad | None = None) -> Iterator[tuple[int, Atoms]]:
    """Stream the structures of a file, each with its place in the file, counted from 0.

    Parameters
    ----------
    path
        ``.xyz``, ``.extxyz`` (also ``.gz``), ``.aselmdb``, or any other format that ASE reads.
    on_bad
        Called with place and reason for a record that cannot be read, which is then left out.
        By default that is an error.

    Raises
    ------
    StoreError
        Missing file, unknown kind of file, a file without any record, or a bad record under the default policy.
    """
    path = Path(path)
    kind = input_format(path)
    if not path.is_file():
        raise StoreError(f"{path}: no such file")
    reader = {"extxyz": read_extxyz, "aselmdb": read_aselmdb, "other": read_other}[kind]
    return _stream(path, reader, on_bad or raise_bad(path))


def _stream(path: Path, reader: Callable[..., Iterator[tuple[int, Atoms]]], bad: OnBad) -> Iterator[tuple[int, Atoms]]:
    empty = True

    def noted(index: int, reason: str) -> None:
        nonlocal empty
        empty = False
        bad(index, reason)

    try:
        for numbered in reader(path, noted):
            empty = False
            yield numbered
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    if empty:
        raise StoreError(f"{path} holds no structures")


def read_structures(path: Path | str, on_bad: OnBad | None = None) -> Iterator[Atoms]:
    """Stream the structures of a file without their places; see :func:`read_numbered`."""
    return (atoms for _, atoms in read_numbered(path, on_bad))


def count_structures(path: Path | str) -> int:
    """Number of structures, without reading them where the format allows that."""
    path = Path(path)
    kind = input_format(path)
    if kind == "other":
        return sum(1 for _ in read_other(path, lambda *_: None))
    if kind == "aselmdb":
        with open_database(path, readonly=True) as database:
            return len(database.ids)
    try:
        with open_text(path) as handle:
            return sum(1 for _ in frames(handle, lambda *_: None))
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def writing(path: Path | str) -> Iterator[Callable[[Atoms], None]]:
    """Give a function that appends one structure; the file appears, whole, when the block ends without error.

    What is written is read back and compared.

    Raises
    ------
    UnwritableError
        By the function, for a structure that the format cannot hold; others may follow.
    StoreError
        If the disk is full or the file cannot be written; nothing is left behind.
    """
    from hint_plugins.runs.files import replacing

    path = Path(path)
    kind = store_format(path)
    try:
        with replacing(path) as temporary:
            opener = write_extxyz if kind == "extxyz" else write_aselmdb
            with opener(temporary, path) as write:
                yield lambda atoms: write(_standard(atoms))
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}; the earlier file is untouched") from error


def _standard(atoms: Atoms) -> Atoms:
    """A copy with its labels under the names and in the shapes that every file keeps."""
    calculator, atoms = atoms.calc, atoms.copy()
    atoms.calc = calculator
    adopt_calculator(atoms)
    for name in atoms.info:
        if not isinstance(name, str):
            raise UnwritableError(f"the names in info are text, but {name!r} is not")
    if "REF_stress" in atoms.info:
        try:
            atoms.info["REF_stress"] = voigt(atoms.info["REF_stress"])
        except ValueError as error:
            raise UnwritableError(str(error)) from error
    return atoms


def write_structures(path: Path | str, structures: Iterable[Atoms]) -> int:
    """Write all structures to ``path`` (whole or not at all) and return how many."""
    count = 0
    with writing(path) as write:
        for atoms in structures:
            write(atoms)
            count += 1
    return count
