"""One thread for a label: libraries read the number of threads when they are loaded, and only then."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@contextlib.contextmanager
def single_threaded(*, force: bool = False) -> Iterator[None]:
    """Let libraries loaded, and processes started, inside the block use one thread.

    Parameters
    ----------
    force
        Also where the user has set a number; otherwise that number stands.
    """
    before = {name: os.environ.get(name) for name in VARIABLES}
    for name, value in before.items():
        if force or value is None:
            os.environ[name] = "1"
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
