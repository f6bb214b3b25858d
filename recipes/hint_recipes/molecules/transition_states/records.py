"""Records of many reactions: stored ones as they are, the others searched, in this process, in workers, or together."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hint_plugins.potential import Potential
from hint_plugins.potential.worker import identity, map_with_potential
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.execution import Execution
from hint_plugins.runs.items import ItemStore, digest, safe_name
from hint_plugins.runs.parallel import WorkerDied
from hint_plugins.runs.progress import progress_bar
from hint_recipes.failures import SearchFailure
from hint_recipes.molecules.transition_states.output import write_result
from hint_recipes.molecules.transition_states.reaction import Reaction
from hint_recipes.molecules.transition_states.result import FIELDS, SearchResult
from hint_recipes.molecules.transition_states.search import search
from hint_recipes.molecules.transition_states.settings import SearchSettings


def search_all(
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
