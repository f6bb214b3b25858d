"""What is settled before the first step: which engine, and are the model's derivatives right?"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import torch.distributed as dist
from torch import Tensor

from hint_plugins.batching.view import LabelledGraphs
from hint_plugins.config import ConfigError
from hint_plugins.curvature.auto import fastest_engine, measure_engines
from hint_plugins.curvature.engines import EXACT, ForceView
from hint_plugins.curvature.selftest import SelfTestError, check_derivatives
from hint_plugins.hookspecs import TrainingRun

log = logging.getLogger(__name__)


def allowed_engine(name: str, run: TrainingRun) -> str:
    """The engine to use on this host: ``auto`` becomes finite differences where kernels have no third derivatives.

    Raises
    ------
    ConfigError
        If an exact engine was asked for there.
    """
    if run.exact_derivatives:
        return name
    if name == "auto":
        log.info("the host's kernels have no third derivatives: HVPs by finite differences of forces")
        return "finite_difference"
    if name in EXACT:
        raise ConfigError(
            f"hessian_engine {name} needs third derivatives, which the kernels of this model "
            "(cuEquivariance, OpenEquivariance) do not have: use hessian_engine finite_difference, or train "
            "without --enable_cueq/--enable_oeq"
        )
    return name


def require_right_derivatives(run: TrainingRun) -> None:
    """Self-test on a float64 copy of the model and two labelled structures; kinks are reported.

    Raises
    ------
    SelfTestError
        Naming the modules found wrong.
    """
    assert run.double_example is not None
    model, graphs = run.double_example(2)
    if not any(p.requires_grad for p in model.parameters()):  # frozen by the host while it validates
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
    report = check_derivatives(model, lambda: _fresh(graphs))
    log.info(
        "self-test in float64: HVP error %.1e, gradient of the Hessian loss %.1e",
        report.hvp_error,
        report.gradient_error,
    )
    if not report.ok:
        raise SelfTestError(
            f"the derivatives of this model fail their test: {report.explanation()}. Replace the module, or train with "
            "hessian_engine finite_difference, which needs no third derivative"
        )
    for kink in report.kinks:
        log.warning("the model is not smooth: %s", kink)


def measured_engine(run: TrainingRun, probes_of: Callable[[LabelledGraphs], Tensor]) -> str:
    """The fastest exact engine on up to eight labelled structures; every process takes the choice of the first.

    Parameters
    ----------
    run
        The run that is about to start.
    probes_of
        Gives the drawn probes (m, n, 3) of labelled structures.
    """
    assert run.labelled_example is not None
    name = ""
    if run.progress.rank == 0:
        graphs = run.labelled_example(8)
        seconds = measure_engines(lambda: _fresh(graphs), probes_of(graphs), run.model.parameters())
        name = fastest_engine(seconds)
        table = ", ".join(f"{engine} {1e3 * time:.0f} ms" for engine, time in sorted(seconds.items()))
        log.info("HVP engines on %d structures: %s", graphs.num_graphs, table)
    if dist.is_available() and dist.is_initialized():
        box = [name]
        dist.broadcast_object_list(box, src=0)
        name = box[0]
    return name


def first_engine(run: TrainingRun, probes_of: Callable[[LabelledGraphs], Tensor]) -> str:
    """The first of ``vmap``, ``replicate`` and ``reverse`` that runs on up to eight labelled structures."""
    assert run.labelled_example is not None
    graphs = run.labelled_example(8)
    parameters = list(run.model.parameters())
    for name in ("vmap", "replicate", "reverse"):
        if measure_engines(lambda: _fresh(graphs), probes_of(graphs), parameters, [name]):
            return name
    return fastest_engine({})


def _fresh(graphs: LabelledGraphs) -> ForceView:
    """The same view without its force graph, so that every engine starts from nothing."""
    return replace(graphs.view, graph=None)
