"""A pretend GPU for machines without one: real numbers, CUDA's rules about devices, and a count of what costs time.

    with pretend_gpu() as counts:
        model.to("cuda")
        ...
    counts.waits, counts.copies, counts.launches

Within, ``torch.cuda.is_available()`` is true, and tensors "on cuda:0" are wrappers around CPU tensors. What mixes the
devices, asks a device tensor for its numpy array, or draws device numbers with a host generator raises as on CUDA; and
``torch.save`` writes files as a machine with a GPU writes them. What it does not have: kernels of its own (speed, order
of sums, single precision in tensor cores), memory that runs out, streams, and collective operations between GPUs.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch.optim import optimizer
from torch.overrides import TorchFunctionMode
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.pretend_counts import Counts
from helpers.pretend_tensor import BACKEND, PretendTensor, dispatch, is_pinned, on_gpu

_PROPERTIES = SimpleNamespace(name="pretend GPU", total_memory=80 << 30, major=9, minor=0, multi_processor_count=132)
#: What ``torch.cuda`` answers.
CUDA_MODULE: dict[str, Callable] = {
    "_lazy_init": lambda: None,
    "init": lambda: None,
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "set_device": lambda device: None,
    "synchronize": lambda device=None: None,
    "empty_cache": lambda: None,
    "mem_get_info": lambda device=None: (70 << 30, 80 << 30),
    "memory_allocated": lambda device=None: 0,
    "max_memory_allocated": lambda device=None: 100 << 20,
    "memory_reserved": lambda device=None: 0,
    "reset_peak_memory_stats": lambda device=None: None,
    "get_device_properties": lambda device=None: _PROPERTIES,
    "get_device_name": lambda device=None: _PROPERTIES.name,
    "get_device_capability": lambda device=None: (9, 0),
    "is_current_stream_capturing": lambda: False,
    "manual_seed": lambda seed: None,
    "manual_seed_all": lambda seed: None,
}


@contextlib.contextmanager
def pretend_gpu() -> Iterator[Counts]:
    """Within, there is a GPU ``cuda:0``; gives what is counted on it."""
    register()
    counts = Counts()
    with contextlib.ExitStack() as stack:
        for name, value in CUDA_MODULE.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        stack.enter_context(mock.patch.object(PretendTensor, "counts", counts))
        stack.enter_context(_flag(torch._C._only_lift_cpu_tensors, torch._C._set_only_lift_cpu_tensors))
        future, flag = torch.__future__, "overwrite_module_params_on_conversion"
        stack.enter_context(_flag(getattr(future, f"get_{flag}"), getattr(future, f"set_{flag}")))
        for types in (optimizer._foreach_supported_types, _foreach_utils._foreach_supported_types):
            stack.enter_context(_member(types, PretendTensor))
        stack.enter_context(_files())
        stack.enter_context(_Operators())
        stack.enter_context(_Names())
        yield counts


@cache
def register() -> None:
    """Tell torch of the device: before the first backward pass of the process, which makes a thread for every device.

    From then on forked processes cannot run backward passes, as on a machine with a GPU.
    """
    from torch.utils import backend_registration as torch_side

    class Module(torch_side._DummyBackendModule):
        def is_available(self) -> bool:
            return PretendTensor.counts is not None

        def device_count(self) -> int:
            return int(self.is_available())

    torch_side._setup_privateuseone_for_python_backend(BACKEND, backend_module=Module())
    # The thread of the device ends its work in Python; a process that ends meanwhile aborts.
    atexit.register(time.sleep, 0.3)


@contextlib.contextmanager
def _flag(get: Callable[[], bool], put: Callable[[bool], None]) -> Iterator[None]:
    before = get()
    put(True)
    try:
        yield
    finally:
        put(before)


@contextlib.contextmanager
def _member(members: list, member: Any) -> Iterator[None]:
    members.append(member)
    try:
        yield
    finally:
        members.remove(member)


class _Operators(TorchDispatchMode):
    """Operators that have no device tensor among their arguments, but make one."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the guard costs time

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})


class _Names(TorchFunctionMode):
    """Calls that name the device ``cuda``, which torch's C++ code knows under another name."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if "device" in kwargs:
            kwargs = {**kwargs, "device": _translated(kwargs["device"])}
        if func is torch.Tensor.pin_memory and type(args[0]) is not PretendTensor:
            pinned = args[0].clone()
            pinned.pretend_pinned = True
            return pinned
        if func is torch.Tensor.is_pinned:
            return is_pinned(args[0])
        if func is torch.Tensor.cuda:
            return args[0].to(torch.device(BACKEND, 0))
        if func is torch.Tensor.to or func is torch.set_default_device:
            args = tuple(_translated(a) for a in args)
        return func(*args, **kwargs)


def _translated(value: Any) -> Any:
    if isinstance(value, torch.device | str) and str(value).split(":")[0] == "cuda":
        return torch.device(BACKEND, 0)
    return value


@contextlib.contextmanager
def _files() -> Iterator[None]:
    """What is read from a file goes where the file or ``map_location`` says."""
    rebuild, save, load = torch._utils._rebuild_tensor, torch.jit.save, torch.jit.load

    def marked(storage: Any, location: str) -> Any:
        if not location.startswith("cuda"):
            return None
        storage.on_pretend_gpu = True
        return storage

    def rebuilt(storage: Any, *shape: Any) -> torch.Tensor:
        tensor = rebuild(storage, *shape)
        return PretendTensor(tensor) if getattr(storage._untyped_storage, "on_pretend_gpu", False) else tensor

    def script_saved(module: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        tensors = [*module.parameters(), *module.buffers()]
        if not any(type(t) is PretendTensor for t in tensors):
            save(module, file, *args, **kwargs)
            return
        buffer = io.BytesIO()
        module.to("cpu")  # TorchScript reads the numbers in C++
        save(module, buffer, *args, **kwargs)
        module.to("cuda")
        content = _relabelled(buffer.getvalue(), "cpu", "cuda:0")
        file.write(content) if hasattr(file, "write") else Path(file).write_bytes(content)

    def script_loaded(file: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
        content = file.read() if hasattr(file, "read") else Path(file).read_bytes()
        there = _relabelled(content, "cuda:0", "cpu")
        to_gpu = on_gpu(map_location) or (map_location is None and there != content)
        module = load(io.BytesIO(there), "cpu", *args, **kwargs)
        return module.to("cuda") if to_gpu else module

    entry = (-1, lambda storage: None, marked)
    registry = torch.serialization._package_registry
    registry.insert(0, entry)
    try:
        with (
            mock.patch.object(torch._utils, "_rebuild_tensor", rebuilt),
            mock.patch.object(torch.jit, "save", script_saved),
            mock.patch.object(torch.jit, "load", script_loaded),
        ):
            yield
    finally:
        registry.remove(entry)


def _relabelled(archive: bytes, old: str, new: str) -> bytes:
    """A TorchScript archive whose tensors are said to be on another device; the same bytes where there are none."""

    def word(text: str) -> bytes:
        return b"X" + len(text).to_bytes(4, "little") + text.encode()

    out = io.BytesIO()
    changed = False
    with zipfile.ZipFile(io.BytesIO(archive)) as before, zipfile.ZipFile(out, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            if name.endswith(".pkl"):
                changed |= word(old) in content
                content = content.replace(word(old), word(new))
            after.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue() if changed else archive
