"""What the processes of a data-parallel run must do together: a process that fails alone leaves the others waiting."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

Result = TypeVar("Result")


def first_decides(work: Callable[[], Result]) -> Result:
    """What ``work`` gives on the first process, on every process.

    Parameters
    ----------
    work
        Run by the first process only; its result must be picklable.

    Raises
    ------
    Exception
        Whatever ``work`` raises, on every process.
    """
    if alone():
        return work()
    box: list = [None, None]
    if dist.get_rank() == 0:
        try:
            box[0] = work()
        except (Exception, SystemExit) as error:
            box[1] = _portable(error)
    dist.broadcast_object_list(box, src=0)
    if box[1] is not None:
        raise box[1]
    return box[0]


def together(work: Callable[[], Result]) -> Result:
    """Run ``work`` on every process; give each its result if none fails.

    Parameters
    ----------
    work
        May not wait for other processes after a point at which it can fail.

    Raises
    ------
    Exception
        On every process the error of the first one that fails.
    """
    if alone():
        return work()
    result: list[Result] = []
    own = None
    try:
        result.append(work())
    except (Exception, SystemExit) as error:
        own = _portable(error)
    errors: list[BaseException | None] = [None] * dist.get_world_size()
    dist.all_gather_object(errors, own)
    for found in errors:
        if found is not None:
            raise found
    return result[0]


def alone() -> bool:
    """Whether this is the only process of its run."""
    return not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)


def _portable(error: BaseException) -> BaseException:
    """The error, or one that says the same where it cannot be sent to another process."""
    try:
        copy = pickle.loads(pickle.dumps(error))
        if type(copy) is type(error) and str(copy) == str(error):
            return error
    except Exception:  # an error of any library: its own pickling may raise anything
        pass
    return RuntimeError(f"{type(error).__name__}: {error}")
