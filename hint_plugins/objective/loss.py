"""The projected Hessian loss (HINT, arXiv:2603.25373, eq. 4)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.distributed as dist
from torch import Tensor

LossKind = Literal["mse", "mae", "huber", "norm"]
LOSS_KINDS: tuple[str, ...] = get_args(LossKind)


def structure_losses(
    predicted: Tensor,
    reference: Tensor,
    batch: Tensor,
    num_atoms: Tensor,
    kind: LossKind = "mse",
    huber_delta: float = 1.0,
) -> Tensor:
    """Hessian loss of every structure, averaged over the probes.

    With ``d = H z - H_ref z``, per structure and probe: ``mse`` is eq. 4, ``|d|^2 / 3N``; ``mae`` is
    ``sum |d_i| / 3N``; ``huber`` is quadratic below ``huber_delta`` and linear above; ``norm`` is
    ``sqrt(|d|^2 / 3N)``.

    Parameters
    ----------
    predicted, reference
        (m, n, 3) products in eV/A^2. Components whose reference is NaN (frozen atoms) are not compared: they are
        left out of the sums, and of the number 3N that divides them.
    batch
        (n,) structure of each atom.
    num_atoms
        (G,) atoms of each structure, floating point.
    kind
        Which function.
    huber_delta
        In eV/A^2.

    Returns
    -------
    torch.Tensor
        (G,).
    """
    missing = torch.isnan(reference)
    delta = torch.where(missing, torch.zeros_like(predicted), predicted - reference)
    if kind == "mae":
        values = delta.abs()
    elif kind == "huber":
        values = torch.nn.functional.huber_loss(delta, torch.zeros_like(delta), reduction="none", delta=huber_delta)
    else:
        values = delta.square()
    empty = values.new_zeros(len(delta), len(num_atoms))
    sums = empty.index_add(1, batch, values.sum(dim=-1))
    left_out = empty.index_add(1, batch, missing.sum(dim=-1).to(values.dtype))
    means = sums / (3 * num_atoms - left_out)
    if kind == "norm":
        positive = means > 0
        means = torch.where(positive, torch.where(positive, means, torch.ones_like(means)).sqrt(), means)
    return means.mean(dim=0)


def global_mean(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over the labelled structures of all processes.

    Data-parallel training averages gradients over processes, so the local sum is divided by the global count
    and multiplied by the number of processes. Every process must call this in every step, also with no
    structure (``values`` of length 0).

    Parameters
    ----------
    values
        (G,) losses of this process's structures.
    weights
        (G,) weights; they scale the structures but not the count, as in MACE's own losses.

    Returns
    -------
    torch.Tensor
        Scalar.
    """
    total = values.sum() if weights is None else (weights * values).sum()
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return total / max(1, len(values))
    count = values.new_full((), float(len(values))).detach()
    dist.all_reduce(count)
    return total * dist.get_world_size() / count.clamp_min(1.0)
