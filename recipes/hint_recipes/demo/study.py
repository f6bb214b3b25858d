"""Does training on Hessians pay? One small, honest comparison on real GFN2-xTB labels.

Geometries along and around small reactions are labelled with ``hint label``; MACE's own trainer then trains the same
model twice on the same structures, with energies and forces (E/F) and with Hessians besides (E/F/H); both are
evaluated on held-out structures of the same reactions.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hint_plugins.errors import InputError
from hint_plugins.runs.devices import training_device
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.processes import end_all
from hint_plugins.runs.progress import note
from hint_recipes.demo.plots import plot_comparison
from hint_recipes.demo.settings import DemoSettings
from hint_recipes.demo.tables import ERRORS, compare, sentences, with_units
from hint_recipes.demo.training import make_labels, split, train_and_evaluate, training_directory

#: Training structures per reaction of the further points of the curve.
CURVE = (3, 12, 24)
#: Options that may differ from those of a run that is continued: every training has settings of its own.
FREE = frozenset({*DemoSettings.model_fields, "seeds", "curve", "workers", "device"})


@dataclass(frozen=True)
class Comparison:
    """Held-out errors with and without Hessians.

    Attributes
    ----------
    directory
        Where everything lies: a folder per training, ``errors.csv``, ``comparison.csv``, ``comparison.png``,
        ``summary.json``.
    rows
        Errors of every training.
    settings
        Of the first size.
    seeds
        Number of seeds.
    """

    directory: Path
    rows: list[dict[str, Any]]
    settings: DemoSettings
    seeds: int

    @property
    def table(self) -> list[dict[str, Any]]:
        """Mean, spread and ratio of every error (:func:`~hint_recipes.demo.tables.compare`)."""
        return compare(self.rows)

    @property
    def models(self) -> dict[str, Path]:
        """The models of the first size and seed, trained on ``E/F`` and on ``E/F/H``."""
        found = {}
        for kind, hessians in (("E/F", False), ("E/F/H", True)):
            directory = training_directory(self.directory, self.settings, 1, hessians)
            found[kind] = directory / f"{directory.name}.model"
        return found

    def report(self, width: int | None = None) -> str:
        """The table, and what it says in words, for a terminal of ``width`` characters."""
        from rich.console import Console
        from rich.table import Table

        seeds = "one seed" if self.seeds == 1 else f"{self.seeds} seeds"
        shown = Table(title=f"{self.settings.model}, errors on held-out structures, {seeds}")
        names = ("structures per reaction\n(with Hessian)", "mean absolute error", "E/F", "E/F/H", "E/F/H : E/F")
        for name in names:
            shown.add_column(name, justify="left" if name == "mean absolute error" else "right")
        for row in self.table:
            size = f"{row['structures']} ({row['labelled']})"
            spread = [f" ± {row[k + '_std']:.2g}" if self.seeds > 1 else "" for k in ("ef", "efh")]
            values = [f"{row[k]:.4g}{s}" for k, s in zip(("ef", "efh"), spread, strict=True)]
            shown.add_row(size, ERRORS[row["error"]], *values, f"{row['ratio']:.2f}")
        text = io.StringIO()
        Console(file=text, width=width).print(shown)
        lines = [
            text.getvalue().rstrip("\n"),
            "E/F: trained on energies and forces. E/F/H: on the same structures with their Hessians besides.",
            *sentences(self.table),
            f"tables, plots and models: {self.directory}",
        ]
        return "\n".join(lines)


def compare_trainings(
    directory: Path,
    settings: DemoSettings | None = None,
    *,
    seeds: int = 1,
    curve: bool = False,
    workers: int = 2,
    device: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Comparison:
    """Label small reactions, train with and without Hessians, compare; an unfinished run is continued.

    Parameters
    ----------
    directory
        For data, models, tables and plots.
    settings
        Size of the comparison.
    seeds
        Number of seeds of model, order and choice of training structures.
    curve
        Also with 3, 12 and 24 training structures per reaction.
    workers
        Labels and trainings at a time, one thread each.
    device
        Of trainings and evaluations (:data:`hint_plugins.runs.devices.TRAINER`); by default the GPU when there is one.
    options
        What ``config.yaml`` keeps; the settings by default.

    Raises
    ------
    InputError
        If a training fails, or the directory holds one with other settings.
    """
    settings = settings or DemoSettings()
    training_device(device)  # before labels are made for nothing
    started = time.perf_counter()
    sizes = [settings, *(settings.of_size(n) for n in CURVE if curve and n != settings.structures)]
    options = {**settings.model_dump(), "seeds": seeds, "curve": curve} if options is None else options
    with RunDirectory(directory, "demo", options, free=FREE, overwrite=None) as run:
        note(f"labels and {2 * len(sizes) * seeds} trainings in {run.path}; logs are beside the models")
        try:
            rows = _trainings(run.path, sizes, range(1, seeds + 1), workers, device)
        except RuntimeError as error:
            raise InputError(str(error)) from None
        result = Comparison(run.path, rows, settings, seeds)
        run.write_csv("errors.csv", with_units(rows))
        run.write_csv("comparison.csv", result.table)
        plot_comparison(rows, run / "comparison.png")
        seconds = time.perf_counter() - started
        shown = {**run.options, **settings.model_dump()}
        run.finish({"settings": shown, "rows": with_units(rows), "comparison": result.table, "seconds": seconds})
    return result


def _trainings(
    out: Path, sizes: Sequence[DemoSettings], seeds: Sequence[int], workers: int, device: str | None
) -> list[dict[str, Any]]:
    """All trainings, several at a time; one row each."""
    labels = make_labels(out, workers)
    jobs = [(size, seed, hessians) for seed in seeds for size in sizes for hessians in (True, False)]
    pool = ThreadPoolExecutor(workers)
    try:
        futures = [
            pool.submit(train_and_evaluate, out, size, seed, hessians, split(labels, size, seed), device)
            for size, seed, hessians in jobs
        ]
        return [future.result() for future in futures]
    except BaseException as error:
        if not isinstance(error, Exception):  # Ctrl-C: nobody waits for the trainings under way
            end_all()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
