"""fairchem's inference checkpoints: read, and without the Hessian task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from fairchem.core.units.mlip_unit.api.inference import MLIPInferenceCheckpoint
from omegaconf import DictConfig, ListConfig, OmegaConf

from hint_fairchem.dataset import TARGET
from hint_fairchem.files import WEIGHTS, weights_file
from hint_fairchem.references import with_numbers
from hint_plugins.errors import InputError


def read_checkpoint(path: Path | str) -> MLIPInferenceCheckpoint:
    """Read a checkpoint file, or the one in a checkpoint folder.

    Raises
    ------
    InputError
        If there is none, or it is of another kind.
    """
    path = weights_file(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise InputError(f"{path} is no checkpoint that torch can read: {error}") from error
    if not isinstance(content, MLIPInferenceCheckpoint):
        raise InputError(
            f"{path} holds a {type(content).__name__}, not a fairchem inference checkpoint: give the {WEIGHTS} of a "
            "checkpoint folder (runs/<time stamp>/checkpoints/final)"
        )
    return content


def without_hint(checkpoint: MLIPInferenceCheckpoint) -> list[str]:
    """Take the Hessian task out of a checkpoint, in place; give the names of the tasks removed.

    Element references that are still to be fitted are fitted. Everything else is the host's already: the model's
    class and heads never change, and the exact LayerNorm has the parameters of torch's.
    """
    tasks = plain(checkpoint.tasks_config)
    kept = with_numbers([task for task in tasks if not _is_ours(task)])
    checkpoint.tasks_config = OmegaConf.create(kept)
    return [str(task.get("name", TARGET)) for task in tasks if _is_ours(task)]


def _is_ours(task: dict) -> bool:
    return str(task.get("_target_", "")).startswith("hint_fairchem.") or task.get("name") == TARGET


def plain(config: Any) -> Any:
    """A config of OmegaConf as dictionaries and lists; anything else as it is."""
    if isinstance(config, (DictConfig, ListConfig)):
        return OmegaConf.to_container(config, resolve=True)
    return config
