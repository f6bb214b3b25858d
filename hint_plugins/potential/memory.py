"""Batches that fit into memory: sorted by size, measured, halved when memory runs out."""

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
#: A batch may cost at most so many times the largest batch whose memory was measured.
GROWTH = 32.0
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
    """How much of one kind of work fits into a batch; learnt from batches and from failures.

    A batch of total cost ``c`` that took ``m`` bytes says that a unit costs ``m / c``. What a first call allocates for
    good, and anything else that does not grow, counts too, so the word of the largest batches holds, and the later
    one's of two that are as large. A batch that failed says that a unit costs more than its share of what was free.
    Batches grow at most by :data:`GROWTH` beyond the largest measured one.

    Parameters
    ----------
    device
        Where the work runs.

    Attributes
    ----------
    limit
        Largest total cost of a batch; None until measured.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.limit: float | None = None
        self._largest = 0.0  # cost of the largest batch that was measured since the last failure
        self._failed = 0.0  # bytes a unit, at least, by the batches that failed

    @property
    def allowed(self) -> float:
        """Largest total cost of the next batch; 0 means one item, to be measured."""
        limit = self.limit or 0.0
        return min(limit, GROWTH * self._largest) if self._largest else limit

    def measured(self, work: Callable[[], Result], cost: float) -> Result:
        """Run ``work`` of this total cost and learn from the memory that it took.

        On the CPU the tensors saved for derivatives are counted, of batches larger than any before.
        """
        cuda = self.device.type == "cuda"
        if not cuda and self.limit is not None and cost <= self._largest:
            return work()
        available = self._available()
        if cuda:
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
        fits = available / max(used / cost, self._failed, 1.0)
        if self.limit is None:
            self.limit = max(cost, fits)
        elif used > available or (used > 0 and cost > 0.5 * self._largest):
            self.limit = fits
        self._largest = max(self._largest, cost)
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
        self._largest = min(self._largest, self.limit)
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
        self._failed = max(self._failed, self._available() / self.limit)


def largest_first(costs: Sequence[float]) -> list[int]:
    """Order in which items are done: neighbours cost nearly the same, and what does not fit is found at once."""
    return sorted(range(len(costs)), key=lambda k: -costs[k])


def next_batch(order: Sequence[int], costs: Sequence[float], allowed: float, max_size: int) -> list[int]:
    """As many items from the front of ``order`` as a total cost of ``allowed`` permits; at least one."""
    size, total = 1, costs[order[0]]
    while size < min(max_size, len(order)) and total + costs[order[size]] <= allowed:
        total += costs[order[size]]
        size += 1
    return list(order[:size])


def run_in_batches(
    costs: Sequence[float],
    work: Callable[[list[int]], Sequence[Result]],
    budget: MemoryBudget,
    *,
    max_size: int = 256,
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

    Yields
    ------
    index, result
        In the order in which they are done.

    Raises
    ------
    MemoryError
        If one item does not fit alone.
    """
    order = largest_first(costs)
    while order:
        chosen = next_batch(order, costs, budget.allowed, max_size)
        size = len(chosen)
        cost = sum(costs[k] for k in chosen)
        results: Sequence[Result] | None = None
        try:
            results = budget.measured(lambda chosen=chosen: work(chosen), cost)  # type: ignore[misc]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        if results is None:  # outside the handler, whose traceback would keep the tensors alive
            budget.failed(cost)
            if size == 1:
                raise MemoryError(f"structure {chosen[0]} does not fit into the memory of {budget.device} alone")
            continue
        order = order[size:]
        yield from zip(chosen, results, strict=True)
