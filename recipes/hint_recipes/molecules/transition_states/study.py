"""Transition-state searches over a set of reactions: in parallel, resumable, one folder a reaction."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.runs.devices import worker_device
from hint_plugins.runs.executors import ExecutorFactory
from hint_plugins.runs.items import ItemStore, digest, file_digest, safe_name, write_frames
from hint_plugins.runs.parallel import WorkerDied, map_items
from hint_recipes.failures import REASONS, SearchFailure
from hint_recipes.molecules.transition_states.reaction import Reaction
from hint_recipes.molecules.transition_states.search import FIELDS, KCAL, SearchResult, SearchSettings, search

#: Fields of a record that are lists.
LISTS = {"frequencies_cm1", "irc_converged", "bonds", "attempts"}
#: Columns of the table on the terminal; energies in kcal/mol above the relaxed reactant.
BARRIER_HEADINGS = ("reaction", "barrier", "products", "end R", "end P", "imaginary", "result")


@functools.lru_cache(maxsize=1)
def _loaded(spec: str, device: str | None, dtype: str | None) -> Any:
    from hint_plugins.potential import Potential

    return Potential.load(spec, device=device, dtype=dtype)


def _potential(spec: Any, device: str | None, dtype: str | None) -> Any:
    if isinstance(spec, str):
        return _loaded(spec, device, dtype)
    from hint_plugins.potential import Potential

    return Potential.load(spec, device=device, dtype=dtype)


def _work(
    reaction: Reaction, *, spec: Any, device: str | None, dtype: str | None, settings: SearchSettings, alone: bool
) -> SearchResult:
    return search(reaction, _potential(spec, device if alone else worker_device(device), dtype), settings)


def _together(
    reactions: Sequence[Reaction], potential: Any, settings: SearchSettings, width: int
) -> Iterator[tuple[int, Any]]:
    """Search ``width`` reactions at a time, their requests joined into calls of the potential for all of them."""
    from hint_plugins.potential.together import Together

    if settings.path == "gsm" or settings.saddle == "rsirfo":
        raise ValueError("gsm and rsirfo (pysisyphus) change the working directory: search one reaction at a time")
    under_way = min(width, len(reactions))
    limited = replace(settings, max_seconds=settings.max_seconds * under_way)  # each waits for all the others
    for outcome in Together(potential, width).map(lambda item, asking: search(item, asking, limited), reactions):
        if outcome.error is None:
            outcome.value.record |= {"seconds": round(outcome.seconds, 3), "cpu_seconds": None}
        yield outcome.index, outcome.value if outcome.error is None else outcome.error


def search_set(
    reactions: Sequence[Reaction],
    spec: Any,
    out: Path,
    settings: SearchSettings | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    open_executor: ExecutorFactory | None = None,
    workers: int = 1,
    together: int = 1,
    retry_failed: bool = False,
    progress: Callable[[dict[str, Any]], None] = lambda record: None,
) -> list[dict[str, Any]]:
    """Search every reaction that has no stored result yet.

    Parameters
    ----------
    reactions
        The set.
    spec, device, dtype
        What :meth:`hint_plugins.potential.Potential.load` understands. A ``spec`` that is not text (a calculator, a
        model) works in this process only. Where ``device`` leaves it open, worker processes take the GPUs in turn.
    out
        Every reaction gets ``out/reactions/NAME.json`` and a folder ``NAME`` with structures and plot.
    settings
        Of the searches.
    open_executor, workers
        Worker processes; without an executor the reactions run here, one after the other.
    together
        Without an executor: so many reactions at a time, whose requests are joined into calls of the potential for all
        of them (:mod:`hint_plugins.potential.together`). ``seconds`` of a record is then the reaction's share, and its
        ``cpu_seconds`` None.
    retry_failed
        Search again what failed in an earlier run.
    progress
        Told of every record, old ones included.

    Returns
    -------
    list of dict
        Records (see :func:`~hint_recipes.molecules.transition_states.search.search`) in the order of ``reactions``.
    """
    settings = settings or SearchSettings()
    store = ItemStore(out / "reactions")
    identity = file_digest(spec) if isinstance(spec, str) else repr(type(spec))
    keys = [
        digest(identity, dtype, asdict(settings), reaction.energies, *_structures(reaction)) for reaction in reactions
    ]
    records: list[dict[str, Any] | None] = [store.get(r.name, k) for r, k in zip(reactions, keys, strict=True)]
    for index, (item, record) in enumerate(zip(reactions, records, strict=True)):
        if record is not None and record["intended"] and not _stationary_points(out, item.name).is_file():
            records[index] = None  # its structures were removed
    if retry_failed:
        records = [None if record is not None and not record["intended"] else record for record in records]
    for record in records:
        if record is not None:
            progress(record)
    missing = [i for i, record in enumerate(records) if record is None]
    alone = open_executor is None
    function = functools.partial(_work, spec=spec, device=device, dtype=dtype, settings=settings, alone=alone)
    todo = [reactions[i] for i in missing]
    outcomes: Iterable[tuple[int, Any]]
    if open_executor is None and together > 1:
        outcomes = _together(todo, _potential(spec, device, dtype), settings, together)
    elif open_executor is None:
        outcomes = ((i, function(reaction)) for i, reaction in enumerate(todo))
    else:
        outcomes = map_items(function, todo, open_executor, workers)
    for position, outcome in outcomes:
        index = missing[position]
        reaction = reactions[index]
        if isinstance(outcome, WorkerDied):
            outcome = _died(reaction, str(outcome))
        elif isinstance(outcome, BaseException):
            raise outcome
        write_result(outcome, out / "reactions" / safe_name(reaction.name))
        store.put(reaction.name, keys[index], outcome.record)
        records[index] = outcome.record
        progress(outcome.record)
    return [record for record in records if record is not None]


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
    from hint_recipes.molecules.transition_states.plots import plot_profile

    saddle = [result.ts] if result.ts is not None else []
    points = [*result.ends[:1], *saddle, *result.ends[1:]]
    parts = {"path": result.path, "ts": saddle, "irc": result.irc or [], "stationary_points": points}
    for name, frames in parts.items():
        if frames:
            write_frames(folder / f"{name}.extxyz", frames)
    if result.path or result.irc:
        plot_profile(result, folder / "profile.png")


def _stationary_points(out: Path, name: str) -> Path:
    return out / "reactions" / safe_name(name) / "stationary_points.extxyz"


def write_stationary_points(records: Sequence[dict[str, Any]], out: Path) -> int:
    """``out/stationary_points.extxyz``: reactant, saddle and product of every intended reaction; returns how many."""
    from ase.io import read

    target = out / "stationary_points.extxyz"
    target.unlink(missing_ok=True)
    frames: list[Atoms] = []
    for record in records:
        if record["intended"]:
            frames += read(_stationary_points(out, record["name"]), index=":")
    if frames:
        write_frames(target, frames)
    return len(frames) // 3


def summarise(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts, errors and cost of a set.

    Returns
    -------
    dict
        ``n_reactions, n_path, n_ts, n_intended, n_failed`` (not intended); ``reasons``: reason -> number;
        ``ts_rmsd_median`` (A), ``barrier_mae``, ``barrier_error_median_abs`` (eV; over intended ones with a reference,
        also ``_kcal_mol``), ``n_hessians``, ``n_forces``, ``seconds``, ``seconds_per_reaction``; ``reactions``.
    """
    intended = [record for record in records if record["intended"]]
    summary: dict[str, Any] = {
        "n_reactions": len(records),
        "n_path": sum(bool(record["path_converged"]) for record in records),
        "n_ts": sum(bool(record["ts_converged"]) for record in records),
        "n_intended": len(intended),
        "n_failed": len(records) - len(intended),
        "reasons": dict(Counter(record["reason"] for record in records if record["reason"]).most_common()),
    }
    distances = [record["ts_rmsd"] for record in intended if record.get("ts_rmsd") is not None]
    errors = [abs(record["barrier_error"]) for record in intended if record.get("barrier_error") is not None]
    if distances:
        summary["ts_rmsd_median"] = float(np.median(distances))
    if errors:
        for name, value in (("barrier_mae", np.mean(errors)), ("barrier_error_median_abs", np.median(errors))):
            summary |= {name: float(value), f"{name}_kcal_mol": float(value / KCAL)}
    for key in ("n_hessians", "n_forces", "seconds"):
        summary[key] = sum(record.get(key) or 0 for record in records)
    summary["seconds_per_reaction"] = summary["seconds"] / len(records) if records else None
    return summary | {"reactions": list(records)}


def table_rows(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records as rows of a table (no lists, energies in eV), with the reason spelt out."""
    columns = [field for field in FIELDS if field not in LISTS | {"detail"}]
    return [
        {column: record.get(column) for column in columns}
        | {"explanation": f"{REASONS[record['reason']]}: {record.get('detail')}" if record.get("reason") else None}
        for record in records
    ]


def barrier_rows(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The barriers of a set as a short table: kcal/mol above the relaxed reactant, the zero of ``profile.png``.

    ``end_reactant`` and ``end_product`` are the energies of the minima at which the reaction coordinate ends;
    ``result`` says ``intended`` or the reason why not, and which end is another conformer.
    """
    rows = []
    for record in records:
        ends = {role: record.get(f"irc_{role}_energy") for role in ("reactant", "product")}
        others = [role for role in ends if record.get(f"irc_{role}_conformer") == "other"]
        note = f" ({' and '.join(others)}: another conformer)" if others and record["intended"] else ""
        rows.append(
            {
                "name": record["name"],
                "barrier_kcal_mol": _rounded(record.get("barrier_kcal_mol")),
                "reaction_energy_kcal_mol": _rounded(record.get("reaction_energy_kcal_mol")),
                **{f"end_{role}_kcal_mol": _rounded(energy, unit=KCAL) for role, energy in ends.items()},
                "imaginary_cm1": _rounded(record.get("imaginary_cm1"), 0),
                "result": ("intended" if record["intended"] else str(record["reason"])) + note,
            }
        )
    return rows


def _rounded(value: float | None, digits: int = 2, unit: float = 1.0) -> float | None:
    return None if value is None else round(value / unit, digits) + 0.0  # no -0.0


def barrier_table(rows: Sequence[dict[str, Any]], at_most: int = 40) -> str:
    """Rows of :func:`barrier_rows` as text for a terminal."""
    shown = [list(BARRIER_HEADINGS), *([str("" if v is None else v) for v in row.values()] for row in rows[:at_most])]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(w) for cell, w in zip(row[1:-1], widths[1:-1], strict=True)),
                row[-1],
            ]
        )
        for row in shown
    ]
    if len(rows) > at_most:
        lines.append(f"... and {len(rows) - at_most} more in barriers.csv")
    return "\n".join(line.rstrip() for line in lines)
