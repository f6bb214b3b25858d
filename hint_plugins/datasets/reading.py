"""Which reader a data set gets, and its stream of labelled structures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ase import Atoms

from hint_plugins.datasets.directories import is_options
from hint_plugins.registries import registries, resolve
from hint_plugins.storage.other_formats import known_to_ase
from hint_plugins.storage.store import OnBad, StoreError, count_structures, raise_bad, read_structures

#: What the files of a directory are called, by format.
DIRECTORIES = {
    "*.arrow": "hessian-qm9",
    "*/*.arrow": "hessian-qm9",
    "*.aselmdb": "aselmdb",
    "**/type.raw": "deepmd",
    "**/*.yaml*": "phonopy",
}


def visible(directory: Path, paths: Iterable[Path]) -> Iterator[Path]:
    """Those of ``paths`` that are not hidden below ``directory``: hidden files belong to runs under way or killed."""
    return (p for p in paths if not any(part.startswith(".") for part in p.relative_to(directory).parts))


def data_files(path: Path, format: str) -> list[Path]:
    """The files that are read one by one, so that their records can be named: those of a directory of databases."""
    if not path.is_dir() or (format if format != "auto" else detect_format(path)) not in ("aselmdb", "extxyz"):
        return [path]
    return sorted(visible(path, path.glob("*.aselmdb")))


def read_dataset(path: Path | str, format: str = "auto", bad: OnBad | None = None, **options: Any) -> Iterator[Atoms]:
    """Stream the labelled structures of a data set; nothing but the present record is in memory.

    Parameters
    ----------
    path
        File or directory.
    format
        A registered name (:attr:`hint_plugins.registries.Registries.readers`), ``module:function``, or ``auto``.
    bad
        Called with index and reason for each record that cannot be used; by default that is an error.
    **options
        Of the reader.

    Raises
    ------
    StoreError
        Unknown format or option, unreadable file, a bad record under the default policy.
    """
    path = Path(path)
    if not path.exists():
        raise StoreError(f"{path}: no such file or directory")
    name = detect_format(path) if format == "auto" else format
    readers = registries().readers
    try:
        reader = resolve(readers.get(name, name))
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(readers)
        raise StoreError(f"unknown format {format!r}: choose auto, {known}, or module:function ({error})") from error
    try:
        return reader(path, bad or raise_bad(path), **options)
    except TypeError as error:
        raise StoreError(f"format {name!r}: {error}") from error


def read_places(
    path: Path | str, format: str = "auto", bad: OnBad | None = None, **options: Any
) -> Iterator[tuple[int, Atoms]]:
    """As :func:`read_dataset`, but each structure with its place in the file; unreadable ones have a place too."""
    refused = 0

    def skip(index: int, reason: str) -> None:
        nonlocal refused
        refused += 1
        (bad or raise_bad(Path(path)))(index, reason)

    for good, atoms in enumerate(read_dataset(path, format, skip, **options)):
        yield good + refused, atoms


def _is_structures(file: Path) -> bool:
    return file.is_file() and file.name.lower().removesuffix(".gz").endswith((".xyz", ".extxyz"))


def detect_format(path: Path) -> str:
    """Guess the format from names and, for HDF5, from the groups.

    Raises
    ------
    StoreError
        If nothing fits.
    """
    from hint_plugins.datasets.codes import find_runs, holds_hessian

    name = path.name.lower()
    if path.is_dir():
        fitting = [
            format
            for pattern, format in DIRECTORIES.items()
            if any(not is_options(file) for file in visible(path, path.glob(pattern)))
        ]
        phonopy = any(visible(path, path.glob("**/phonopy*.yaml*")))
        if fitting[:1] in ([], ["phonopy"]) and not phonopy and find_runs(path):
            return "codes"
        if fitting:
            return fitting[0]
        inside = sorted(file.name for file in visible(path, path.glob("*")) if _is_structures(file))
        if inside:
            raise StoreError(f"{path} is a directory: give one of the files in it, {', '.join(inside[:5])}")
    elif _is_structures(path):
        return "extxyz"
    elif name.endswith(".aselmdb"):
        return "aselmdb"
    elif name.endswith(".lmdb"):
        return "horm"
    elif name.endswith(".fc"):
        return "qe-fc"
    elif ".yaml" in name:
        return "phonopy"
    elif name.endswith((".h5", ".hdf5")):
        from hint_plugins.datasets.hdf5 import open_hdf5
        from hint_plugins.datasets.openreact import is_openreact

        with open_hdf5(path) as file:
            return "transition1x" if "data" in file else "openreact" if is_openreact(file) else "rgd1"
    elif holds_hessian(path):
        return "codes"
    elif known_to_ase(path):
        return "ase"
    raise StoreError(f"{path}: cannot tell the format; give --format, one of {', '.join(registries().readers)}")


def read_store(path: Path, bad: OnBad) -> Iterator[Atoms]:
    """Files of structures, or all .aselmdb files of a directory, whose places count on from file to file."""
    if not path.is_dir():
        yield from read_structures(path, bad)
        return
    before = 0
    for file in sorted(visible(path, path.glob("*.aselmdb"))):

        def named(index: int, reason: str, file: Path = file, before: int = before) -> None:
            bad(before + index, f"{file.name}, structure {index}: {reason}")

        yield from read_structures(file, named)
        before += count_structures(file)
