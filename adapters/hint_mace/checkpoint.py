"""What a restarted run needs beyond MACE's checkpoint.

MACE stores the averaged weights when it keeps an exponential moving average, forgets the average itself, and starts
again with the epoch that the checkpoint had finished. A small file beside each checkpoint holds the rest, so that
``--restart_latest`` continues as if the run had never stopped.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from mace.tools import CheckpointHandler

SUFFIX = ".hint"


def side_file(checkpoint: str | os.PathLike) -> Path:
    """Path of the file beside ``checkpoint``."""
    return Path(str(checkpoint) + SUFFIX)


def save_side_file(handler: CheckpointHandler, content: dict[str, Any]) -> None:
    """Write ``content`` beside the newest checkpoint, and drop files whose checkpoint is gone."""
    if handler.io.old_path is None:
        return
    path = side_file(handler.io.old_path)
    temporary = path.with_name(path.name + ".tmp")
    torch.save(content, temporary)
    os.replace(temporary, path)
    for other in Path(handler.io.directory).glob(f"{handler.io.tag}_epoch-*{SUFFIX}"):
        if not Path(str(other).removesuffix(SUFFIX)).exists():
            other.unlink(missing_ok=True)


def load_side_file(handler: CheckpointHandler) -> dict[str, Any] | None:
    """Content beside the checkpoint that ``handler`` has loaded; None after a fresh start."""
    loaded = getattr(handler.io, "hint_loaded", None)
    if loaded is None or not side_file(loaded).exists():
        return None
    return torch.load(side_file(loaded), map_location="cpu", weights_only=False)
