"""The directory of one run: made and held at the start, ``config.yaml`` and ``summary.json`` in it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hint_plugins.errors import InputError
from hint_plugins.runs.files import hold_output, make_directory, plain, replacing, write_json


def prepare_output(out: Path, *, overwrite: bool = False, resume: bool = False) -> Path:
    """Create the output directory; an older result in it is never overwritten unasked.

    A command that fails before it wrote a result there takes the directory away again.

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
        If the directory holds a finished result, cannot be created or written, or another command writes there.
    """
    out = Path(out)
    if (out / "summary.json").exists() and not (overwrite or resume):
        raise InputError(f"{out} holds an earlier result (summary.json): choose another --out, or add --overwrite")
    try:
        make_directory(out)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise InputError(f"cannot write into {out}: {error}") from None
    hold_output(out)
    return out


def write_summary(out: Path, content: Mapping[str, Any]) -> None:
    """Write ``summary.json``; last of all, since its presence says that the run is complete."""
    write_json(Path(out) / "summary.json", content)


def write_config(out: Path, command: str, options: Mapping[str, Any]) -> None:
    """Write ``config.yaml``, which repeats the run through ``hint COMMAND --config``."""
    import yaml

    with replacing(Path(out) / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump({"command": command, **plain(options)}, sort_keys=False))
