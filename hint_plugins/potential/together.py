"""Many searches on one potential at the same time: what they ask for between two steps is one call.

A search (a relaxation, a band, a saddle) asks for one structure or a few, waits, and goes on; on a GPU it spends its
time waiting for kernel launches. Here every search runs in a thread of its own, but only one thread runs at a time: the
next one goes on when this one asks the potential or ends, always in the same order, so that results do not depend on
timing. When all wait, their requests are joined.
"""

from __future__ import annotations

import functools
import threading
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from ase import Atoms

from hint_plugins.potential.backends.protocol import Predictions
from hint_plugins.potential.potential import Calls, Potential

Item = TypeVar("Item")


class _Abandoned(BaseException):
    """Ends the thread of a search that nobody waits for any more."""


@dataclass
class _Request:
    kind: Hashable  # requests of one kind can be joined
    structures: list[Atoms]
    work: Callable[[list[Atoms]], Sequence[Any]]  # one result a structure
    results: Sequence[Any] | None = None
    error: BaseException | None = None


@dataclass
class Outcome:
    """How one search ended.

    Attributes
    ----------
    index
        Place of its item.
    value
        What the function returned; None after an error.
    error
        What it raised.
    seconds
        Its own time, and its share of the joined calls by the number of structures.
    """

    index: int
    value: Any = None
    error: BaseException | None = None
    seconds: float = 0.0


class _Search:
    """A thread that runs until it asks for something, or ends."""

    def __init__(self, index: int, function: Callable[[Potential], Any], potential: Potential) -> None:
        self.outcome = Outcome(index)
        self.request: _Request | None = None
        self.ended = self.abandoned = False
        self._filters: list[Any] | None = None  # of warnings, as this thread has set them
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(function, _Asking(potential, self)), daemon=True)
        self._thread.start()

    def _run(self, function: Callable[[Potential], Any], potential: Potential) -> None:
        self._go.acquire()
        try:
            if not self.abandoned:
                self.outcome.value = function(potential)
        except BaseException as error:
            self.outcome.error = error
        finally:
            self.ended = True
            self._stopped.release()

    def ask(self, request: _Request) -> Sequence[Any]:
        """Called in the thread: wait until the request is answered."""
        self.request = request
        self._stopped.release()
        self._go.acquire()
        if self.abandoned:
            raise _Abandoned
        if request.error is not None:
            raise request.error
        assert request.results is not None
        return request.results

    def resume(self) -> None:
        """Let the thread run until it asks or ends."""
        self.request = None
        start = time.perf_counter()
        with warnings.catch_warnings():
            filters: Any = warnings.filters
            if self._filters is not None:
                filters[:] = self._filters
            self._go.release()
            self._stopped.acquire()
            self._filters = list(warnings.filters)
        self.outcome.seconds += time.perf_counter() - start

    def abandon(self) -> None:
        """End the thread at its next question."""
        self.abandoned = True
        self._go.release()
        self._thread.join(timeout=1.0)


class _Asking(Potential):
    """The potential as a search sees it; counts its own calls."""

    def __init__(self, potential: Potential, search: _Search) -> None:
        self.backend, self.calls = potential.backend, Calls()
        self._checks = potential._checks
        self._whole, self._search = potential, search

    def evaluate(
        self, atoms_list: Sequence[Atoms] | Atoms, *, stress: bool = False, progress: bool = False
    ) -> Predictions:
        structures = [atoms_list] if isinstance(atoms_list, Atoms) else list(atoms_list)

        def work(items: list[Atoms]) -> list[tuple[float, np.ndarray, np.ndarray | None]]:
            found = self._whole.evaluate(items, stress=stress)
            rows = found.stresses if found.stresses is not None else [None] * len(items)
            return list(zip(found.energies.tolist(), found.forces, rows, strict=True))

        results = self._ask(("evaluate", stress), structures, work)
        self.calls.forces += len(structures)
        energies = np.array([energy for energy, _, _ in results])
        stresses = np.array([row for _, _, row in results]).reshape(-1, 6) if stress else None
        return Predictions(energies, [forces for _, forces, _ in results], stresses)

    def hvp(self, atoms: Atoms, vectors: np.ndarray) -> np.ndarray:
        found = self._ask(("hvp", id(self)), [atoms], lambda items: [self._whole.hvp(items[0], vectors)])[0]
        self.calls.products += np.size(vectors) // max(1, 3 * len(atoms))
        return found

    def hessians(self, atoms_list: Sequence[Atoms], *, progress: bool = False, **options: Any) -> list[np.ndarray]:
        structures = list(atoms_list)
        kind = ("hessians", tuple(sorted(options.items())))
        found = self._ask(kind, structures, lambda items: self._whole.hessians(items, **options))
        self.calls.hessians += len(structures)
        return list(found)

    def _ask(
        self, kind: Hashable, structures: list[Atoms], work: Callable[[list[Atoms]], Sequence[Any]]
    ) -> Sequence[Any]:
        if not structures:
            return work(structures)
        # Copies: the search may move its atoms on while others are still being answered.
        return self._search.ask(_Request(kind, [atoms.copy() for atoms in structures], work))


@dataclass
class Together:
    """Searches on one potential whose requests are joined.

    Attributes
    ----------
    potential
        One that is faster with several structures at a time (``potential.backend.batched``).
    width
        Searches under way at once.
    rounds
        How often all searches waited and were answered.
    joined
        Calls of the potential made for them.
    """

    potential: Potential
    width: int = 32
    rounds: int = field(default=0, init=False)
    joined: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")

    def map(self, function: Callable[[Item, Potential], Any], items: Sequence[Item]) -> Iterator[Outcome]:
        """Apply ``function`` to every item.

        Parameters
        ----------
        function
            Maps an item and a potential to a result; must ask that potential and no other. What it changes outside
            its own objects (random generators, the working directory) it must restore before it asks.
        items
            Any objects.

        Yields
        ------
        Outcome
            In the order in which the searches end. Errors of the function are not raised but handed over.
        """
        waiting = list(enumerate(items))[::-1]
        active: list[_Search] = []
        try:
            while waiting or active:
                while waiting and len(active) < self.width:
                    index, item = waiting.pop()
                    active.append(_Search(index, functools.partial(function, item), self.potential))
                for search in active:
                    search.resume()
                yield from (search.outcome for search in active if search.ended)
                active = [search for search in active if not search.ended]
                self._answer([search for search in active if search.request is not None])
        finally:
            for search in active:
                search.abandon()

    def _answer(self, searches: list[_Search]) -> None:
        kinds: dict[Hashable, list[_Search]] = {}
        for search in searches:
            assert search.request is not None
            kinds.setdefault(search.request.kind, []).append(search)
        self.rounds += bool(searches)
        for group in kinds.values():
            requests = [search.request for search in group if search.request is not None]
            start = time.perf_counter()
            self._make(requests)
            seconds = time.perf_counter() - start
            total = sum(len(request.structures) for request in requests)
            for search, request in zip(group, requests, strict=True):
                search.outcome.seconds += seconds * len(request.structures) / total

    def _make(self, requests: list[_Request]) -> None:
        """One call for all of them; one by one where that fails, so that an error reaches the search whose it is."""
        structures = [atoms for request in requests for atoms in request.structures]
        self.joined += 1
        try:
            results = list(requests[0].work(structures))
        except Exception as error:
            if len(requests) == 1:
                requests[0].error = error
                return
            for request in requests:
                self._make([request])
            return
        for request in requests:
            count = len(request.structures)
            request.results, results = results[:count], results[count:]
