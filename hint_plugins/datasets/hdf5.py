"""HDF5 files, opened and walked with errors that name the file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hint_plugins.datasets.record import RecordError
from hint_plugins.storage.store import OnBad, StoreError

#: An array of a record may hold so many numbers: HDF5 can announce any size in a small file.
MAX_NUMBERS = 10**8


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Read-only HDF5 file.

    Raises
    ------
    StoreError
        No such file, cut short, no HDF5 file, or h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise StoreError(f"{path}: needs `pip install hint-plugins[datasets]` ({error})") from error
    if not path.is_file():
        raise StoreError(f"{path}: no such file")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise StoreError(f"{path}: not an HDF5 file, cut short, or damaged: {error}") from error
    with file:
        yield file


def group_items(group: Any, bad: OnBad) -> Iterator[tuple[str, Any]]:
    """Names and members of a group; a member that cannot be opened is reported."""
    if not hasattr(group, "keys"):
        raise StoreError(f"{group.file.filename}: {group.name} is no group: another layout than expected")
    for name in group:
        try:
            member = group[name]
        except (KeyError, OSError, RuntimeError) as error:
            bad(-1, f"{group.name}/{name} cannot be opened: {error}")
            continue
        yield name, member


def read_array(group: Any, name: str) -> Any:
    """Array ``name`` of a group, or its one number.

    Raises
    ------
    RecordError
        If it is no array, or announces more than :data:`MAX_NUMBERS` numbers.
    """
    member = group[name]
    size = getattr(member, "size", None)
    if size is None:
        raise RecordError(f"{name!r} is no array")
    if size > MAX_NUMBERS:
        raise RecordError(f"{name!r} announces {size} numbers; at most {MAX_NUMBERS} are read")
    return member[()]
