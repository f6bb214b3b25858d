"""What a pretend GPU counts: operators, copies between the devices, and moments at which the host waits."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch

#: Operators that make the host wait until the device has done everything so far (index operators: with masks only).
WAITS = frozenset(
    f"aten.{name}"
    for name in (
        *("_local_scalar_dense", "nonzero", "nonzero_numpy", "masked_select", "unique_dim", "_unique", "_unique2"),
        *("unique_consecutive", "bincount", "histc", "equal", "is_nonzero", "_linalg_check_errors"),
        *("_linalg_eigh", "linalg_eig", "_linalg_svd"),
    )
)
#: Operators that launch nothing, besides those that only make a view.
FREE = frozenset(
    f"aten.{name}"
    for name in (
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "alias", "lift_fresh"),
        *("_unsafe_view", "is_same_size", "is_pinned", "_has_same_storage_numel", "_local_scalar_dense", "set_"),
        *("record_stream", "_backward", "size", "stride", "sym_size", "sym_stride", "sym_numel"),
    )
)
#: About how many kernels an operator launches where it is not one.
KERNELS = {
    "aten.index_put_": 2,
    "aten.index_put": 3,
    "aten.nonzero": 4,
    "aten.embedding_dense_backward": 5,
    "aten.bincount": 4,
    "aten.cumsum": 2,
    "aten._linalg_det": 5,
    "aten.sort": 4,
}
INDEXING = frozenset(f"aten.{name}" for name in ("index", "index_put", "index_put_", "_index_put_impl_"))
#: Folders of this project, in file names.
OURS = ("/hint_plugins/", "/hint_mace/", "/hint_fairchem/", "/hint_recipes/")


class Totals(NamedTuple):
    """Kernels launched, waits of the host, copies between host and device."""

    launches: int
    waits: int
    copies: int

    def since(self, earlier: Totals) -> Totals:
        """What was added since ``earlier``."""
        return Totals(*(now - before for now, before in zip(self, earlier, strict=True)))


class Counts:
    """What has happened on a pretend GPU.

    Attributes
    ----------
    waits, copies
        How often, by place: ``file:line``, and ``file:line <- file:line`` where a line of this project (the second)
        called another library.
    launches
        How many kernels, by operator.
    """

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()
        self.launches: Counter[str] = Counter()

    @property
    def totals(self) -> Totals:
        """Sums over all places and operators."""
        return Totals(self.launches.total(), self.waits.total(), self.copies.total())

    def cost(self, call: Callable[[], Any]) -> Totals:
        """What ``call()`` costs."""
        before = self.totals
        call()
        return self.totals.since(before)

    def wait(self, what: str) -> None:
        """Count a wait of the host, here."""
        self.waits[f"{what}: {place()}"] += 1

    def copy(self, direction: str, pinned: bool, non_blocking: bool) -> None:
        """Count a copy ``to the GPU`` or ``to the host``; only one to the GPU from pinned memory may not wait."""
        where = place()
        self.copies[f"{direction}: {where}"] += 1
        if direction == "to the host" or not non_blocking:
            self.waits[f"copy {direction}: {where}"] += 1
        elif not pinned:
            self.waits[f"copy {direction} from memory that is not pinned: {where}"] += 1


class Operator(NamedTuple):
    """What the rules ask about an operator, looked up once.

    Attributes
    ----------
    name
        Without its overload: ``aten.add``.
    waits
        The host waits for its result.
    kernels
        How many it launches.
    indexing
        It takes index tensors, which may be on the host.
    elementwise
        Numbers (tensors without dimensions) on the host may take part.
    written
        Positions and names of the arguments that it writes.
    returns_written
        What it returns are those arguments.
    reshapes
        It changes the shape of its argument in place, which a wrapper cannot follow.
    """

    name: str
    waits: bool
    kernels: int
    indexing: bool
    elementwise: bool
    written: tuple[tuple[int, str], ...]
    returns_written: bool
    reshapes: bool


@cache
def operator(func: torch._ops.OpOverload) -> Operator:
    """The facts about one overload of an operator."""
    schema, name = func._schema, str(func.overloadpacket)
    written = tuple((k, a.name) for k, a in enumerate(schema.arguments) if a.alias_info and a.alias_info.is_write)
    aliases = [r.alias_info for r in schema.returns]
    view = any(alias is not None and not alias.is_write for alias in aliases)
    foreach = name.startswith("aten._foreach_")
    return Operator(
        name=name,
        waits=name in WAITS,
        kernels=0 if view or name in FREE else KERNELS.get(name, 1),
        indexing=name in INDEXING,
        elementwise=torch.Tag.pointwise in func.tags or foreach or name in ("aten.where", "aten.copy_", "aten.fill_"),
        written=written,
        returns_written=bool(written and aliases) and all(alias is not None and alias.is_write for alias in aliases),
        reshapes=torch.Tag.inplace_view in func.tags,
    )


def place() -> str:
    """The innermost line outside torch, and the innermost line of this project, which led there.

    A backward pass runs in a thread of the device: then it is the place in the main thread that started it.
    """
    frame = sys._getframe(1)
    prefix = ""
    if threading.current_thread() is not threading.main_thread():
        frame, prefix = sys._current_frames()[threading.main_thread().ident or 0], "(backward) "
    first = None
    while frame is not None:
        name = frame.f_code.co_filename
        if not (name.startswith("<") or "/torch/" in name or "/helpers/pretend_" in name or "contextlib" in name):
            here = f"{'/'.join(name.split('/')[-2:])}:{frame.f_lineno}"
            first = first or here
            if any(part in name for part in OURS):
                return prefix + (here if here == first else f"{first} <- {here}")
        frame = frame.f_back
    return prefix + str(first)
