"""What is settled before the first step: which engine, and are the model's derivatives right?"""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from hint_plugins.config import ConfigError, HintConfig
from hint_plugins.curvature.auto import fastest_engine, measure_engines
from hint_plugins.curvature.engines import EXACT, ForceView
from hint_plugins.curvature.layer_norm import swap_layer_norms
from hint_plugins.curvature.selftest import SelfTestError, check_derivatives
from hint_plugins.hookspecs import TrainingRun
from hint_plugins.training.protocol import LabelledGraphs
from hint_plugins.training.ranks import first_decides, together

log = logging.getLogger(__name__)


def allowed_engine(name: str, run: TrainingRun) -> str:
    """The engine to use on this host: ``auto`` becomes finite differences where kernels have no third derivatives.

    Raises
    ------
    ConfigError
        If an exact engine was asked for there.
    """
    if run.exact_derivatives is not False:
        return name
    if name == "auto":
        log.info("the host's kernels have no third derivatives: HVPs by finite differences of forces")
        return "finite_difference"
    if name in EXACT:
        raise ConfigError(
            f"hessian_engine {name} needs third derivatives, which the kernels of this model (cuEquivariance, "
            "OpenEquivariance before 0.6.7) do not have: use hessian_engine finite_difference, or train without "
            "--enable_cueq/--enable_oeq"
        )
    return name


def settled_engine(name: str, config: HintConfig, run: TrainingRun) -> str:
    """Make LayerNorms exact, test the model, and give the engine to train with: one that is allowed, measured and runs.

    Parameters
    ----------
    name
        What was asked for, or chosen in an earlier part of the run.
    config
        Options.
    run
        The run that is about to start.

    Raises
    ------
    ConfigError
        As :func:`allowed_engine`.
    SelfTestError
        If a derivative is wrong or no exact engine runs. Where it is not known whether the host's kernels have third
        derivatives, ``auto`` becomes finite differences instead.
    """
    name = allowed_engine(name, run)
    if name != "auto" and name not in EXACT:
        return name
    names = swap_layer_norms(run.model)
    if names:
        log.info(
            "LayerNorm made exact for training (torch's fused one has a wrong third derivative): %s", ", ".join(names)
        )
    if config.hessian_selftest:
        try:
            require_right_derivatives(run)
        except SelfTestError as error:
            if run.exact_derivatives is not None or name != "auto":
                raise
            log.warning("HVPs by finite differences of forces, since %s", error)
            return "finite_difference"
    if name == "auto":
        name = (first_engine if config.hessian_reproducible else measured_engine)(run)
    return name


def require_right_derivatives(run: TrainingRun) -> None:
    """Self-test on a float64 copy of the model and two labelled structures; kinks are reported.

    Every process makes the test, and all fail if one does.

    Raises
    ------
    SelfTestError
        Naming the modules found wrong.
    """
    together(lambda: _require_right_derivatives(run))


def _require_right_derivatives(run: TrainingRun) -> None:
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


def measured_engine(run: TrainingRun) -> str:
    """The fastest exact engine on the largest batch of labelled structures; the first process chooses for all.

    Parameters
    ----------
    run
        The run that is about to start.

    Raises
    ------
    SelfTestError
        On every process, if none runs.
    """

    def measure() -> str:
        assert run.labelled_example is not None
        graphs = run.labelled_example()
        probes = graphs.probes
        seconds = measure_engines(lambda: _fresh(graphs), probes, run.model.parameters())
        name = fastest_engine(seconds)
        table = ", ".join(f"{engine} {1e3 * time:.0f} ms" for engine, time in sorted(seconds.items()))
        where = torch.cuda.get_device_name(probes.device) if probes.is_cuda else probes.device
        atoms = sum(graphs.sizes)
        log.info("HVP engines on %d structures (%d atoms), %s: %s", graphs.num_graphs, atoms, where, table)
        return name

    return first_decides(measure)


def first_engine(run: TrainingRun) -> str:
    """The first of ``vmap``, ``replicate`` and ``reverse`` that runs; otherwise as :func:`measured_engine`."""

    def find() -> str:
        assert run.labelled_example is not None
        graphs = run.labelled_example()
        parameters = list(run.model.parameters())
        for name in ("vmap", "replicate", "reverse"):
            if measure_engines(lambda: _fresh(graphs), graphs.probes, parameters, [name]):
                return name
        return fastest_engine({})

    return first_decides(find)


def _fresh(graphs: LabelledGraphs) -> ForceView:
    """The same view without its force graph, so that every engine starts from nothing."""
    return replace(graphs.view, graph=None)
