"""A checkpoint of a HINT run as one that plain fairchem reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hint_fairchem.checkpoints import plain, read_checkpoint, without_hint
from hint_fairchem.files import weights_file
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
    names = set(_strings(plain(checkpoint.model_config)))
    ours = {name for name in names if name.startswith(("hint_fairchem.", "hint_plugins."))}
    return Exported(source, target, removed, sorted(ours))


def _strings(config: Any) -> Iterator[str]:
    if isinstance(config, str):
        yield config
    elif isinstance(config, dict):
        for value in config.values():
            yield from _strings(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from _strings(value)
