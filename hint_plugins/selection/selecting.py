"""The structures of a data set that are worth a label, in a directory."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.datasets.reading import read_dataset, read_places
from hint_plugins.labelling.record import REQUEST
from hint_plugins.labels.hessian_label import SUFFIXES
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.files import replacing
from hint_plugins.selection.choose import Selection, choose
from hint_plugins.selection.plot import plot_map
from hint_plugins.selection.settings import SelectSettings
from hint_plugins.storage.store import writing

#: At most this many unreadable records are named in the summary; all are counted.
MAX_NAMED = 1000


@dataclass(frozen=True)
class SelectedStructures:
    """What was chosen.

    Attributes
    ----------
    file
        The chosen structures, where ``label_request`` says "hessian" or "forces".
    summary
        Counts, explained variance of the map, and place and reason of records that could not be read.
    selection
        Scores and choices of all readable structures.
    """

    file: Path
    summary: dict[str, Any]
    selection: Selection

    def report(self) -> str:
        """The counts as text."""
        found = self.summary
        return (
            f"{found['n_input']} structures: {found['n_output']} chosen, {found['n_hessians']} for Hessians "
            f"-> {self.file}"
        )


def select_structures(
    source: Path,
    directory: Path,
    settings: SelectSettings | None = None,
    *,
    format: str = "auto",
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> SelectedStructures:
    """Choose structures to label, and which of them get Hessians.

    Parameters
    ----------
    source, format
        As in :func:`hint_plugins.datasets.reading.read_dataset`; the data set is walked through three times at most.
    directory
        For ``selected.xyz`` (or ``.aselmdb``), ``scores.csv`` of all readable structures, ``map.png``,
        ``summary.json``. A structure chosen for forces only loses the Hessian label it may carry.
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
    StoreError, SelectionError
        If the data set cannot be read, or an option does not fit.
    """
    settings = settings or SelectSettings()
    options = {**settings.model_dump(), "source": source, "format": format} if options is None else options
    contents = ["selected.xyz", "selected.aselmdb", "scores.csv", "map.png"]
    with RunDirectory(directory, "select", options, contents=contents, overwrite=overwrite) as run:

        def read() -> Iterator[Atoms]:
            return read_dataset(source, format, lambda index, reason: None)

        chosen = choose(
            read,
            **settings.model_dump(exclude={"map_plot", "output_format", "seed"}),
            with_map=settings.map_plot,
            rng=np.random.default_rng(settings.seed),
        )
        target = run / ("selected.aselmdb" if settings.output_format == "aselmdb" else "selected.xyz")
        bad = _write(source, format, chosen, target, run / "scores.csv")
        if chosen.points is not None:
            plot_map(chosen, run / "map.png")
        summary = {
            "n_input": len(chosen.taken) + len(bad),
            "n_output": int(chosen.taken.sum()),
            "n_bad": len(bad),
            "n_hessians": int(chosen.hessian.sum()),
            "explained_variance": chosen.explained,
            "bad": bad[:MAX_NAMED],
        }
        run.finish(summary)
    return SelectedStructures(target, summary, chosen)


def _write(source: Path, format: str, chosen: Selection, target: Path, scores: Path) -> list[dict[str, Any]]:
    """Write the chosen structures and the scores of all; gives place and reason of unreadable records."""
    bad: list[dict[str, Any]] = []
    places = read_places(source, format, lambda index, reason: bad.append({"index": index, "reason": reason}))
    with writing(target) as write, replacing(scores) as temporary, temporary.open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["index", "formula", "num_atoms", "score", "selected", "hessian"])
        for index, (place, atoms) in enumerate(places):
            taken, hessian = bool(chosen.taken[index]), bool(chosen.hessian[index])
            score = f"{chosen.scores[index]:.8g}"
            table.writerow([place, chosen.formulas[index], len(atoms), score, int(taken), int(hessian)])
            if not taken:
                continue
            atoms.info[REQUEST] = "hessian" if hessian else "forces"
            if not hessian:
                for suffix in SUFFIXES:
                    atoms.info.pop("REF_hessian" + suffix, None)
            write(atoms)
    return bad
