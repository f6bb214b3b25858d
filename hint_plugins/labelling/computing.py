"""Labels in batches on workers, records to shards; what workers die on is tried again one by one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import AbstractContextManager
from itertools import islice

from ase import Atoms

from hint_plugins.labelling.engine import EngineError, EngineSpec
from hint_plugins.labelling.make import Record, failure, label_batch
from hint_plugins.labelling.record import LabelTask, bare, structure_key
from hint_plugins.labelling.shards import ShardStore
from hint_plugins.runs.executors import ExecutorFactory, is_worker_loss, outcome_of

logger = logging.getLogger(__name__)

Batch = list[tuple[str, Atoms]]
#: Told after every stored batch: how many records were made, and how many of them failed.
Progress = Callable[[int, int], None]


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
