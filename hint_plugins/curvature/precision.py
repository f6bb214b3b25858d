"""Full single precision where finite differences need it.

The difference of two forces over a step of 1e-3 A keeps four digits of single precision. TF32 (three digits in the
factors of a matrix product, on GPUs) and bfloat16 (on some CPUs) leave it one digit or none. torch's switches for them
are global, so they also hold for backward passes in other threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

#: Formats that are coarser than single precision, as torch's settings name them.
COARSE = ("tf32", "bf16")


def _parts() -> dict[str, Any]:
    """What computes in single precision, by device and operation; empty before torch 2.9."""
    backends = torch.backends
    parts = {
        "cuda matmul": backends.cuda.matmul,
        "cuda conv": getattr(backends.cudnn, "conv", None),
        "cuda rnn": getattr(backends.cudnn, "rnn", None),
        "cpu matmul": getattr(backends.mkldnn, "matmul", None),
        "cpu conv": getattr(backends.mkldnn, "conv", None),
        "cpu rnn": getattr(backends.mkldnn, "rnn", None),
    }
    return {name: part for name, part in parts.items() if hasattr(part, "fp32_precision")}


def _older(name: str) -> Any:
    """A setting of torch before 2.9; None where it contradicts the newer ones, which torch refuses to judge."""
    try:
        return torch.get_float32_matmul_precision() if name == "matmul" else torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return None


@dataclass
class Precision:
    """torch's settings for operations in single precision, as they are when this is made.

    Attributes
    ----------
    matmul, cudnn
        ``torch.get_float32_matmul_precision`` and ``torch.backends.cudnn.allow_tf32``; None if torch cannot tell.
    parts
        ``fp32_precision`` of each operation.
    """

    matmul: str | None = field(default_factory=lambda: _older("matmul"))
    cudnn: bool | None = field(default_factory=lambda: _older("cudnn"))
    parts: dict[str, str] = field(
        default_factory=lambda: {name: part.fp32_precision for name, part in _parts().items()}
    )

    def restore(self) -> None:
        """Set what was set."""
        if self.matmul is not None:
            torch.set_float32_matmul_precision(self.matmul)
        if self.cudnn is not None:
            torch.backends.cudnn.allow_tf32 = self.cudnn
        for name, part in _parts().items():
            if part.fp32_precision != self.parts[name]:
                part.fp32_precision = self.parts[name]


def coarse_products(tensor: Tensor) -> str:
    """The format in which torch may compute matrix products of tensors like this one, if coarser than their own.

    Returns
    -------
    str
        ``TF32`` or ``BF16``; "" for full precision.
    """
    if tensor.dtype != torch.float32:
        return ""
    part = _parts().get(f"{tensor.device.type} matmul")
    if part is not None:
        return part.fp32_precision.upper() if part.fp32_precision in COARSE else ""
    return "" if _older("matmul") == "highest" else "TF32"


def use_full_precision() -> None:
    """Compute matrix products, convolutions and recurrent layers of single precision in single precision."""
    torch.set_float32_matmul_precision("highest")  # the older settings first: torch keeps the newer ones equal to them
    torch.backends.cudnn.allow_tf32 = False
    for part in _parts().values():
        if part.fp32_precision in COARSE:
            part.fp32_precision = "ieee"


@contextlib.contextmanager
def full_precision(tensor: Tensor) -> Iterator[None]:
    """Within, what is computed from float32 tensors like this one is in full precision; forward passes only.

    A backward pass that comes later, as in training, needs :func:`use_full_precision` until then.
    """
    if tensor.dtype != torch.float32:
        yield
        return
    before = Precision()
    use_full_precision()
    try:
        yield
    finally:
        before.restore()
