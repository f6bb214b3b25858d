"""The paths of a set of reactions: one directory, resumable, in parallel, one folder per path."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase import Atoms

from hint_plugins.potential.worker import identity, load_for, map_with_potential
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.execution import EXECUTION, Execution
from hint_plugins.runs.items import digest
from hint_plugins.runs.parallel import WorkerDied
from hint_plugins.runs.progress import progress_bar
from hint_recipes.molecules.paths.one_path import run_path
from hint_recipes.molecules.paths.settings import BandSettings
from hint_recipes.molecules.transition_states.reaction import Reaction

if TYPE_CHECKING:
    from hint_plugins.potential import Potential

#: Options that may differ from those of a run that is continued: every path has its own identity.
FREE = EXECUTION | {"reactions", "only", "device"}


@dataclass(frozen=True)
class ReactionPaths:
    """The paths of a set of reactions.

    Attributes
    ----------
    directory
        Where everything lies: ``paths/NAME/`` (images, frequencies, Hessians, picture), ``paths.csv``,
        ``summary.json``.
    model
        Name of the potential.
    records
        One per path (:func:`~hint_recipes.molecules.paths.one_path.run_path`).
    """

    directory: Path
    model: str
    records: list[dict[str, Any]]

    @property
    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` holds."""
        return {
            "model": self.model,
            "n_paths": len(self.records),
            "n_failed": sum(not record["converged"] for record in self.records),
            "paths": self.records,
        }

    def report(self) -> str:
        """The barriers as text, one line per path."""
        return "\n".join(f"{record['name']}: {_outcome(record)}" for record in self.records)


def _outcome(record: Mapping[str, Any]) -> str:
    if record["reason"] is not None:
        return record["reason"]
    text = (
        f"barrier {record['barrier']:.3f} eV = {record['barrier_kcal_mol']:.2f} kcal/mol, "
        f"{record['n_imaginary_top']} imaginary at the top"
    )
    return text if record["converged"] else f"{text} (band not converged)"


def relax_paths(
    items: Mapping[str, Reaction | Sequence[Atoms]],
    model: Any,
    directory: Path,
    settings: BandSettings | None = None,
    *,
    execution: Execution | None = None,
    device: str | None = None,
    dtype: str | None = None,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> ReactionPaths:
    """Relax the paths of reactions and compute the vibrations along them; an unfinished run is continued.

    Parameters
    ----------
    items
        By name: a reaction, whose path is relaxed, or the images of a path, which are taken as they are.
    model, device, dtype
        What :meth:`hint_plugins.potential.Potential.load` understands. A model that is not text works in this process
        only.
    directory
        For the results.
    settings
        Of the bands.
    execution
        Where the paths run.
    options
        What ``config.yaml`` keeps; the settings by default.
    overwrite
        Discard an earlier run in the directory.

    Returns
    -------
    ReactionPaths
        With the records in the order of ``items``.

    Raises
    ------
    InputError
        If the directory holds another run, or options do not fit together.
    PotentialError
        If the model cannot be loaded.
    ExecutorError
        If the executor cannot be opened, or its scheduler is gone.
    """
    settings, execution = settings or BandSettings(), execution or Execution()
    potential = load_for(model, execution, device=device, dtype=dtype)
    if options is None:
        options = {**settings.model_dump(), "model": potential.name, "dtype": dtype}
    with RunDirectory(directory, "path", options, free=FREE, contents=["paths"], overwrite=overwrite) as run:
        store = run.items("paths")
        known = identity(model)
        keys = {name: digest(known, dtype, *_content(item, settings)) for name, item in items.items()}
        records = {name: store.get(name, key) for name, key in keys.items()}
        missing = [name for name, record in records.items() if record is None]
        function = functools.partial(_run, settings=settings, directory=store.directory)
        todo = [(name, items[name], keys[name]) for name in missing]
        with progress_bar(len(items), f"paths, {potential.name}", "path") as bar:
            bar.update(len(items) - len(missing))
            for place, outcome in map_with_potential(
                function, todo, model, potential, execution, device=device, dtype=dtype
            ):
                name = missing[place]
                if isinstance(outcome, WorkerDied):
                    outcome = _died(name, str(outcome))
                elif isinstance(outcome, BaseException):
                    raise outcome
                if outcome.get("barrier") is not None:  # a failure may have been passing
                    store.put(name, keys[name], outcome)
                records[name] = outcome
                bar.update()
        result = ReactionPaths(run.path, potential.name, [record for record in records.values() if record is not None])
        run.write_csv("paths.csv", path_rows(result.records))
        run.finish(result.summary)
    return result


def _content(item: Reaction | Sequence[Atoms], settings: BandSettings) -> list[Any]:
    if isinstance(item, Reaction):
        return [settings.model_dump(exclude={"width"}), *(item.frames[role] for role in sorted(item.frames))]
    return [None, *item]


def _run(
    item: tuple[str, Reaction | Sequence[Atoms], str], potential: Potential, settings: BandSettings, directory: Path
) -> dict[str, Any]:
    name, path, key = item
    return run_path(name, path, potential, settings, directory, key)


def _died(name: str, detail: str) -> dict[str, Any]:
    counts = {"n_forces": None, "n_hessians": None}
    return {"name": name, "converged": False, "barrier": None, "reason": f"worker_died: {detail}", **counts}


def path_rows(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records as rows of a table (numbers only)."""
    energies = [f"{key}{unit}" for key in ("barrier", "reaction_energy") for unit in ("", "_kcal_mol")]
    counts = ("n_images", "n_imaginary_top", "n_forces", "n_hessians")
    return [{key: record.get(key) for key in ("name", "converged", *energies, *counts, "reason")} for record in records]
