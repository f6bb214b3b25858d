"""Files that are written whole or not at all, directories that a failed run takes away again."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hint_plugins.errors import InputError
from hint_plugins.runs.locks import InUse, hold

#: Kinds of files whose writers choose the format by the suffix.
SUFFIX_MATTERS = frozenset((".npy", ".npz", ".pdf", ".png", ".svg"))

#: Directories that the current runs made, each with the parents that were missing, the outermost first.
_MADE: list[tuple[Path, list[Path]]] = []


def make_directory(path: Path) -> None:
    """Make a directory and its parents, inside a command for as long as something is left in it."""
    path = Path(path).absolute()
    missing = [directory for directory in (path, *path.parents) if not directory.exists()]
    path.mkdir(parents=True, exist_ok=True)
    if missing:
        _MADE.append((path, missing[::-1]))


@contextlib.contextmanager
def without_empty_directories() -> Iterator[None]:
    """Around a run: one that fails takes the directories away that it made and wrote no result into."""
    before = len(_MADE)
    try:
        yield
    except BaseException:
        for path, missing in reversed(_MADE[before:]):
            for folder, *_ in os.walk(path, topdown=False):
                _remove_empty(Path(folder))
            for directory in reversed(missing):
                _remove_empty(directory)
        raise
    finally:
        del _MADE[before:]


def _remove_empty(directory: Path) -> None:
    """Remove a directory that holds nothing, or only the options of a run that came to nothing."""
    with contextlib.suppress(OSError):
        if [entry.name for entry in directory.iterdir()] == ["config.yaml"]:
            (directory / "config.yaml").unlink()
        directory.rmdir()


def hold_output(output: Path) -> None:
    """Refuse a second command on the same output (directory or file) while this one runs."""
    try:
        hold(output)
    except InUse as error:
        raise InputError(str(error)) from None


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same directory and rename it to ``path`` when the block succeeds.

    Its name is hidden and ends in ``.tmp``, so that what a killed process leaves is never read as data; writers that
    look at the suffix (matplotlib, numpy) get it.
    """
    path = Path(path)
    make_directory(path.parent)
    suffix = path.suffix if path.suffix in SUFFIX_MATTERS else ".tmp"
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """Numbers, arrays and paths as what JSON and YAML hold; NaN and infinity become None."""
    import numpy as np

    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(plain(content), indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows (same keys) as a CSV table."""
    import csv

    columns = list(dict.fromkeys(key for row in rows for key in row))
    with replacing(path) as temporary, temporary.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, columns)
        writer.writeheader()
        writer.writerows(rows)
