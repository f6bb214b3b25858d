"""Hessian-vector products for studies: by the engine that suits the device, as many at a time as fit into memory."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from ase import Atoms
from torch import Tensor

from hint_plugins.curvature.engines import Engine, FiniteDifference, ForceView, replicate, reverse
from hint_plugins.errors import HintError
from hint_plugins.potential.memory import MemoryBudget, is_out_of_memory, structure_cost

if TYPE_CHECKING:
    from hint_plugins.potential.backends.protocol import Backend

log = logging.getLogger(__name__)
Result = TypeVar("Result")

#: At most so many products at a time: more would not be faster.
MOST_PRODUCTS = 64
#: Total cost of the products made at a time on a CPU: more would not be faster either, as they leave the cache.
CPU_COST = 3000.0


def copies(view: ForceView, probes: Tensor, create_graph: bool = True) -> Tensor:
    """``replicate``, or ``reverse`` for one product, where both do the same and the latter keeps the force graph."""
    return (reverse if len(probes) == 1 else replicate)(view, probes, create_graph)


def exact_engine(device: torch.device, on_cpu: Engine = reverse) -> Engine:
    """The exact engine for studies: few launches on a GPU, which waits for them, and least work on a CPU.

    Parameters
    ----------
    device
        Where the model computes.
    on_cpu
        What is fastest on a CPU: ``vmap`` for some models, ``reverse`` for others.
    """
    return on_cpu if device.type == "cpu" else copies


def grows(engine: Engine) -> bool:
    """Whether the memory of an engine grows with the number of products."""
    return engine is not reverse


def allowed_cost(engine: Engine, budget: MemoryBudget) -> float:
    """Largest total cost of what is done at a time, a product being one unit of cost of its structure."""
    return min(budget.allowed, CPU_COST) if grows(engine) and budget.device.type == "cpu" else budget.allowed


class DoesNotFitError(HintError, MemoryError):
    """One product alone does not fit into memory."""


@dataclass
class Fitting:
    """An engine that makes as many products at a time as fit, and half as many when memory runs out.

    Attributes
    ----------
    engine
        Makes the products.
    cost
        Of one product, in the units of the budget (:func:`~hint_plugins.potential.memory.structure_cost`).
    budget
        Remembers what fits, from call to call.

    Raises
    ------
    DoesNotFitError
        If one product alone does not fit.
    """

    engine: Engine
    cost: float
    budget: MemoryBudget

    def __call__(self, view: ForceView, probes: Tensor, create_graph: bool = False) -> Tensor:
        """Products (m, n, 3) with probes (m, n, 3), detached."""
        parts: list[Tensor] = []
        done = 0
        while done < len(probes):
            count = min(MOST_PRODUCTS, len(probes) - done)
            if grows(self.engine):
                count = min(count, max(1, int(allowed_cost(self.engine, self.budget) / self.cost)))
            cost = self.cost * (count if grows(self.engine) else 1)
            part = probes[done : done + count]
            found: Tensor | None = None
            try:
                found = self.budget.measured(lambda part=part: self._products(view, part), cost)  # type: ignore[misc]
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            if found is None:  # outside the handler, whose traceback would keep the tensors alive
                view.graph = None
                self.budget.failed(cost)
                if cost == self.cost:
                    raise DoesNotFitError(f"one Hessian product does not fit into the memory of {self.budget.device}")
                continue
            parts.append(found)
            done += count
        return torch.cat(parts)

    def _products(self, view: ForceView, probes: Tensor) -> Tensor:
        return self.engine(view, probes, create_graph=False).detach()


class Products:
    """Hessian products of the structures of a backend: exact where they fit, else from displaced forces.

    Parameters
    ----------
    backend
        Computes them.
    budgets
        What fits: ``hessians`` for the backend's own engine; others are added.
    """

    def __init__(self, backend: Backend, budgets: dict[Any, MemoryBudget]) -> None:
        self.backend, self.budgets, self.warned = backend, budgets, False

    def budget(self, engine: Engine) -> MemoryBudget:
        """Memory of an engine; differences and an engine that was asked for by name have their own kind."""
        if engine is self.backend.engine:
            return self.budgets["hessians"]
        kind = "differences" if isinstance(engine, FiniteDifference) else engine
        return self.budgets.setdefault(kind, MemoryBudget(self.backend.device))

    def view(self, structures: list[Atoms]) -> tuple[ForceView, list[int]]:
        """As the backend's, for :meth:`made`.

        Raises
        ------
        DoesNotFitError
            If the structures themselves do not fit.
        """
        try:
            return self.backend.view(structures)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        raise DoesNotFitError(f"the structures do not fit into the memory of {self.backend.device}")

    def made(
        self,
        structures: list[Atoms],
        chosen: list[int],
        engine: Engine,
        compute: Callable[[list[int], Fitting], list[Result]],
    ) -> list[Result]:
        """Results of ``compute`` for a batch.

        A batch that does not fit is halved, and one structure done by central differences of the forces.

        Parameters
        ----------
        structures
            All of them.
        chosen
            Places of those in the batch.
        engine
            How products are made.
        compute
            Maps places and an engine to one result for each place.

        Raises
        ------
        MemoryError
            If the forces at the two structures of a central difference do not fit into memory either.
        """
        cost = sum(structure_cost(structures[k], self.backend.cutoff) for k in chosen)
        with contextlib.suppress(DoesNotFitError):
            return compute(chosen, Fitting(engine, cost, self.budget(engine)))
        if len(chosen) > 1:
            half = len(chosen) // 2
            return [
                *self.made(structures, chosen[:half], engine, compute),
                *self.made(structures, chosen[half:], engine, compute),
            ]
        atoms = structures[chosen[0]]
        what = f"structure {chosen[0]} ({atoms.get_chemical_formula()}, {len(atoms)} atoms)"
        if isinstance(engine, FiniteDifference):
            raise MemoryError(
                f"{what}: the forces of two copies, which a central difference takes, do not fit into the memory of "
                f"{self.backend.device}; choose a smaller structure or supercell, float32, or a device with more memory"
            )
        if not self.warned:
            self.warned = True
            log.warning(
                "%s: exact Hessian products of %s do not fit into the memory of %s; this structure, and others as "
                "large, are done by central differences of the forces",
                self.backend.name,
                what,
                self.backend.device,
            )
        return self.made(structures, chosen, FiniteDifference(two_sided=True), compute)
