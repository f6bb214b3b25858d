"""Independent items of a study, each with the potential: in this process, or in workers that load it once each."""

from __future__ import annotations

import functools
import hashlib
import pickle
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from ase.calculators.calculator import Calculator

from hint_plugins.errors import InputError
from hint_plugins.potential.potential import Potential
from hint_plugins.runs.devices import sharing_note, worker_device
from hint_plugins.runs.execution import Execution
from hint_plugins.runs.items import file_digest
from hint_plugins.runs.parallel import map_items
from hint_plugins.runs.progress import note


def load_for(model: Any, execution: Execution, *, device: str | None = None, dtype: str | None = None) -> Potential:
    """The potential of a study, in this process.

    Raises
    ------
    InputError
        If workers are asked for and the model is not text: an object cannot be loaded again by a worker.
    PotentialError
        If the model cannot be loaded.
    """
    workers = execution.opener() is not None
    if workers and not isinstance(model, str):
        raise InputError("a model that is an object works in this process only: leave out workers and executor")
    potential = Potential.load(model, device=device, dtype=dtype)
    if workers:
        note(sharing_note(execution.workers, str(potential.device)))
    return potential


#: Identities of the objects that were asked for, as long as they live.
_OBJECTS: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def identity(model: Any) -> str:
    """What tells one model from another in the keys of stored items.

    For text the name and the state of the file behind it (:func:`hint_plugins.runs.items.file_digest`); for a
    :class:`Potential` that of what it was loaded from. Another object is known by its content, and one that cannot be
    pickled is the same only as long as it lives. The content of ASE calculators and networks is looked at once, when
    they are first asked for, so that what they gather in their work does not count; parameters and weights are looked
    at each time.
    """
    if isinstance(model, Potential) and model.origin is not None:
        return identity(model.origin)
    if isinstance(model, str):
        return file_digest(model)
    content = hashlib.sha256(_content(model).encode())
    if isinstance(model, Calculator):
        content.update(repr(sorted(model.parameters.items())).encode())
    for network in _networks(model):
        for name, tensor in network.state_dict().items():
            if isinstance(tensor, torch.Tensor):
                content.update(name.encode())
                content.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()[:16]


def _content(model: Any) -> str:
    """Digest of an object's content, as it was when a calculator or a network was first asked for."""
    if not isinstance(model, (Calculator, torch.nn.Module)):
        return _digest(model, model)
    if (known := _OBJECTS.get(model)) is not None:
        return known
    content: Any = model
    if isinstance(model, Calculator):
        content = type(model), {key: value for key, value in vars(model).items() if key not in ("results", "atoms")}
    return _OBJECTS.setdefault(model, _digest(content, model))


def _digest(content: Any, model: Any) -> str:
    try:
        return hashlib.sha256(pickle.dumps(content)).hexdigest()
    except Exception:  # an object may refuse to be pickled with any error
        return _OBJECTS.setdefault(model, uuid.uuid4().hex)


def _networks(model: Any) -> list[torch.nn.Module]:
    """The network, or those that a calculator holds."""
    if isinstance(model, torch.nn.Module):
        return [model]
    held = [value for item in getattr(model, "__dict__", {}).values() for value in _members(item)]
    return [value for value in held if isinstance(value, torch.nn.Module)]


def _members(item: Any) -> list[Any]:
    return list(item) if isinstance(item, (list, tuple)) else [item]


def map_with_potential(
    function: Callable[[Any, Potential], Any],
    items: Sequence[Any],
    model: Any,
    potential: Potential,
    execution: Execution,
    *,
    device: str | None = None,
    dtype: str | None = None,
) -> Iterator[tuple[int, Any]]:
    """Apply ``function(item, potential)`` to every item.

    Parameters
    ----------
    function
        Of one item and the potential; picklable where there are workers.
    items
        Picklable where there are workers.
    model, potential
        What :func:`load_for` was given, and what it gave. Workers load ``model`` themselves.
    execution
        Where the items run.
    device, dtype
        Of the workers' potentials.

    Yields
    ------
    int, object
        Index of an item and its result, in the order in which they end; with workers the second may be an exception,
        which is :class:`~hint_plugins.runs.parallel.WorkerDied` after a crash.

    Raises
    ------
    ExecutorError
        If the executor cannot be opened, or its scheduler is gone.
    """
    open_executor = execution.opener()
    if open_executor is None:
        yield from ((index, function(item, potential)) for index, item in enumerate(items))
        return
    work = functools.partial(_work, function=function, model=model, device=device, dtype=dtype)
    yield from map_items(work, items, open_executor, execution.workers)


@functools.lru_cache(maxsize=1)
def _loaded(model: str, device: str | None, dtype: str | None) -> Potential:
    return Potential.load(model, device=device, dtype=dtype)


def _work(
    item: Any, *, function: Callable[[Any, Potential], Any], model: str, device: str | None, dtype: str | None
) -> Any:
    return function(item, _loaded(model, worker_device(device), dtype))
