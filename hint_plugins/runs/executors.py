"""Where batches run: a local process pool, Dask or Parsl, all as a :class:`concurrent.futures.Executor`."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import multiprocessing
import os
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hint_plugins.errors import HintError
from hint_plugins.runs.processes import tethered
from hint_plugins.runs.threads import single_threaded

#: Opens an executor; called again when the workers of the former one died.
ExecutorFactory = Callable[[], AbstractContextManager[Executor]]

EXECUTORS = ("local", "dask", "parsl")


#: What Dask and Parsl say when a worker died with its task.
WORKER_LOST = ("KilledWorker", "WorkerLost", "ManagerLost")


class ExecutorError(HintError, RuntimeError):
    """An executor that cannot be opened or is gone, and why."""


def outcome_of(future: Future[Any]) -> BaseException | None:
    """The exception of a finished future, or None.

    Raises
    ------
    ExecutorError
        If the future was cancelled, which only a scheduler that went away does.
    """
    try:
        return future.exception()
    except CancelledError:
        raise ExecutorError(
            "the scheduler is gone, with what was under way; finished work is stored: give the same command again"
        ) from None


def is_worker_loss(error: BaseException | None) -> bool:
    """Whether an exception says that the worker process died, in the words of any executor."""
    return isinstance(error, BrokenExecutor) or type(error).__name__ in WORKER_LOST


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def executor_factory(
    name: str, workers: int, *, scheduler: str | None = None, parsl_config: Path | None = None
) -> ExecutorFactory:
    """How to open the named executor.

    Parameters
    ----------
    name
        One of :data:`EXECUTORS`.
    workers
        Worker processes, one thread each (``local``, and ``dask`` and ``parsl`` when they are started here).
    scheduler
        Address of a running Dask scheduler (``tcp://host:port``); without it a local cluster is started.
    parsl_config
        Python file that defines ``config``, a :class:`parsl.config.Config`; without it local workers are
        started.

    Raises
    ------
    ExecutorError
        Unknown name, missing library, or an option that belongs to another executor.
    """
    if workers < 1:
        raise ExecutorError(f"the number of workers must be at least 1, got {workers}")
    if scheduler is not None and name != "dask":
        raise ExecutorError("--scheduler belongs to --executor dask")
    if parsl_config is not None and name != "parsl":
        raise ExecutorError("--parsl-config belongs to --executor parsl")
    if name == "local":
        return lambda: _local(workers)
    if name not in EXECUTORS:
        raise ExecutorError(f"unknown executor {name!r}: choose {', '.join(EXECUTORS)}")
    needed = {"dask": "distributed", "parsl": "parsl"}[name]
    if importlib.util.find_spec(needed) is None:
        raise ExecutorError(f"--executor {name} needs `pip install hint-plugins[executors]`")
    if name == "dask":
        return lambda: _dask(workers, scheduler)
    return lambda: _parsl(workers, parsl_config)


def _leave_with_parent() -> None:
    """Let a worker end when the process that started it was killed; Ctrl-C is for that process alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _local(workers: int) -> Iterator[Executor]:
    with single_threaded(force=True):
        pool = ProcessPoolExecutor(
            workers, mp_context=multiprocessing.get_context("spawn"), initializer=_leave_with_parent
        )
        try:
            yield pool
        except BaseException:  # nobody waits for what is under way, which may take hours
            for worker in list((getattr(pool, "_processes", None) or {}).values()):
                worker.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _dask(workers: int, scheduler: str | None) -> Iterator[Executor]:
    from distributed import Client, LocalCluster

    with contextlib.ExitStack() as stack:
        stack.callback(logging.disable, logging.root.manager.disable)
        stack.enter_context(single_threaded(force=True))
        if scheduler is None:
            with _interrupts_held():
                cluster: Any = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
            stack.enter_context(cluster)
        else:
            cluster = scheduler
        try:
            client = stack.enter_context(Client(cluster))
        except OSError as error:
            raise ExecutorError(f"no Dask scheduler answers at {scheduler}: {error}") from error
        try:
            yield client.get_executor(pure=False)
        except KeyboardInterrupt:
            logging.disable(logging.CRITICAL)  # parts of Dask log errors when they are closed in the middle of work
            raise


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes and threads that are started here never get Ctrl-C, which is for this process; it comes at the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _parsl(workers: int, config_file: Path | None) -> Iterator[Executor]:
    from parsl.concurrent import ParslPoolExecutor

    with contextlib.ExitStack() as stack:
        if config_file:
            config = _parsl_config(config_file)
        else:
            directory = tempfile.TemporaryDirectory(prefix="hint-parsl-", ignore_cleanup_errors=True)
            config = _local_parsl_config(workers, stack.enter_context(directory))
        stack.enter_context(single_threaded(force=True))
        stack.enter_context(_own_scripts_on_path())
        pool = ParslPoolExecutor(config=config)
        try:
            yield pool
        except BaseException:  # Parsl cannot cancel tasks, and would wait for them
            pool.shutdown(wait=False)
            raise
        pool.shutdown(wait=True)


@contextlib.contextmanager
def _own_scripts_on_path() -> Iterator[None]:
    """Let Parsl find the programs that were installed beside this Python, also when its bin is not on the PATH."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), before])
    try:
        yield
    finally:
        os.environ["PATH"] = before


def _parsl_config(path: Path) -> Any:
    import runpy

    if not path.is_file():
        raise ExecutorError(f"no such Parsl configuration: {path}")
    try:
        namespace = runpy.run_path(str(path))
    except Exception as error:  # the user's own code
        raise ExecutorError(f"{path} failed: {type(error).__name__}: {error}") from error
    if "config" not in namespace:
        raise ExecutorError(f"{path} must define `config`, a parsl.config.Config")
    return namespace["config"]


def _local_parsl_config(workers: int, directory: str) -> Any:
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.executors.high_throughput.executor import DEFAULT_INTERCHANGE_LAUNCH_CMD, DEFAULT_LAUNCH_CMD
    from parsl.providers import LocalProvider

    return Config(
        executors=[
            HighThroughputExecutor(
                label="hint",
                address="127.0.0.1",
                max_workers_per_node=workers,
                cores_per_worker=1,
                # Parsl's own processes know of each other only, and would outlive this one.
                interchange_launch_cmd=tethered(DEFAULT_INTERCHANGE_LAUNCH_CMD),
                launch_cmd=f"{shlex.join(tethered([]))} {DEFAULT_LAUNCH_CMD}",
                provider=LocalProvider(init_blocks=1, max_blocks=1),
            )
        ],
        run_dir=directory,
        initialize_logging=False,
    )
