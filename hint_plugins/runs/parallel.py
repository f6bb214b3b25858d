"""Independent items on the executors of the labelling runs; a worker that dies costs only its own item."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import AbstractContextManager
from typing import Any

from hint_plugins.runs.executors import ExecutorFactory, is_worker_loss, outcome_of


class WorkerDied(RuntimeError):
    """The process that worked on an item died."""


def map_items(
    function: Callable[[Any], Any], items: Sequence[Any], open_executor: ExecutorFactory, workers: int
) -> Iterator[tuple[int, Any]]:
    """Apply ``function`` to every item, in any order.

    Parameters
    ----------
    function
        Picklable.
    items
        Picklable.
    open_executor
        See :func:`hint_plugins.runs.executors.executor_factory`; opened again after a crash.
    workers
        How many items are under way at once.

    Yields
    ------
    int, object
        Index of the item and its result, or the exception it ended with (:class:`WorkerDied` after a crash that
        happened again when the item ran alone).

    Raises
    ------
    ExecutorError
        If the scheduler is gone.
    """
    pending = list(range(len(items)))[::-1]
    suspects: list[int] = []
    while pending or suspects:
        context: AbstractContextManager[Executor] = open_executor()
        with context as executor:
            alone = not pending
            under_way: dict[Future[Any], int] = {}
            broken = False
            while not broken and (pending or under_way or (alone and suspects)):
                source = suspects if alone else pending
                limit = 1 if alone else workers
                try:
                    while source and len(under_way) < limit:
                        index = source.pop()
                        under_way[executor.submit(function, items[index])] = index
                except BrokenExecutor:
                    source.append(index)
                    broken = True
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    index = under_way.pop(future)
                    error = outcome_of(future)
                    if isinstance(error, BrokenExecutor):
                        broken = True
                        if alone:
                            yield index, WorkerDied(str(error))
                        else:
                            suspects.append(index)
                    elif is_worker_loss(error):  # this executor lives on, and knows whose doing it was
                        yield index, WorkerDied(str(error))
                    else:
                        yield index, future.result() if error is None else error
            suspects.extend(under_way.values())
