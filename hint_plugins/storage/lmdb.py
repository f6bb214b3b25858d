"""Open an LMDB file for reading, and notice first that it was cut short (reading it would kill the process)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hint_plugins.storage.records import StoreError

try:
    from lmdb import Error as LMDBError
except ImportError:  # the reader says what to install

    class LMDBError(Exception):  # type: ignore[no-redef]
        """Stands in where lmdb is not installed."""


@contextlib.contextmanager
def open_lmdb(path: Path) -> Iterator[Any]:
    """Read-only environment of a single-file LMDB database.

    Raises
    ------
    StoreError
        No such file, no LMDB file, cut short, or lmdb is not installed.
    """
    try:
        import lmdb
    except ImportError as error:
        raise StoreError(f"{path}: needs `pip install hint-plugins[datasets]` ({error})") from error
    if not path.is_file():
        raise StoreError(f"{path}: no such file")
    try:
        environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise StoreError(f"{path}: not an LMDB file, damaged, or cut short: {error}") from error
    try:
        _check_length(path, environment)
        yield environment
    finally:
        environment.close()


def _check_length(path: Path, environment: Any) -> None:
    """Compare the file's length with the pages that the database says it has."""
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if path.stat().st_size < needed:
        raise StoreError(f"{path}: cut short: {path.stat().st_size} of {needed} bytes are there; copy it again")
