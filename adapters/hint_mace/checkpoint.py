"""What a restarted run needs beyond MACE's checkpoint, and checkpoints that survive a kill at any moment.

MACE stores the averaged weights when it keeps an exponential moving average, forgets the average itself, and starts
again with the epoch that the checkpoint had finished. Everything else that a run must know travels inside the same
file, under a key that MACE does not read: one file is either there with all of it or not there.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mace.tools import CheckpointIO
from mace.tools.checkpoint import CheckpointBuilder
from torch.optim import LBFGS

from hint_plugins.cli.common import replacing

if TYPE_CHECKING:
    from hint_mace.install import Adapter

log = logging.getLogger(__name__)

#: Key of the plugins' part of a checkpoint.
STATE = "hint_plugins"

#: Options of MACE and of the plugins that may change between two parts of a run without changing what is trained
#: (data and the size of a step over all processes are compared as they are, whatever the options say).
FREE = frozenset(
    [
        *("config", "plugins", "name", "work_dir", "log_dir", "model_dir", "checkpoints_dir", "results_dir"),
        *("downloads_dir", "log_level", "device", "num_workers", "pin_memory", "distributed", "launcher", "batch_size"),
        *("train_file", "valid_file", "valid_batch_size", "test_file", "test_dir", "multi_processed_test"),
        *("restart_latest", "hessian_allow_changes", "keep_checkpoints", "save_all_checkpoints", "save_cpu", "dry_run"),
        *("max_num_epochs", "patience", "error_table", "plot", "plot_frequency", "plot_interaction_e"),
        *("skip_evaluate_heads", "wandb", "wandb_dir", "wandb_project", "wandb_entity", "wandb_name"),
        *("wandb_log_hypers", "hessian_metrics", "hessian_metrics_max", "hessian_selftest"),
    ]
)


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, read or continued, with what to do."""


def write_checkpoint(io: CheckpointIO, checkpoint: Mapping[str, Any], epochs: int, keep_last: bool) -> None:
    """Write a checkpoint and read it back; only then drop the one before it, as MACE's own ``save`` would.

    Raises
    ------
    CheckpointError
        If it cannot be written; the checkpoint before it is still there.
    """
    path = Path(io.directory) / io._get_checkpoint_filename(epochs, io.swa_start)
    try:
        with replacing(path) as temporary:
            torch.save(dict(checkpoint), temporary)
            read_checkpoint(temporary, torch.device("cpu"))
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"the checkpoint {path} cannot be written: {_first_line(error)}; checkpoints of earlier epochs are whole"
        ) from error
    if io.old_path and not io.keep and not keep_last and Path(io.old_path) != path:
        Path(io.old_path).unlink(missing_ok=True)
    io.old_path = str(path)


def read_checkpoint(path: str | os.PathLike, device: torch.device | None) -> dict[str, Any]:
    """Content of a checkpoint: tensors, numbers and text; nothing in the file is executed.

    Raises
    ------
    CheckpointError
        If the file is torn, or holds anything else.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"the checkpoint {path} cannot be read: {_first_line(error)}. It is torn or not one of a training run: "
            "remove it to go on from an earlier checkpoint, or train without --restart_latest"
        ) from error
    if not isinstance(content, dict) or not {"model", "optimizer", "lr_scheduler"} <= set(content):
        raise CheckpointError(f"{path} is no checkpoint of a MACE training run: it lacks model, optimiser or scheduler")
    return content


def given_settings(args: argparse.Namespace) -> dict[str, str]:
    """Options that decide what is trained, as text by name."""
    return {name: repr(value) for name, value in sorted(vars(args).items()) if name not in FREE}


def require_same_settings(stored: Mapping[str, str], now: Mapping[str, str], allow: bool) -> list[str]:
    """Differences between the settings of a checkpoint and of the run that continues it.

    Parameters
    ----------
    stored, now
        Settings as text, by name. A name that only one of them has (another version's option) is no difference.
    allow
        Accept differences.

    Raises
    ------
    CheckpointError
        If there are differences that are not accepted.
    """
    changes = [f"{name}: {stored[name]} -> {now[name]}" for name in now if name in stored and stored[name] != now[name]]
    if changes and not allow:
        raise CheckpointError(
            f"this run continues a checkpoint with other settings ({'; '.join(changes)}): give the settings of the "
            "first part, or accept the changes with --hessian_allow_changes True"
        )
    return changes


def wrap_checkpoints(adapter: Adapter) -> None:
    """Read checkpoints without running code, keep the plugins' part, and never begin anew because one does not fit.

    MACE takes any failure on reading for the absence of a checkpoint and trains from the first epoch.
    """
    from hint_mace.install import exit_with

    load, load_state = CheckpointIO.load, CheckpointBuilder.load_checkpoint

    @functools.wraps(load)
    def reading(self: Any, path: str, device: Any = None) -> Any:
        info = self._parse_checkpoint_path(path)
        if info is None:
            return load(self, path, device=device)
        log.info("Loading checkpoint: %s", path)
        try:
            content = read_checkpoint(path, device)
            state = content.pop(STATE, None)
            if state is not None and not adapter.trained:
                adapter.accept_changes(state["settings"], adapter.settings)
        except CheckpointError as error:
            exit_with(error)
        self.hint_loaded = path, state
        return content, info.epochs

    @functools.wraps(load_state)
    def fitting(state: Any, checkpoint: Any, strict: bool) -> None:
        lbfgs = getattr(adapter.args, "lbfgs", False) and not isinstance(state.optimizer, LBFGS)
        try:
            have = set(checkpoint["model"])
            missing = sorted({name for name, _ in state.model.named_parameters()} - have)
            unknown = sorted(have - set(state.model.state_dict()))
            if missing or unknown:
                raise ValueError(f"parameters {(missing + unknown)[:3]} are in only one of them")
            load_state(state, checkpoint, strict)
        except Exception as error:
            if lbfgs:  # MACE tries with its first optimiser, and then again with this one
                raise
            exit_with(
                CheckpointError(
                    f"the checkpoint does not fit the model or optimiser of this run: {_first_line(error)}. Give the "
                    "options of the run that wrote it, or train without --restart_latest"
                )
            )

    setattr(CheckpointIO, "load", reading)  # noqa: B010
    setattr(CheckpointBuilder, "load_checkpoint", staticmethod(fitting))  # noqa: B010


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
