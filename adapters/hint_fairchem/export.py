"""A checkpoint of a HINT run as one that plain fairchem reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fairchem.core.units.mlip_unit.api.inference import MLIPInferenceCheckpoint
from omegaconf import DictConfig, ListConfig, OmegaConf

from hint_fairchem.dataset import TARGET
from hint_fairchem.host import WEIGHTS
from hint_fairchem.references import with_numbers
from hint_plugins.errors import InputError
from hint_plugins.runs.files import replacing


@dataclass
class Exported:
    """What :func:`export_checkpoint` did.

    Attributes
    ----------
    source, target
        Files.
    removed
        Tasks that were taken out.
    remaining
        Classes of this package that the model itself is made of: plain fairchem needs the package for them.
    """

    source: Path
    target: Path
    removed: list[str]
    remaining: list[str]


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


def weights_file(path: Path | str) -> Path:
    """The file itself, or the weights in a checkpoint folder.

    Raises
    ------
    InputError
        If there is no such file.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / WEIGHTS).is_file():
            raise InputError(f"{path} holds no {WEIGHTS}: give a folder like runs/<time stamp>/checkpoints/final")
        return path / WEIGHTS
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return path


def without_hint(checkpoint: MLIPInferenceCheckpoint) -> list[str]:
    """Take the Hessian task out of a checkpoint, in place; give the names of the tasks removed.

    Element references that are still to be fitted are fitted. Everything else is the host's already: the model's
    class and heads never change, and the exact LayerNorm has the parameters of torch's.
    """
    tasks = _plain(checkpoint.tasks_config)
    kept = with_numbers([task for task in tasks if not _is_ours(task)])
    checkpoint.tasks_config = OmegaConf.create(kept)
    return [str(task.get("name", TARGET)) for task in tasks if _is_ours(task)]


def export_checkpoint(source: Path | str, target: Path | str, overwrite: bool = False) -> Exported:
    """Write ``source`` as a stock checkpoint.

    Parameters
    ----------
    source
        ``inference_ckpt.pt`` of a HINT run, or its folder.
    target
        New file.
    overwrite
        Replace an existing file.

    Raises
    ------
    InputError
        If the source is no checkpoint, or the target exists.
    """
    source, target = weights_file(source), Path(target)
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists: choose another name, or add --overwrite")
    checkpoint = read_checkpoint(source)
    removed = without_hint(checkpoint)
    with replacing(target) as temporary:
        torch.save(checkpoint, temporary)
    names = set(_strings(_plain(checkpoint.model_config)))
    ours = {name for name in names if name.startswith(("hint_fairchem.", "hint_plugins."))}
    return Exported(source, target, removed, sorted(ours))


def _is_ours(task: dict) -> bool:
    return str(task.get("_target_", "")).startswith("hint_fairchem.") or task.get("name") == TARGET


def _plain(config: Any) -> Any:
    if isinstance(config, (DictConfig, ListConfig)):
        return OmegaConf.to_container(config, resolve=True)
    return config


def _strings(config: Any) -> Iterator[str]:
    if isinstance(config, str):
        yield config
    elif isinstance(config, dict):
        for value in config.values():
            yield from _strings(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from _strings(value)
