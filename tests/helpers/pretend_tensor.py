"""Tensors that say they are on ``cuda:0`` while their numbers are on the CPU, and CUDA's rules about them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar

import torch
from torch import Tensor

from helpers.pretend_counts import Counts, Operator, operator

CUDA = torch.device("cuda:0")
#: Name under which torch's C++ code knows the device; torch cannot be told that there is CUDA.
BACKEND = "pretend"


class PretendTensor(Tensor):
    """A tensor on the pretend GPU.

    In C++ it lives on torch's backend for devices written in Python, so that autograd (with a thread for the device),
    TorchScript and vmap work as they do with CUDA.
    """

    #: Where everything is counted; None outside of a pretend GPU.
    counts: ClassVar[Counts | None] = None
    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor, requires_grad: bool = False) -> PretendTensor:
        self = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(BACKEND, 0),
            requires_grad=requires_grad,
        )
        self.inner = inner
        return self

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})

    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]

    def get_device(self) -> int:
        return 0

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first"
        )

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def pin_memory(self, *args: Any) -> Tensor:
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.dim() == 0 else object.__format__(self, spec)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"{self.inner!r} on cuda:0"

    def __deepcopy__(self, memo: dict[int, Any]) -> PretendTensor:
        if id(self) not in memo:
            if not self.is_leaf:
                raise RuntimeError("Only Tensors created explicitly by the user support the deepcopy protocol")
            memo[id(self)] = self._like(PretendTensor(self.inner.detach().clone(), self.requires_grad))
        return memo[id(self)]

    def _like(self, other: PretendTensor) -> PretendTensor:
        if getattr(self, "_is_param", False):
            other._is_param = True
        return other

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As CUDA's tensors are pickled: what torch.save writes is what a machine with a GPU would write."""
        if getattr(self, "_is_param", False):
            data = PretendTensor(self.inner.detach())
            return torch._utils._rebuild_parameter, (data, self.requires_grad, OrderedDict())
        inner = self.inner.detach()
        storage = torch.storage.TypedStorage(wrap_storage=inner.untyped_storage(), dtype=inner.dtype, _internal=True)
        storage._fake_device = CUDA
        shape = inner.storage_offset(), tuple(inner.size()), inner.stride()
        return torch._utils._rebuild_tensor_v2, (storage, *shape, self.requires_grad, OrderedDict())


def on_gpu(device: Any) -> bool:
    """Whether ``device`` names the pretend GPU."""
    return device is not None and torch.device(device).type in ("cuda", BACKEND)


def is_pinned(tensor: Tensor) -> bool:
    """Whether ``pin_memory`` made the tensor."""
    return bool(getattr(tensor, "pretend_pinned", False))


def dispatch(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Run one operator by the rules of CUDA, and count it.

    Raises
    ------
    RuntimeError
        If tensors of both devices meet, or a generator of random numbers belongs to the other device.
    """
    tensors: list[Tensor] = []
    _collect(args, tensors)
    _collect(list(kwargs.values()), tensors)
    ours = [t for t in tensors if type(t) is PretendTensor]
    asked = kwargs.get("device")
    to_gpu = on_gpu(asked)
    if not ours and not to_gpu:
        return func(*args, **kwargs)
    op, counts = operator(func), PretendTensor.counts or Counts()
    generator = kwargs.get("generator")
    if generator is not None and generator.device.type == "cpu":
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
    if op.reshapes:
        raise NotImplementedError(f"{func} changes the shape of a wrapper in place")
    plain = [_unwrap(value) for value in args]
    named = {name: _unwrap(value) for name, value in kwargs.items()}
    if asked is not None:
        named["device"] = torch.device("cpu")
    if op.name == "aten._to_copy":
        return _to_copy(func, plain, named, tensors[0], to_gpu or (asked is None and bool(ours)), counts)
    if op.name == "aten.copy_":
        return _copy(func, args, plain, named, counts)
    if len(ours) < len(tensors):
        _check_devices(op, args, kwargs, tensors, counts)
    _count(op, args, kwargs, counts)
    out = func(*plain, **named)
    if op.returns_written:
        written = [args[k] if k < len(args) else kwargs.get(name) for k, name in op.written]
        return written[0] if len(written) == 1 else tuple(written)
    return _wrap(out)


def _to_copy(func: Any, args: list, kwargs: dict, source: Tensor, to_gpu: bool, counts: Counts) -> Tensor:
    from_gpu = type(source) is PretendTensor
    non_blocking = bool(kwargs.pop("non_blocking", False))
    if from_gpu != to_gpu:
        counts.copy("to the host" if from_gpu else "to the GPU", is_pinned(source), non_blocking)
    else:
        counts.launches["aten._to_copy"] += 1
    out = func(*args, **kwargs)
    if out is args[0]:
        out = out.clone()
    return PretendTensor(out) if to_gpu else out


def _copy(func: Any, args: tuple, plain: list, kwargs: dict, counts: Counts) -> Tensor:
    target, source = args[0], args[1]
    from_gpu = type(source) is PretendTensor
    if from_gpu != (type(target) is PretendTensor):
        non_blocking = bool(kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
        counts.copy("to the host" if from_gpu else "to the GPU", is_pinned(source), non_blocking)
    else:
        counts.launches["aten.copy_"] += 1
    func(*plain, **kwargs)
    return target


def _check_devices(op: Operator, args: tuple, kwargs: dict, tensors: list[Tensor], counts: Counts) -> None:
    """Host and device in one operator: numbers may be on the host, and so may indices, which are then copied."""
    if op.indexing:
        others = [args[0], *([args[2]] if op.name != "aten.index" and args[2].dim() > 0 else [])]
        wrong = [t for t in others if type(t) is not PretendTensor]
        if not wrong and any(t is not None and type(t) is not PretendTensor for t in args[1]):
            counts.copy("to the GPU", pinned=False, non_blocking=False)
    else:
        numbers = op.elementwise
        wrong = [t for t in tensors if type(t) is not PretendTensor and (t.dim() > 0 or not numbers)]
        written = [args[k] if k < len(args) else kwargs.get(name) for k, name in op.written]
        wrong += [t for t in written if isinstance(t, Tensor) and type(t) is not PretendTensor]
    if wrong:
        shapes = ", ".join(str(tuple(t.shape)) for t in wrong)
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
            f"({op.name}: on the CPU are tensors of shape {shapes})"
        )


def _count(op: Operator, args: tuple, kwargs: dict, counts: Counts) -> None:
    if op.waits:
        counts.wait(op.name.removeprefix("aten."))
    elif op.indexing and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
        counts.wait("boolean mask")
        counts.launches["aten.nonzero"] += 4
    elif op.name == "aten.repeat_interleave" and kwargs.get("output_size") is None:
        counts.wait("repeat_interleave without output_size")
    if op.kernels:
        counts.launches[op.name] += op.kernels


def _collect(values: Any, out: list[Tensor]) -> None:
    for value in values:
        if isinstance(value, Tensor):
            out.append(value)
        elif type(value) in (list, tuple):
            _collect(value, out)


def _unwrap(value: Any) -> Any:
    kind = type(value)
    if kind is PretendTensor:
        return value.inner
    return kind(_unwrap(v) for v in value) if kind in (list, tuple) else value


def _wrap(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value if type(value) is PretendTensor else PretendTensor(value)
    return type(value)(_wrap(v) for v in value) if type(value) in (list, tuple) else value
