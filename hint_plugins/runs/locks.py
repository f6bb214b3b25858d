"""One command at a time on one output."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from hint_plugins.errors import HintError

try:
    import fcntl
except ImportError:  # not POSIX: commands are trusted not to meet
    fcntl = None  # type: ignore[assignment]

_HELD: dict[tuple[int, int], tuple[int, Path | None]] = {}


class InUse(HintError, RuntimeError):
    """Another process writes to the output."""


def hold(output: Path) -> None:
    """Keep ``output`` for this process until :func:`release_all`, or until the process ends.

    A directory is locked itself; for a file a hidden one beside it is locked, and removed at the end. Where the file
    system has no locks nothing happens.

    Parameters
    ----------
    output
        An existing directory, or a file, which need not exist.

    Raises
    ------
    InUse
        If another process holds it.
    """
    if fcntl is None:
        return
    beside = None if output.is_dir() else output.with_name(f".{output.name}.lock")
    while True:
        handle = os.open(beside or output, os.O_RDONLY if beside is None else os.O_RDWR | os.O_CREAT, 0o666)
        status = os.fstat(handle)
        identity = (status.st_dev, status.st_ino)
        if identity in _HELD:
            os.close(handle)
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise InUse(f"another command writes to {output}: wait until it ends, or choose another output") from None
        except OSError:
            os.close(handle)
            return
        with contextlib.suppress(FileNotFoundError):  # its last holder may have removed it meanwhile
            if os.path.samestat(status, os.stat(beside or output)):
                _HELD[identity] = (handle, beside)
                return
        os.close(handle)


def release(output: Path) -> None:
    """Give up one output; nothing happens if this process does not hold it."""
    beside = None if output.is_dir() else output.with_name(f".{output.name}.lock")
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        status = os.stat(beside or output)
        handle, held = _HELD.pop((status.st_dev, status.st_ino), (None, None))
        if held is not None:
            held.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def release_all() -> None:
    """Give up every output."""
    for handle, beside in _HELD.values():
        if beside is not None:
            beside.unlink(missing_ok=True)
        os.close(handle)
    _HELD.clear()
