"""Displaced structures of a whole file, in a directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hint_plugins.datasets.reading import read_places
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.selection.batch import displaced
from hint_plugins.selection.settings import DisplaceSettings
from hint_plugins.storage.store import writing


@dataclass(frozen=True)
class DisplacedStructures:
    """What was made.

    Attributes
    ----------
    directory
        Where ``structures.xyz``, ``summary.json`` and ``config.yaml`` lie.
    summary
        Counts, and place and reason of every structure that could not be displaced.
    """

    directory: Path
    summary: dict[str, Any]

    def report(self) -> str:
        """The counts as text."""
        return (
            f"{self.summary['n_output']} structures -> {self.directory / 'structures.xyz'}; "
            f"{self.summary['n_bad']} of {self.summary['n_input']} failed"
        )


def displace_structures(
    source: Path,
    directory: Path,
    settings: DisplaceSettings | None = None,
    *,
    format: str = "auto",
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> DisplacedStructures:
    """Displace the structures of a file.

    Parameters
    ----------
    source, format
        As in :func:`hint_plugins.datasets.reading.read_dataset`.
    directory
        For ``structures.xyz`` (without labels; ``parent`` is the place of the parent in the file).
    settings
        Method, numbers and seed.
    options
        What ``config.yaml`` keeps; the settings by default.
    overwrite
        Replace an earlier result in the directory.

    Raises
    ------
    InputError
        If the directory holds a result.
    StoreError, DisplacementError, EngineError
        If the file cannot be read, or nothing can be displaced in this way; a single structure that cannot be
        displaced is named in the summary.
    """
    settings = settings or DisplaceSettings()
    bad: list[dict[str, Any]] = []
    n_input = n_output = 0
    options = {**settings.model_dump(), "source": source, "format": format} if options is None else options
    with RunDirectory(directory, "displace", options, contents=["structures.xyz"], overwrite=overwrite) as run:

        def refuse(index: int, reason: str) -> None:
            nonlocal n_input
            n_input += 1
            bad.append({"index": index, "reason": reason})

        with writing(run / "structures.xyz") as write:
            for place, result in displaced(read_places(source, format, refuse), settings):
                n_input += 1
                if isinstance(result, Exception):
                    bad.append({"index": place, "reason": str(result)})
                    continue
                for atoms in result:
                    write(atoms)
                n_output += len(result)
        summary = {"n_input": n_input, "n_output": n_output, "n_bad": len(bad), "bad": bad}
        run.finish(summary)
    return DisplacedStructures(run.path, summary)
