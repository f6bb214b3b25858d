"""A file that a run makes, and what lies beside it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hint_plugins.errors import InputError
from hint_plugins.runs.files import hold_output, plain, replacing, write_json


def same_file(first: Path, second: Path) -> bool:
    """Whether two paths lead to one file; a link that leads back to itself is left to whoever opens it."""
    return os.path.realpath(first) == os.path.realpath(second)


class OutputFile:
    """Where a run puts its one file, and ``STEM.summary.json`` and others beside it.

    The stem is the file's name without ``.xyz``, ``.aselmdb``, ``.extxyz.gz`` ...; its whole name where the summary
    under the short name is that of another output (``a.xyz`` beside ``a.aselmdb``).

    Parameters
    ----------
    path
        The file.
    *inputs
        Files that it must not replace.

    Raises
    ------
    InputError
        If the file is one of the inputs.
    """

    def __init__(self, path: Path, *inputs: Path) -> None:
        self.path = Path(path)
        if any(same_file(self.path, other) for other in inputs):
            raise InputError("IN and OUT are the same file")

    def take(self, *, overwrite: bool = False) -> None:
        """Hold the file against a second run.

        Raises
        ------
        InputError
            If it exists and may not be overwritten, or another process writes it.
        """
        if self.path.exists() and not overwrite:
            raise InputError(f"{self.path} exists: choose another OUT, or add --overwrite")
        if self.path.parent.is_dir():
            hold_output(self.path)

    @property
    def stem(self) -> str:
        """First part of the names of the files beside it."""
        short = self.path.name.removesuffix(".gz").rpartition(".")[0] or self.path.name
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            owner = json.loads(self.path.with_name(f"{short}.summary.json").read_text())["output"]
            if Path(owner).name != self.path.name:
                return self.path.name
        return short

    def beside(self, suffix: str) -> Path:
        """Path of a file beside it: ``STEM.suffix``."""
        return self.path.with_name(f"{self.stem}.{suffix}")

    def write_config(self, command: str, options: Mapping[str, Any]) -> None:
        """Write ``STEM.config.yaml``, which repeats the run through ``hint COMMAND --config``."""
        with replacing(self.beside("config.yaml")) as temporary:
            temporary.write_text(yaml.safe_dump({"command": command, **plain(options)}, sort_keys=False))

    def write_summary(self, content: Mapping[str, Any]) -> None:
        """Write ``STEM.summary.json``."""
        write_json(self.beside("summary.json"), {**content, "output": self.path})
