"""Label a stream of structures: batches to workers, records to shards, and at the end one labelled file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ase import Atoms

from hint_plugins.labelling.engine import EngineError, EngineSpec
from hint_plugins.labelling.make import Record, failure, label_batch
from hint_plugins.labelling.record import LabelTask, attach, bare, structure_key
from hint_plugins.labelling.shards import ShardStore
from hint_plugins.labels.checks import check_structure
from hint_plugins.runs.executors import ExecutorFactory, is_worker_loss, outcome_of
from hint_plugins.storage.store import UnwritableError

logger = logging.getLogger(__name__)

Batch = list[tuple[str, Atoms]]
#: Told after every stored batch: how many records were made, and how many of them failed.
Progress = Callable[[int, int], None]


@dataclass
class LabelSummary:
    """What a run did. ``n_input = n_done + n_skipped + n_failed``.

    Attributes
    ----------
    n_done
        Labelled by this run.
    n_skipped
        Labelled by an earlier run, or the same structure as one that is counted already.
    n_failed
        Without a label in the output: the calculation failed now or before, or its labels do not pass the check.
    n_energies, n_forces, n_stresses, n_hessians
        Labels in the output; Hessians of any kind.
    n_with_frozen_atoms
        Labelled structures with constraints: they are labelled whole, as if all atoms were free.
    """

    n_input: int = 0
    n_done: int = 0
    n_skipped: int = 0
    n_failed: int = 0
    n_energies: int = 0
    n_forces: int = 0
    n_stresses: int = 0
    n_hessians: int = 0
    n_with_frozen_atoms: int = 0


def manifest(spec: EngineSpec, task: LabelTask) -> dict[str, Any]:
    """Everything that decides the labels; the engine is built, so that a wrong option fails here."""
    return {"engine": spec.name, "options": dict(spec.options), **asdict(task), **spec.build().provenance()}


def compute_labels(
    structures: Iterable[Atoms],
    store: ShardStore,
    spec: EngineSpec,
    task: LabelTask,
    open_executor: ExecutorFactory,
    *,
    workers: int = 1,
    batch_size: int = 8,
    progress: Progress = lambda made, failed: None,
) -> None:
    """Make the records that ``store`` lacks. Can be killed at any time and called again.

    Parameters
    ----------
    structures
        Streamed; at most a few batches are in memory.
    store, spec, task
        Where to, by whom, what.
    open_executor
        Opens the pool; called again if its workers die.
    workers
        Decides how many batches are under way at once.
    batch_size
        Structures a batch; a kill loses at most the batches under way.
    progress
        See :data:`Progress`.
    """
    batches = _batches(_missing(structures, store, task), batch_size)
    pool = _Pool(open_executor, spec, task)
    lost: Batch = []
    under_way: dict[Future[list[Record]], Batch] = {}
    broken = False

    def keep(records: list[Record]) -> None:
        store.append(records)
        progress(len(records), sum(r["status"] != "done" for r in records))

    try:
        while True:
            if broken and not under_way:
                pool.restart()
                broken = False
            if not broken:
                for batch in islice(batches, max(0, 2 * workers - len(under_way))):
                    try:
                        under_way[pool.submit(batch)] = batch
                    except BrokenExecutor:
                        lost += batch
                        broken = True
                        break
            if not under_way and not broken:
                break
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                batch = under_way.pop(future)
                error = outcome_of(future)
                if error is None:
                    keep(future.result())
                elif isinstance(error, EngineError):
                    raise error
                else:
                    broken = broken or isinstance(error, BrokenExecutor)
                    lost += batch
        if lost:
            logger.warning("workers died on %d structures; they are tried again one by one", len(lost))
        for key, atoms in lost:
            keep([_alone(pool, key, atoms)])
    except BaseException as error:
        pool.close(error)
        raise
    pool.close()


class _Pool:
    """The executor that is open now."""

    def __init__(self, open_executor: ExecutorFactory, spec: EngineSpec, task: LabelTask) -> None:
        self._open, self._spec, self._task = open_executor, spec, task
        self._context: AbstractContextManager[Executor] | None = None
        self._executor: Executor | None = None

    def submit(self, batch: Batch) -> Future[list[Record]]:
        if self._executor is None:
            self._context = self._open()
            self._executor = self._context.__enter__()
        return self._executor.submit(label_batch, self._spec, self._task, batch)

    def restart(self) -> None:
        """Drop an executor whose workers died; the next batch opens another."""
        self.close()

    def close(self, error: BaseException | None = None) -> None:
        """Leave the executor; after an error it does not wait for what is under way."""
        context, self._context, self._executor = self._context, None, None
        if context is not None:
            context.__exit__(None if error is None else type(error), error, None)


def _alone(pool: _Pool, key: str, atoms: Atoms) -> Record:
    """Label one structure by itself, so that whatever happens is this structure's doing."""
    error: BaseException | None
    try:
        future = pool.submit([(key, atoms)])
    except Exception as refusal:  # what executors raise differs
        error = refusal
    else:
        error = outcome_of(future)  # waits
        if error is None:
            return future.result()[0]
    if isinstance(error, EngineError):
        raise error
    if isinstance(error, BrokenExecutor):
        pool.restart()
    if is_worker_loss(error):
        error = EngineError("the worker process died on it (crash, or out of memory)")
    return failure(key, atoms, error)


def _missing(structures: Iterable[Atoms], store: ShardStore, task: LabelTask) -> Iterator[tuple[str, Atoms]]:
    submitted: set[str] = set()
    for atoms in structures:
        key = structure_key(atoms, task.kind_for(atoms))
        if key not in store.places and key not in submitted:
            submitted.add(key)
            yield key, bare(atoms)


def _batches(items: Iterator[tuple[str, Atoms]], size: int) -> Iterator[Batch]:
    while batch := list(islice(items, size)):
        yield batch


def assemble(
    structures: Iterable[Atoms],
    store: ShardStore,
    task: LabelTask,
    earlier: set[str],
    write: Callable[[Atoms], None],
    doubtful: Callable[[Atoms], None] = lambda atoms: None,
) -> tuple[LabelSummary, list[dict[str, Any]]]:
    """Join the input with its records, in the input's order.

    Parameters
    ----------
    structures
        The same stream again.
    store, task
        As in :func:`compute_labels`.
    earlier
        Keys that were there before this run.
    write
        Takes each labelled structure.
    doubtful
        Takes those whose labels do not pass :func:`hint_plugins.labels.checks.check_structure`.

    Returns
    -------
    LabelSummary, list of dict
        Counts, and for each failed structure its ``index``, ``key``, ``formula`` and ``error``. A structure whose new
        labels do not pass the check, or that ``write`` refuses, is among the failed; ``doubtful`` gets it.
    """
    summary = LabelSummary()
    counted = set(earlier)
    failures = []
    for index, atoms in enumerate(structures):
        summary.n_input += 1
        key = structure_key(atoms, task.kind_for(atoms))
        record = store.get(key)
        reason = record["error"] if record["status"] != "done" else ""
        if not reason:
            attach(record, atoms)
            if found := check_structure(atoms)["reason"]:
                reason = f"labelled, but the labels do not pass the check: {found}"
                doubtful(atoms)
            else:
                try:
                    write(atoms)
                except UnwritableError as error:
                    reason = f"labelled, but {error}"
        if reason:
            summary.n_failed += 1
            failures.append({"index": index, "key": key, "formula": atoms.get_chemical_formula(), "error": reason})
            continue
        if key in counted:
            summary.n_skipped += 1
        else:
            summary.n_done += 1
            counted.add(key)
        summary.n_with_frozen_atoms += bool(atoms.constraints)
        summary.n_energies += "REF_energy" in atoms.info
        summary.n_forces += "REF_forces" in atoms.arrays
        summary.n_stresses += "REF_stress" in atoms.info
        summary.n_hessians += any(name.startswith("REF_hessian") for name in atoms.info)
    return summary, failures


def label_file(
    read: Callable[[], Iterator[Atoms]],
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
    """Label all structures of a file into another; see :func:`compute_labels` and :func:`assemble`.

    Parameters
    ----------
    read
        Opens the stream of input structures; called twice.
    output
        ``.xyz``, ``.extxyz`` or ``.aselmdb``; appears whole at the end.
    shards
        Directory of the finished records.
    retry_failed
        Compute structures again that failed in an earlier run.
    fresh
        Discard the records of earlier runs.
    progress
        See :data:`Progress`.
    known
        Told once how many records earlier runs left.
    doubtful
        See :func:`assemble`.

    Raises
    ------
    EngineError, ExecutorError, ShardError, StoreError
        With what to do about it; finished records are safe in every case.
    """
    from hint_plugins.storage.store import writing

    with ShardStore(shards, manifest(spec, task), fresh=fresh) as store:
        if retry_failed:
            store.forget_failures()
        earlier = {key for key, place in store.places.items() if place.done}
        known(len(store.places))
        compute_labels(
            read(),
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
