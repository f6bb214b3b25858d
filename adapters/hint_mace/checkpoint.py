"""What a restarted run needs beyond MACE's checkpoint, and checkpoints that survive a kill at any moment.

MACE stores the averaged weights when it keeps an exponential moving average, forgets the average itself, and starts
again with the epoch that the checkpoint had finished. A file beside each checkpoint holds the rest. It is written
first, the checkpoint second, each whole or not at all; the same token in both says that they belong together.
"""

from __future__ import annotations

import argparse
import glob
import logging
import os
import secrets
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mace.tools import CheckpointIO
from mace.tools.checkpoint import CheckpointBuilder
from torch.optim import LBFGS

from hint_mace.leaving import exit_with
from hint_plugins.errors import HintError
from hint_plugins.runs.files import replacing

if TYPE_CHECKING:
    from hint_mace.adapter import Adapter

log = logging.getLogger(__name__)

SUFFIX = ".hint"
#: Key of what joins a checkpoint and the file beside it.
TOKEN = "hint_token"

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


class CheckpointError(HintError, RuntimeError):
    """A checkpoint that cannot be written, read or continued, with what to do."""


def side_file(checkpoint: str | os.PathLike) -> Path:
    """Path of the file beside ``checkpoint``."""
    return Path(str(checkpoint) + SUFFIX)


def write_checkpoint(
    io: CheckpointIO, checkpoint: Mapping[str, Any], beside: Mapping[str, Any], epochs: int, keep_last: bool
) -> None:
    """Write a checkpoint and the file beside it, and read both back; only then drop those before them.

    Parameters
    ----------
    io
        MACE's: where checkpoints go, which was the last one, and whether it is kept.
    checkpoint, beside
        Contents of the two files: tensors, numbers and text.
    epochs, keep_last
        As for MACE's own ``save``.

    Raises
    ------
    CheckpointError
        If one cannot be written; the checkpoint before it is still there.
    """
    path = Path(io.directory) / io._get_checkpoint_filename(epochs, io.swa_start)
    token = secrets.token_hex(8)
    try:
        for target, content in ((side_file(path), beside), (path, checkpoint)):
            with replacing(target) as temporary:
                torch.save({**content, TOKEN: token}, temporary)
                _read(temporary, torch.device("cpu"))
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"the checkpoint {path} cannot be written: {_first_line(error)}; checkpoints of earlier epochs are whole"
        ) from error
    if io.old_path and not io.keep and not keep_last and Path(io.old_path) != path:
        Path(io.old_path).unlink(missing_ok=True)
    io.old_path = str(path)
    for other in Path(io.directory).glob(f"{glob.escape(io.tag)}_epoch-*{SUFFIX}"):
        if not Path(str(other).removesuffix(SUFFIX)).exists():
            other.unlink(missing_ok=True)


def read_checkpoint(path: str | os.PathLike, device: torch.device | None) -> tuple[dict[str, Any], dict | None]:
    """Content of a checkpoint and of the file beside it; None for the latter if the run had no plugins.

    Nothing in the files is executed.

    Raises
    ------
    CheckpointError
        If a file is torn or holds anything but tensors, numbers and text, or the two do not belong together.
    """
    content = _read(path, device)
    if not {"model", "optimizer", "lr_scheduler"} <= set(content):
        raise CheckpointError(f"{path} is no checkpoint of a MACE training run: it lacks model, optimiser or scheduler")
    beside = _read(side_file(path), torch.device("cpu")) if side_file(path).exists() else None
    token = content.pop(TOKEN, None)
    if token != (None if beside is None else beside.pop(TOKEN, None)):
        raise CheckpointError(
            f"{side_file(path)} is missing or belongs to another checkpoint, and without it epochs would be trained "
            f"twice: put the right file there, or remove {path} to go on from an earlier checkpoint"
        )
    return content, beside


def _read(path: str | os.PathLike, device: torch.device | None) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums of what it reads
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f"the checksum of {damaged} is wrong")
        content = torch.load(path, map_location=device, weights_only=True)
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
    except Exception as error:  # damaged bytes raise anything
        raise CheckpointError(
            f"{path} cannot be read: {_first_line(error)}. It is torn or not of a training run: remove this checkpoint "
            "to go on from an earlier one, or train without --restart_latest"
        ) from error
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

    def reading(original: Callable) -> Callable:
        def load(self: Any, path: str, device: Any = None) -> Any:
            info = self._parse_checkpoint_path(path)
            if info is None:
                return original(self, path, device=device)
            log.info("Loading checkpoint: %s", path)
            try:
                # Not to ``device``: an optimiser whose step counters lie on a GPU waits for each of them at every step.
                content, beside = read_checkpoint(path, torch.device("cpu"))
                if beside is not None and adapter.trained is None:
                    adapter.accept_changes(beside.get("settings", {}), adapter.settings)
            except CheckpointError as error:
                exit_with(error)
            self.hint_loaded = path, beside
            return content, info.epochs

        return load

    adapter.patches.method(CheckpointIO, "load", reading)

    def fitting(original: Callable) -> Callable:
        def load_checkpoint(state: Any, checkpoint: Any, strict: bool) -> None:
            lbfgs = getattr(adapter.args, "lbfgs", False) and not isinstance(state.optimizer, LBFGS)
            try:
                have = set(checkpoint["model"])
                missing = sorted({name for name, _ in state.model.named_parameters()} - have)
                unknown = sorted(have - set(state.model.state_dict()))
                if missing or unknown:
                    raise ValueError(f"parameters {(missing + unknown)[:3]} are in only one of them")
                original(state, checkpoint, strict)
            except Exception as error:
                if lbfgs:  # MACE tries with its first optimiser, and then again with this one
                    raise
                exit_with(
                    CheckpointError(
                        f"the checkpoint does not fit the model or optimiser of this run: {_first_line(error)}. Give "
                        "the options of the run that wrote it, or train without --restart_latest"
                    )
                )

        return load_checkpoint

    adapter.patches.method(CheckpointBuilder, "load_checkpoint", fitting)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
