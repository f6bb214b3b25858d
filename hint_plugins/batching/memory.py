"""Batches that fit into memory: sorted by size, measured once, halved when memory runs out."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from ase import Atoms

Result = TypeVar("Result")

#: Share of the free memory that a batch may take.
SHARE = 0.5
#: Most memory of a batch on the CPU (bytes): larger batches are not faster there.
CPU_LIMIT = 1 << 30
_MESSAGES = ("out of memory", "can't allocate memory", "cannot allocate memory", "alloc_failed", "defaultcpuallocator")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that an allocation failed, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _MESSAGES)


def structure_cost(atoms: Atoms, cutoff: float | None) -> float:
    """Atoms plus estimated directed edges of a structure: what memory grows with.

    The density of a molecule is taken from the box around it, widened by 1.5 A on each side.
    """
    n = len(atoms)
    if cutoff is None:
        return float(n)
    if atoms.pbc.all():
        volume = max(abs(np.linalg.det(np.asarray(atoms.cell))), 1.0)
        return n + n * (n / volume) * 4.19 * cutoff**3
    volume = float(np.prod(np.ptp(atoms.positions, axis=0) + 3.0))
    edges = n * (n / max(volume, 1.0)) * 4.19 * cutoff**3
    return n + (edges if atoms.pbc.any() else min(edges, n * (n - 1.0)))


class MemoryBudget:
    """How much of one kind of work fits into a batch; learnt from the first batch and from failures.

    Parameters
    ----------
    device
        Where the work runs.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.limit: float | None = None  #: largest total cost of a batch; None until measured

    def measured(self, work: Callable[[], Result], cost: float) -> Result:
        """Run ``work``; the first time, measure its memory and set the limit from it."""
        if self.limit is not None:
            return work()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            result = work()
            used = torch.cuda.max_memory_allocated(self.device) - before
        else:
            saved: dict[int, int] = {}

            def note(tensor: torch.Tensor) -> torch.Tensor:
                saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                result = work()
            used = sum(saved.values())
        self.limit = max(cost, self._available() / max(used / cost, 1.0))
        return result

    def _available(self) -> float:
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
            return SHARE * (free + cached)
        try:
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError, AttributeError):
            free = CPU_LIMIT
        return min(CPU_LIMIT, SHARE * free)

    def failed(self, cost: float) -> None:
        """Remember that a batch of this cost did not fit, and free what can be freed."""
        self.limit = cost / 2
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()


def run_in_batches(
    costs: Sequence[float],
    work: Callable[[list[int]], Sequence[Result]],
    budget: MemoryBudget,
    *,
    max_size: int = 256,
    single: Callable[[int], Result] | None = None,
) -> Iterator[tuple[int, Result]]:
    """Do ``work`` on batches of items, largest items first, and halve a batch that runs out of memory.

    Parameters
    ----------
    costs
        Relative memory of each item.
    work
        Maps the indices of a batch to one result each.
    budget
        Remembers what fits, from call to call.
    max_size
        Most items of a batch.
    single
        What to do with one item that does not fit alone; by default ``MemoryError``.

    Yields
    ------
    index, result
        In the order in which they are done.

    Raises
    ------
    MemoryError
        If one item does not fit alone and there is no other way.
    """
    order = sorted(range(len(costs)), key=lambda k: -costs[k])
    while order:
        size = 1
        total = costs[order[0]]
        while budget.limit is not None and size < min(max_size, len(order)) and total < budget.limit:
            total += costs[order[size]]
            if total > budget.limit:
                break
            size += 1
        chosen = order[:size]
        cost = sum(costs[k] for k in chosen)
        results: Sequence[Result] | None = None
        try:
            results = budget.measured(lambda chosen=chosen: work(chosen), cost)  # type: ignore[misc]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        if results is None:  # outside the handler, whose traceback would keep the tensors alive
            budget.failed(cost)
            if size > 1:
                continue
            if single is None:
                raise MemoryError(f"structure {chosen[0]} does not fit into the memory of {budget.device} alone")
            results = [single(chosen[0])]
        order = order[size:]
        yield from zip(chosen, results, strict=True)
