"""Which device trainings and worker processes use."""

from __future__ import annotations

import contextlib
import functools
import getpass
import itertools
import tempfile
from pathlib import Path

from hint_plugins.errors import InputError
from hint_plugins.runs.locks import InUse, hold

#: What MACE's trainer knows by ``--device``.
TRAINER = ("cpu", "cuda", "mps", "xpu")


def training_device(device: str | None) -> str:
    """``--device`` of MACE's trainer: the GPU when there is one and ``device`` is None.

    Raises
    ------
    InputError
        If the trainer has no such device, or torch sees no GPU.
    """
    import torch

    from hint_plugins.potential.backends.loading import default_device

    if device is None:
        return default_device().type
    if device not in TRAINER:
        raise InputError(
            f"--device {device}: the trainer knows {', '.join(TRAINER)}; choose one of several GPUs with the "
            "environment variable CUDA_VISIBLE_DEVICES"
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device cuda: torch {torch.__version__} sees no GPU; use cpu")
    return device


def worker_device(device: str | None) -> str | None:
    """Device of this process, one of several workers: they take the GPUs of the machine in turn.

    Only where ``device`` leaves it open (None or ``cuda``) and the machine has several GPUs; else it is ``device``.
    """
    import torch

    several = device in (None, "cuda") and torch.cuda.is_available() and torch.cuda.device_count() > 1
    return f"cuda:{_own_gpu(torch.cuda.device_count())}" if several else device


@functools.lru_cache(maxsize=1)
def _own_gpu(count: int) -> int:
    """Number of a GPU that no more processes have taken than any other; it is this one's until it ends."""
    for turn in itertools.count():
        for gpu in range(count):
            with contextlib.suppress(InUse):
                hold(Path(tempfile.gettempdir()) / f"hint-{getpass.getuser()}-gpu{gpu}-{turn}")
                return gpu
    raise AssertionError


def sharing_note(workers: int, device: str) -> str | None:
    """A sentence where more worker processes than GPUs run on them; None where each has its own, or the CPU.

    Parameters
    ----------
    workers
        How many processes.
    device
        Of the potential, as torch writes it: ``cpu``, ``cuda``, ``cuda:1``.
    """
    import torch

    if not device.startswith("cuda"):
        return None
    gpus = 1 if ":" in device else torch.cuda.device_count()
    if workers <= gpus:
        return None
    return (
        f"{workers} worker processes share {gpus} GPU{'s' if gpus > 1 else ''}, each with its own copy of the model: "
        "they are faster only as far as one of them leaves the GPU idle; --device cpu uses the cores instead"
    )
