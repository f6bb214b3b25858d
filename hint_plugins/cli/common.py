"""What every sub-command shares: the output directory, the summary, the exit status."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

#: Kinds of files whose writers choose the format by the suffix.
SUFFIX_MATTERS = frozenset((".npy", ".npz", ".pdf", ".png", ".svg"))
EXIT_DONE, EXIT_SOME_FAILED, EXIT_BAD_INPUT = 0, 1, 2


class InputError(ValueError):
    """Bad input from the user: printed without a traceback, exit status 2."""


def fail(message: str) -> NoReturn:
    """Print ``message`` on stderr and leave with the status for bad input."""
    print(f"hint: {message}", file=sys.stderr)
    raise SystemExit(EXIT_BAD_INPUT)


def finish(num_failed: int) -> None:
    """Leave with status 1 when items failed; return when all went well."""
    if num_failed:
        raise SystemExit(EXIT_SOME_FAILED)


def prepare_output(out: Path, *, overwrite: bool = False, resume: bool = False) -> Path:
    """Create the output directory; an older result in it is never overwritten unasked.

    Parameters
    ----------
    out
        Directory.
    overwrite
        Allow a directory that holds a ``summary.json``.
    resume
        The command continues what it finds, so an older result is welcome.

    Raises
    ------
    InputError
        If the directory holds a finished result, or cannot be created or written.
    """
    out = Path(out)
    if (out / "summary.json").exists() and not (overwrite or resume):
        raise InputError(f"{out} holds an earlier result (summary.json): choose another --out, or add --overwrite")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise InputError(f"cannot write into {out}: {error}") from None
    return out


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same directory and rename it to ``path`` when the block succeeds.

    Its name is hidden and ends in ``.tmp``, so that what a killed process leaves is never read as data; writers that
    look at the suffix (matplotlib, numpy) get it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
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


def write_summary(out: Path, content: Mapping[str, Any]) -> None:
    """Write ``summary.json``; last of all, since its presence says that the run is complete."""
    write_json(Path(out) / "summary.json", content)


def write_config(out: Path, command: str, options: Mapping[str, Any]) -> None:
    """Write ``config.yaml``, which repeats the run through ``hint COMMAND --config``."""
    import yaml

    with replacing(Path(out) / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump({"command": command, **plain(options)}, sort_keys=False))


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows (same keys) as a CSV table."""
    import csv

    columns = list(dict.fromkeys(key for row in rows for key in row))
    with replacing(path) as temporary, temporary.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, columns)
        writer.writeheader()
        writer.writerows(rows)
