"""The transition states of a set of reactions: one directory, resumable, in parallel, one folder per reaction."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from hint_plugins.errors import InputError
from hint_plugins.potential import Potential
from hint_plugins.potential.worker import identity, load_for, map_with_potential
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.execution import EXECUTION, Execution
from hint_plugins.runs.items import ItemStore, digest, safe_name, write_frames
from hint_plugins.runs.parallel import WorkerDied
from hint_plugins.runs.progress import progress_bar
from hint_recipes.failures import REASONS, SearchFailure
from hint_recipes.molecules.transition_states.plots import plot_profile, plot_success
from hint_recipes.molecules.transition_states.pysisyphus import require_pysisyphus
from hint_recipes.molecules.transition_states.reaction import Reaction
from hint_recipes.molecules.transition_states.search import FIELDS, SearchResult, search
from hint_recipes.molecules.transition_states.settings import SearchSettings
from hint_recipes.molecules.transition_states.tables import barrier_rows, barrier_table, summarise, table_rows

#: Options that may differ from those of a run that is continued: every reaction has its own identity.
FREE = EXECUTION | {"reactions", "only", "limit", "compare", "together", "retry_failed", "device"}


@dataclass(frozen=True)
class TransitionStates:
    """What became of a set of reactions.

    Attributes
    ----------
    directory
        Where everything lies: ``reactions/NAME/`` (structures, profile), ``reactions.csv``, ``barriers.csv``,
        ``stationary_points.extxyz``, ``success.png``, ``summary.json``.
    model
        Name of the potential.
    records
        One per reaction (:func:`~hint_recipes.molecules.transition_states.search.search`).
    """

    directory: Path
    model: str
    records: list[dict[str, Any]]

    @property
    def summary(self) -> dict[str, Any]:
        """Counts, errors and cost (:func:`~hint_recipes.molecules.transition_states.tables.summarise`)."""
        return {"model": self.model, **summarise(self.records)}

    def report(self) -> str:
        """The barriers and counts as text."""
        summary = self.summary
        lines = [
            "Energies in kcal/mol above the relaxed reactant, imaginary mode in cm^-1; end R and end P are the minima "
            "at which the reaction coordinate ends.",
            barrier_table(barrier_rows(self.records)),
            f"{summary['n_reactions']} reactions: {summary['n_path']} paths, {summary['n_ts']} transition states, "
            f"{summary['n_intended']} intended; {summary['seconds']:.1f} s -> {self.directory}",
            *(f"  {number} {reason}: {REASONS[reason]}" for reason, number in summary["reasons"].items()),
        ]
        if summary["n_intended"]:
            points = self.directory / "stationary_points.extxyz"
            lines.append(f"Gibbs energies of the intended ones: hint gibbs {points}")
        return "\n".join(lines)


def find_transition_states(
    reactions: Sequence[Reaction],
    model: Any,
    directory: Path,
    settings: SearchSettings | None = None,
    *,
    execution: Execution | None = None,
    together: int = 1,
    retry_failed: bool = False,
    compare: Mapping[str, Mapping[str, Any]] | None = None,
    device: str | None = None,
    dtype: str | None = None,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> TransitionStates:
    """Search the transition states of a set of reactions; an unfinished run in the directory is continued.

    Parameters
    ----------
    reactions
        The set.
    model, device, dtype
        What :meth:`hint_plugins.potential.Potential.load` understands. A model that is not text (a calculator, a
        network) works in this process only.
    directory
        For the results.
    settings
        Of the searches.
    execution
        Where the reactions run.
    together
        In this process: so many reactions at a time, whose requests are joined into calls of the potential for all of
        them (:mod:`hint_plugins.potential.together`). ``seconds`` of a record is then the reaction's share, and its
        ``cpu_seconds`` None.
    retry_failed
        Search again what failed in an earlier run.
    compare
        Summaries of other models by name, for the bar plot.
    options
        What ``config.yaml`` keeps; the settings by default.
    overwrite
        Discard an earlier run in the directory.

    Returns
    -------
    TransitionStates
        With the records in the order of ``reactions``.

    Raises
    ------
    InputError
        If the directory holds another run, or options do not fit together.
    PotentialError
        If the model cannot be loaded.
    ExecutorError
        If the executor cannot be opened, or its scheduler is gone.
    """
    settings, execution = settings or SearchSettings(), execution or Execution()
    require_pysisyphus(settings)
    if together > 1 and execution.opener() is not None:
        raise InputError("together joins reactions in one process: leave out workers and executor")
    if together > 1 and settings.needs_pysisyphus:
        raise InputError("together works with neb, geodesic and sella, not with pysisyphus (gsm, rsirfo)")
    potential = load_for(model, execution, device=device, dtype=dtype)
    if options is None:
        options = {**settings.model_dump(), "model": potential.name, "dtype": dtype}
    with RunDirectory(directory, "ts", options, free=FREE, contents=["reactions"], overwrite=overwrite) as run:
        records = _records(
            reactions, model, potential, run, settings, execution, together, retry_failed, device=device, dtype=dtype
        )
        result = TransitionStates(run.path, potential.name, records)
        run.write_csv("reactions.csv", table_rows(records))
        run.write_csv("barriers.csv", barrier_rows(records))
        write_stationary_points(records, run.path)
        others = compare or {}
        label = potential.name if potential.name not in others else f"{potential.name} ({run.path})"
        plot_success({**others, label: result.summary}, run / "success.png")
        run.finish(result.summary)
    return result


def _records(
    reactions: Sequence[Reaction],
    model: Any,
    potential: Potential,
    run: RunDirectory,
    settings: SearchSettings,
    execution: Execution,
    together: int,
    retry_failed: bool,
    *,
    device: str | None,
    dtype: str | None,
) -> list[dict[str, Any]]:
    """Records of all reactions: stored ones as they are, the others searched and stored as they end."""
    store = run.items("reactions")
    known = identity(model)
    keys = [digest(known, dtype, settings.model_dump(), r.energies, *_structures(r)) for r in reactions]
    records = [_stored(store, r.name, k, retry_failed) for r, k in zip(reactions, keys, strict=True)]
    missing = [index for index, record in enumerate(records) if record is None]
    todo = [reactions[index] for index in missing]
    with progress_bar(len(reactions), f"transition states, {potential.name}", "reaction") as bar:
        done = [0, 0]

        def progress(record: dict[str, Any]) -> None:
            done[0] += bool(record["intended"])
            done[1] += 1
            bar.set_postfix(intended=f"{done[0]}/{done[1]}", refresh=False)
            bar.update()

        for record in records:
            if record is not None:
                progress(record)
        for position, outcome in _outcomes(
            todo, model, potential, settings, execution, together, device=device, dtype=dtype
        ):
            index = missing[position]
            reaction = reactions[index]
            if isinstance(outcome, WorkerDied):
                outcome = _died(reaction, str(outcome))
            elif isinstance(outcome, BaseException):
                raise outcome
            write_result(outcome, run / "reactions" / safe_name(reaction.name))
            store.put(reaction.name, keys[index], outcome.record)
            records[index] = outcome.record
            progress(outcome.record)
    return [record for record in records if record is not None]


def _stored(store: ItemStore, name: str, key: str, retry_failed: bool) -> dict[str, Any] | None:
    """The record of an earlier run; None if there is none, or if it is to be made again."""
    record = store.get(name, key)
    if record is None or not (record["intended"] or retry_failed):
        return record
    there = record["intended"] and (store.directory / safe_name(name) / "stationary_points.extxyz").is_file()
    return record if there else None


def _outcomes(
    reactions: Sequence[Reaction],
    model: Any,
    potential: Potential,
    settings: SearchSettings,
    execution: Execution,
    together: int,
    *,
    device: str | None,
    dtype: str | None,
) -> Iterable[tuple[int, Any]]:
    if together > 1:
        return _together(reactions, potential, settings, together)
    function = functools.partial(search, settings=settings)
    return map_with_potential(function, reactions, model, potential, execution, device=device, dtype=dtype)


def _together(
    reactions: Sequence[Reaction], potential: Potential, settings: SearchSettings, width: int
) -> Iterator[tuple[int, Any]]:
    """Search ``width`` reactions at a time, their requests joined into calls of the potential for all of them."""
    from hint_plugins.potential.together import Together

    under_way = min(width, len(reactions))
    limited = settings.model_copy(update={"max_seconds": settings.max_seconds * under_way})  # each waits for all
    for outcome in Together(potential, width).map(lambda item, asking: search(item, asking, limited), reactions):
        if outcome.error is None:
            outcome.value.record |= {"seconds": round(outcome.seconds, 3), "cpu_seconds": None}
        yield outcome.index, outcome.value if outcome.error is None else outcome.error


def _structures(reaction: Reaction) -> list[Any]:
    return [part for role in sorted(reaction.frames) for part in (role, reaction.frames[role])] + reaction.doubled


def _died(reaction: Reaction, detail: str) -> SearchResult:
    failure = SearchFailure("worker_died", detail)
    record = dict.fromkeys(FIELDS) | {"name": reaction.name, "reason": failure.reason, "detail": failure.detail}
    record |= dict.fromkeys(("path_converged", "ts_converged", "intended"), False)
    return SearchResult(record, [])


def write_result(result: SearchResult, folder: Path) -> None:
    """The files of one reaction, as far as there is something to write.

    ``path.extxyz``; ``ts.extxyz``; ``irc.extxyz`` (reactant first); ``stationary_points.extxyz`` (relaxed reactant,
    saddle, relaxed product) and ``profile.png``.
    """
    saddle = [result.ts] if result.ts is not None else []
    points = [*result.ends[:1], *saddle, *result.ends[1:]]
    parts = {"path": result.path, "ts": saddle, "irc": result.irc or [], "stationary_points": points}
    for name, frames in parts.items():
        if frames:
            write_frames(folder / f"{name}.extxyz", frames)
    if result.path or result.irc:
        plot_profile(result, folder / "profile.png")


def write_stationary_points(records: Sequence[dict[str, Any]], out: Path) -> int:
    """``out/stationary_points.extxyz``: reactant, saddle and product of every intended reaction; returns how many."""
    from ase.io import read

    target = out / "stationary_points.extxyz"
    target.unlink(missing_ok=True)
    frames: list[Atoms] = []
    for record in records:
        if record["intended"]:
            frames += read(out / "reactions" / safe_name(record["name"]) / "stationary_points.extxyz", index=":")
    if frames:
        write_frames(target, frames)
    return len(frames) // 3
