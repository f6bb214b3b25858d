"""Label a stream of structures: what is missing is computed, and at the end one labelled file appears."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ase import Atoms

from hint_plugins.labelling.assembling import LabelSummary, assemble
from hint_plugins.labelling.computing import Progress, compute_labels
from hint_plugins.labelling.engine import EngineSpec
from hint_plugins.labelling.record import LabelTask
from hint_plugins.labelling.shards import ShardStore
from hint_plugins.runs.executors import ExecutorFactory
from hint_plugins.storage.store import writing


def manifest(spec: EngineSpec, task: LabelTask) -> dict[str, Any]:
    """Everything that decides the labels; the engine is built, so that a wrong option fails here."""
    return {"engine": spec.name, "options": dict(spec.options), **asdict(task), **spec.build().provenance()}


def label_file(
    read: Callable[[], Iterator[tuple[int, Atoms]]],
    output: Path,
    spec: EngineSpec,
    task: LabelTask,
    open_executor: ExecutorFactory,
    *,
    shards: Path,
    workers: int = 1,
    batch_size: int = 8,
    retry_failed: bool = False,
    fresh: bool = False,
    progress: Progress = lambda made, failed: None,
    known: Callable[[int], None] = lambda count: None,
    doubtful: Callable[[Atoms], None] = lambda atoms: None,
) -> tuple[LabelSummary, list[dict[str, Any]]]:
    """Label all structures of a file into another.

    First what is missing (:func:`~hint_plugins.labelling.computing.compute_labels`), then the file
    (:func:`~hint_plugins.labelling.assembling.assemble`).

    Parameters
    ----------
    read
        Opens the stream of input structures, each with its place in the file; called twice.
    output
        ``.xyz``, ``.extxyz`` or ``.aselmdb``; appears whole at the end.
    shards
        Directory of the finished records.
    retry_failed
        Compute structures again that failed in an earlier run.
    fresh
        Discard the records of earlier runs.
    progress
        See :data:`~hint_plugins.labelling.computing.Progress`.
    known
        Told once how many records earlier runs left.
    doubtful
        See :func:`~hint_plugins.labelling.assembling.assemble`.

    Raises
    ------
    EngineError, ExecutorError, ShardError, StoreError
        With what to do about it; finished records are safe in every case.
    """
    with ShardStore(shards, manifest(spec, task), fresh=fresh) as store:
        if retry_failed:
            store.forget_failures()
        earlier = {key for key, place in store.places.items() if place.done}
        known(len(store.places))
        compute_labels(
            (atoms for _, atoms in read()),
            store,
            spec,
            task,
            open_executor,
            workers=workers,
            batch_size=batch_size,
            progress=progress,
        )
        with writing(output) as write:
            return assemble(read(), store, task, earlier, write, doubtful)
