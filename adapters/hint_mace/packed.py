"""The batch that travels from the loader to the device, with the labels drawn for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from mace.tools.torch_geometric.batch import Batch
from torch import Tensor

#: Attribute of a batch that MACE's own functions skip, since it begins and ends with two underscores.
DRAWN = "__hint_drawn__"
#: Entry of the dictionary that the model reads, under which the batch itself is found.
WHOLE = "__hint_batch__"


@dataclass
class Drawn:
    """Labels drawn for the labelled structures of a batch; all tensors of a dtype lie in one buffer.

    Attributes
    ----------
    structures
        Which structures of the batch are labelled, ascending.
    sizes
        Atoms of each.
    buffers
        One flat tensor for each dtype.
    layout
        Dtype and shape of every tensor, in the order of the buffers.
    stored
        What each structure's labels hold, where validation needs it; else empty.
    """

    structures: list[int]
    sizes: list[int]
    buffers: dict[torch.dtype, Tensor]
    layout: dict[tuple[str, str], tuple[torch.dtype, tuple[int, ...]]]
    stored: Sequence[dict[str, np.ndarray]] = ()

    @classmethod
    def pack(
        cls,
        structures: list[int],
        sizes: list[int],
        labels: Mapping[str, np.ndarray],
        index: Mapping[str, np.ndarray],
        dtype: torch.dtype,
        stored: Sequence[dict[str, np.ndarray]] = (),
    ) -> Drawn:
        """Lay ``labels`` and ``index`` arrays one after the other; floating-point ones become ``dtype``."""
        parts: dict[torch.dtype, list[Tensor]] = {}
        layout = {}
        for kind, arrays in (("index", index), ("labels", labels)):
            for name, values in arrays.items():
                tensor = torch.as_tensor(np.ascontiguousarray(values))
                tensor = tensor.to(dtype) if tensor.is_floating_point() else tensor
                parts.setdefault(tensor.dtype, []).append(tensor.reshape(-1))
                layout[kind, name] = (tensor.dtype, tuple(tensor.shape))
        return cls(structures, sizes, {kind: torch.cat(flat) for kind, flat in parts.items()}, layout, stored)

    def apply(self, function: Callable[[Tensor], Tensor]) -> Drawn:
        """The same with ``function`` applied to every buffer."""
        return replace(self, buffers={dtype: function(buffer) for dtype, buffer in self.buffers.items()})

    def tensors(self, kind: str) -> dict[str, Tensor]:
        """The drawn ``labels`` by name, or the ``index``: ``batch``, ``ptr``, ``atoms``, ``structures``, ``elements``.

        They are views of the buffers.
        """
        starts = dict.fromkeys(self.buffers, 0)
        out = {}
        for (of, name), (dtype, shape) in self.layout.items():
            size = int(np.prod(shape))
            if of == kind:
                out[name] = self.buffers[dtype].narrow(0, starts[dtype], size).view(shape)
            starts[dtype] += size
        return out


class LabelledBatch(Batch):
    """MACE's batch; the labels drawn for it go with it to pinned memory and to the device."""

    positions: Tensor
    weight: Tensor
    batch: Tensor

    @property
    def drawn(self) -> Drawn | None:
        """The drawn labels; None where no structure is labelled."""
        drawn: Drawn | None = self.__dict__.get(DRAWN)
        return drawn

    def _each(self, function: Callable[[Tensor], Tensor]) -> None:
        if self.drawn is not None:
            self.__dict__[DRAWN] = self.drawn.apply(function)

    def to(self, device: torch.device | str, *keys: str, **kwargs: Any) -> LabelledBatch:
        """Move to ``device``; copies from pinned memory do not keep the host waiting."""
        kwargs.setdefault("non_blocking", torch.device(device).type != "cpu")
        super().to(device, *keys, **kwargs)
        self._each(lambda buffer: buffer.to(device, **kwargs))
        return self

    def pin_memory(self, *keys: str) -> LabelledBatch:
        """Move to pinned memory; the loader calls this where MACE asks for it."""
        super().pin_memory(*keys)
        self._each(lambda buffer: buffer.pin_memory())
        return self

    def to_dict(self) -> dict[str, Any]:
        """What MACE's models read, and the batch itself for :class:`hint_mace.joint.JointForward`."""
        return {**super().to_dict(), WHOLE: self}

    def inputs(self, leave_out: frozenset[str]) -> dict[str, Tensor]:
        """The model's inputs for the labelled structures alone, those that are named left out.

        They are cut from the whole batch on its device.
        """
        drawn = self.drawn
        assert drawn is not None
        whole = {name: value for name, value in super().to_dict().items() if name not in leave_out}
        if len(drawn.structures) == self.num_graphs:
            return whole
        index = drawn.tensors("index")
        own = {"batch": index["batch"], "ptr": index["ptr"]}
        slices, starts = self.__dict__["__slices__"], self.__dict__["__cumsum__"]
        for name in whole.keys() - own.keys():
            dim = self.__dict__["__cat_dims__"][name] or 0
            parts, before = [], 0
            for structure, size in zip(drawn.structures, drawn.sizes, strict=True):
                first, end = slices[name][structure : structure + 2]
                part = whole[name].narrow(dim, first, end - first)
                shift = starts[name][structure]  # the atoms before this structure, where a field counts atoms
                parts.append(part + (before - shift) if shift else part)
                before += size
            own[name] = torch.cat(parts, dim)
        return own
