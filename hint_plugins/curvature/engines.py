"""Hessian-vector products: ``H z = -d(F . z)/dr`` for many probes and many structures at once.

The structures of a batch do not interact, so the Hessian of the batch is block diagonal and one probe vector
over all its atoms gives one product for every structure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hint_plugins.curvature.precision import coarse_products, full_precision
from hint_plugins.registries import registries, resolve

ForcesAt = Callable[[Tensor], Tensor]


@dataclass
class ForceView:
    """Forces of a set of structures as a function of their positions.

    Attributes
    ----------
    positions
        (n, 3) A.
    forces_at
        Maps positions (r, n, 3) of r copies of the set to forces (r, n, 3) in eV/A, differentiable in the
        positions (where they require it) and in the model's parameters.
    graph
        ``(positions, forces)``, both (n, 3), when forces with a graph exist already.
    """

    positions: Tensor
    forces_at: ForcesAt
    graph: tuple[Tensor, Tensor] | None = None

    def force_graph(self) -> tuple[Tensor, Tensor]:
        """Positions and forces (n, 3) joined by an autograd graph, made on the first call."""
        if self.graph is None:
            positions = self.positions.detach().requires_grad_(True)
            self.graph = positions, self.forces_at(positions[None])[0]
        return self.graph


class Engine(Protocol):
    """Maps a view and probes (m, n, 3) to products (m, n, 3); differentiable with ``create_graph``."""

    def __call__(self, view: ForceView, probes: Tensor, create_graph: bool = True) -> Tensor: ...


def _vjp(forces: Tensor, positions: Tensor, vectors: Tensor, create_graph: bool, batched: bool = False) -> Tensor:
    if not forces.requires_grad:
        return torch.zeros_like(vectors)
    (product,) = torch.autograd.grad(
        forces,
        positions,
        vectors,
        retain_graph=True,
        create_graph=create_graph,
        allow_unused=True,
        is_grads_batched=batched,
    )
    return torch.zeros_like(vectors) if product is None else -product


def reverse(view: ForceView, probes: Tensor, create_graph: bool = True) -> Tensor:
    """Double backward through the one force graph, probe by probe: exact, least memory.

    For a direct-force model, whose Jacobian is not symmetric, this gives rows: ``-J^T z``.
    """
    positions, forces = view.force_graph()
    return torch.stack([_vjp(forces, positions, z, create_graph) for z in probes])


def replicate(view: ForceView, probes: Tensor, create_graph: bool = True) -> Tensor:
    """One double backward through m copies of the structures: exact, few kernel launches."""
    positions = view.positions.detach().expand(len(probes), -1, -1).clone().requires_grad_(True)
    return _vjp(view.forces_at(positions), positions, probes, create_graph)


#: What torch says of a kernel that cannot be vectorised.
_NO_RULE = ("Batching rule not implemented", "doesn't have storage")


def vmap(view: ForceView, probes: Tensor, create_graph: bool = True) -> Tensor:
    """Double backward vectorised over probes: exact, needs batching rules for every kernel.

    TorchScript's profiling executor has none for some of its own operations and fails from the third call on;
    it is switched off here. That holds for this thread alone, and on a GPU a backward pass runs in a thread of its
    own, so the pass is kept in this one. Kernels that TorchScript has fused on a GPU before stay without rules.

    Raises
    ------
    RuntimeError
        If a kernel has no batching rule; the message names the engines to take instead.
    """
    with torch.jit.optimized_execution(False), torch.autograd.set_multithreading_enabled(False):
        positions, forces = view.force_graph()
        try:
            return _vjp(forces, positions, probes, create_graph, batched=True)
        except RuntimeError as error:
            if any(words in str(error) for words in _NO_RULE):
                raise RuntimeError(
                    "the engine vmap does not run here, since a kernel of the model has no batching rule (TorchScript "
                    "models on a GPU, among others): take replicate or reverse"
                ) from error
            raise


#: Largest displacement of a coordinate (A) by scheme and dtype: the minimum of truncation and rounding error.
STEPS = {
    ("two_sided", torch.float64): 1e-5,
    ("two_sided", torch.float32): 1e-3,
    ("one_sided", torch.float64): 1e-6,
    ("one_sided", torch.float32): 3e-4,
}


@dataclass(frozen=True)
class FiniteDifference:
    """Products from displaced forces: no third derivative of the energy is needed.

    The right engine for kernels without a double backward (cuEquivariance, compiled models) and for
    direct-force models, where it gives columns: ``-J z``.

    The forces are computed in full single precision (no TF32), whatever torch was told; a backward pass through the
    products takes differences of the same kind and needs :func:`~hint_plugins.curvature.precision.use_full_precision`.

    Attributes
    ----------
    two_sided
        Central difference (2m copies, error of second order) or forward difference (m copies and the
        undisplaced one, error of first order).
    step
        Largest displacement of a coordinate, A; by default from :data:`STEPS`.
    """

    two_sided: bool = True
    step: float | None = None

    def __call__(self, view: ForceView, probes: Tensor, create_graph: bool = True) -> Tensor:
        positions = view.positions.detach()
        scheme = "two_sided" if self.two_sided else "one_sided"
        step = self.step or STEPS.get((scheme, positions.dtype), 1e-3)
        scale = step / probes.abs().amax(dim=(1, 2), keepdim=True).clamp_min(1e-30)
        shift = scale * probes
        m = len(probes)
        at_hand = None if view.graph is None or coarse_products(positions) else view.graph[1]
        with full_precision(positions):
            if self.two_sided:
                forces = view.forces_at(torch.cat([positions + shift, positions - shift]))
                products = (forces[m:] - forces[:m]) / (2 * scale)
            elif at_hand is not None:
                products = (at_hand - view.forces_at(positions + shift)) / scale
            else:
                forces = view.forces_at(torch.cat([positions + shift, positions[None]]))
                products = (forces[m:] - forces[:m]) / scale
        return products if create_graph else products.detach()


finite_difference = FiniteDifference(two_sided=True)
finite_difference_one_sided = FiniteDifference(two_sided=False)

#: Engines whose products are exact and whose parameter gradients need third derivatives of the energy.
EXACT = ("reverse", "replicate", "vmap")


def get_engine(name: str, step: float | None = None) -> Engine:
    """Look up an engine.

    Parameters
    ----------
    name
        Its name (:attr:`hint_plugins.registries.Registries.engines`).
    step
        Displacement of the finite-difference engines, A.

    Raises
    ------
    ValueError
        If there is no such engine.
    """
    known = registries().engines
    if name not in known:
        raise ValueError(f"unknown HVP engine {name!r}: known engines are auto, {', '.join(known)}")
    engine: Engine = resolve(known[name])
    if step is not None and isinstance(engine, FiniteDifference):
        return FiniteDifference(engine.two_sided, step)
    return engine
