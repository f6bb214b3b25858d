"""MACE's training loop: one session from the first to the last step, and every error as one line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hint_mace.checkpoint import CheckpointError
from hint_mace.leaving import exit_with
from hint_mace.session import Session
from hint_mace.validation import validate
from hint_plugins.curvature.selftest import SelfTestError
from hint_plugins.objective.metrics import NotFiniteError
from hint_plugins.potential.memory import is_out_of_memory

if TYPE_CHECKING:
    from hint_mace.adapter import Adapter


def wrap_training(adapter: Adapter) -> None:
    """Let a :class:`~hint_mace.session.Session` answer MACE's loop: training, its epochs and validations."""

    def training(original: Callable) -> Callable:
        signature = inspect.signature(original)

        def train(*args: Any, **kwargs: Any) -> None:
            call = dict(signature.bind(*args, **kwargs).arguments)
            try:
                adapter.session = session = Session(adapter, call)
                adapter.energies.tell()
                adapter.manager.hook.training_started(run=session.run())
            except (SelfTestError, CheckpointError, ValueError) as error:
                exit_with(error)
            try:
                original(**call)
            except (SelfTestError, CheckpointError) as error:
                exit_with(error)
            except NotFiniteError as error:
                exit_with(error, status=1)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                exit_with(_out_of_memory(session, error), status=1)
            finally:
                adapter.session, adapter.trained = None, session
                adapter.manager.hook.training_finished(run=session.run())

        return train

    adapter.patches.function("train", training, "mace.tools.train", "mace.tools")

    def epoch(original: Callable) -> Callable:
        def train_one_epoch(*args: Any, **kwargs: Any) -> None:
            session = adapter.session
            if session is None:
                return original(*args, **kwargs)
            with session.epoch_under_way(kwargs["epoch"]):
                return original(*args, **kwargs)

        return train_one_epoch

    adapter.patches.function("train_one_epoch", epoch, "mace.tools.train")

    def evaluating(original: Callable) -> Callable:
        def evaluate(*args: Any, **kwargs: Any) -> Any:
            loss, metrics = original(*args, **kwargs)
            session = adapter.session
            if session is not None:
                loss = validate(session, kwargs["data_loader"], loss, metrics)
            return loss, metrics

        return evaluate

    adapter.patches.function("evaluate", evaluating, "mace.tools.train")


def _out_of_memory(session: Session, error: RuntimeError) -> MemoryError:
    """What to change when a step did not fit."""
    args = session.args
    first = str(error).strip().split("\n")[0]
    return MemoryError(
        f"{session.when}: out of memory on {session.device} ({first}). Lower --batch_size (now {args.batch_size}; "
        f"--valid_batch_size in a validation) or --hessian_num_probes, or take --hessian_engine reverse, which needs "
        "least memory among the exact engines, or finite_difference, which needs less still. Checkpoints are kept: "
        "--restart_latest goes on from the last one"
    )
