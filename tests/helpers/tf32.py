"""TF32 on a CPU: the factors of matrix products are rounded to ten bits while torch's setting for CPUs allows it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


def rounded(values: Tensor) -> Tensor:
    """Single precision with ten bits after the first one."""
    if values.dtype != torch.float32:
        return values
    bits = values.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


class EmulatedTF32(TorchDispatchMode):
    """Within, matrix products on the CPU obey ``torch.backends.mkldnn.matmul``, as on CPUs that have such a format.

    Products on a GPU are left alone. ``products`` counts those on the CPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.products = {"coarse": 0, "full": 0}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        if packet in (aten.mm, aten.bmm, aten.addmm) and args[0].device.type == "cpu":
            coarse = torch.backends.mkldnn.matmul.fp32_precision == "tf32"
            self.products["coarse" if coarse else "full"] += 1
            if coarse:
                first = 1 if packet is aten.addmm else 0
                args = (*args[:first], *(rounded(a) for a in args[first:]))
        return func(*args, **(kwargs or {}))
