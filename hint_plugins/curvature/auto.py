"""The ``auto`` engine: measure the exact engines on a labelled batch, keep the fastest."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from hint_plugins.curvature.engines import EXACT, ForceView, get_engine
from hint_plugins.curvature.selftest import SelfTestError

log = logging.getLogger(__name__)

#: Seconds of one engine after which it is not run again.
ENOUGH = 20.0


def measure_engines(
    make_view: Callable[[], ForceView],
    probes: Tensor,
    parameters: Iterable[Tensor],
    candidates: Iterable[str] = EXACT,
    repeats: int = 4,
) -> dict[str, float]:
    """Seconds of one product with its backward pass to the parameters, for each engine that runs.

    Parameters
    ----------
    make_view
        Makes a fresh view of a labelled batch.
    probes
        (m, n, 3).
    parameters
        The model's parameters; their ``.grad`` is left alone.
    candidates
        Names of engines.
    repeats
        Runs of each, fewer when they take longer than :data:`ENOUGH`; the fastest counts (the first ones also pay for
        just-in-time compilation).

    Returns
    -------
    dict
        Seconds by name; engines that fail (out of memory, no batching rule) are logged and left out.
    """
    weights = [p for p in parameters if p.requires_grad]
    seconds: dict[str, float] = {}
    for name in candidates:
        if probes.is_cuda:
            torch.cuda.empty_cache()  # of the engine before, which may have run out of memory
        times: list[float] = []
        try:
            while len(times) < repeats and sum(times) < ENOUGH:
                times.append(_time(make_view, probes, weights, name))
        except (RuntimeError, NotImplementedError) as error:
            log.info("HVP engine %s does not run on this model: %s", name, str(error).split("\n")[0])
            continue
        seconds[name] = min(times)
    return seconds


def _time(make_view: Callable[[], ForceView], probes: Tensor, weights: list[Tensor], name: str) -> float:
    cuda = probes.is_cuda
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    products = get_engine(name)(make_view(), probes, create_graph=True)
    torch.autograd.grad(products.square().sum(), weights, allow_unused=True)
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def fastest_engine(seconds: dict[str, float]) -> str:
    """Name of the fastest engine.

    Raises
    ------
    SelfTestError
        If no exact engine ran on the model.
    """
    if not seconds:
        raise SelfTestError(
            "no exact HVP engine runs on this model: choose hessian_engine finite_difference, which needs forces only"
        )
    return min(seconds, key=seconds.__getitem__)
