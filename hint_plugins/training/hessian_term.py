"""The Hessian term of a training step: losses of the labelled structures, and the scale that balances them."""

from __future__ import annotations

import logging

import torch
import torch.distributed as dist
from torch import Tensor

from hint_plugins.config import HintConfig
from hint_plugins.curvature.engines import Engine, get_engine, reverse
from hint_plugins.objective.loss import structure_losses
from hint_plugins.objective.products import hessian_products
from hint_plugins.training.protocol import LabelledGraphs

log = logging.getLogger(__name__)


def hessian_losses(
    graphs: LabelledGraphs, config: HintConfig, engine: Engine, *, exact: bool, wanted: Tensor | None = None
) -> Tensor:
    """Hessian loss (G,) of labelled structures whose labels have been drawn (HINT, eq. 2).

    Parameters
    ----------
    graphs
        The structures; the host has evaluated them.
    config
        Form of the loss and weight of the symmetry penalty.
    engine, exact
        How products are made, and whether it differentiates or takes differences: the symmetry penalty compares it with
        the other kind.
    wanted
        Positions that were asked of the host (:func:`hint_plugins.objective.products.wanted_positions`).
    """
    probes, reference = graphs.probes, graphs.products
    products = hessian_products(engine, graphs, probes, wanted)
    form = config.hessian_loss, config.hessian_huber_delta
    losses = structure_losses(products, reference, graphs.batch, graphs.num_atoms, *form)
    if config.hessian_symmetry_weight:
        rows = products if exact else hessian_products(reverse, graphs, probes)
        columns = hessian_products(get_engine("finite_difference"), graphs, probes) if exact else products
        penalty = structure_losses(rows, columns, graphs.batch, graphs.num_atoms)
        losses = losses + config.hessian_symmetry_weight * penalty
    return losses


def balancing_scale(hessian: Tensor, host: Tensor, share: float | None) -> float | None:
    """Factor that makes the Hessian loss ``share`` of the host's, over all ranks; None where one of them is 0."""
    pair = torch.stack([hessian.float(), host.detach().float()])
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(pair)
    first, other = pair.tolist()
    if first <= 0.0 or other <= 0.0:
        return None
    assert share is not None
    scale = share * other / first
    log.info("Hessian loss scaled by %.4g to %.3g of the host's first loss", scale, share)
    return float(scale)
