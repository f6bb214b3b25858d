"""The folder of a fairchem checkpoint, and the weights in it; needs no fairchem."""

from __future__ import annotations

from pathlib import Path

from hint_plugins.errors import InputError

#: File with the weights in a checkpoint folder of the host.
WEIGHTS = "inference_ckpt.pt"


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
