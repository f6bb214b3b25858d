"""What fairchem can do that Hessians cannot follow: refused before the first step, with the reason."""

from __future__ import annotations

import logging
from typing import Any

import torch
from fairchem.core.common import gp_utils
from fairchem.core.common.distutils import get_device_for_local_rank
from fairchem.core.models.uma.nn.execution_backends import UMASFastGPUBackend
from fairchem.core.units.mlip_unit.mlip_unit import MLIPTrainEvalUnit, TrainStrategy
from torch import nn

from hint_fairchem.dataset import TARGET
from hint_fairchem.graphs import ForceOutputs
from hint_fairchem.options import Hint, require_same
from hint_fairchem.sampler import HessianBatchSampler
from hint_fairchem.task import Answered
from hint_plugins.config import ConfigError

log = logging.getLogger(__name__)


def inner_model(model: nn.Module) -> nn.Module:
    """The model inside the host's wrappers (DDP, averaging)."""
    while isinstance(getattr(model, "module", None), nn.Module):
        model = model.module  # type: ignore[assignment]
    return model


def check_unit(unit: MLIPTrainEvalUnit) -> None:
    """Refuse settings of the unit under which second derivatives are wrong or impossible.

    Raises
    ------
    ConfigError
        One sentence with the setting, the reason and the remedy.
    """
    if gp_utils.initialized():
        raise ConfigError(
            "graph-parallel training (job.graph_parallel) splits one structure over processes, and its "
            "collectives have no double backward: train with data parallelism only"
        )
    if unit.train_strategy != TrainStrategy.DDP:
        raise ConfigError(f"train_strategy {unit.train_strategy} shards the model: Hessian training needs ddp")
    if unit.bf16:
        raise ConfigError("bf16: true leaves Hessian-vector products two digits at best: set bf16: false")
    compiled = [
        name or "the model"
        for name, module in unit.model.named_modules()
        if isinstance(module, torch._dynamo.eval_frame.OptimizedModule) or getattr(module, "_compiled_call_impl", None)
    ]
    if compiled:
        raise ConfigError(
            f"torch.compile ({compiled[0]}) has no double backward, which Hessians need in training: train uncompiled "
            "(compile for inference)"
        )
    if torch.cuda.is_available() and torch.device(get_device_for_local_rank()).type == "cpu":
        log.warning("training runs on the CPU although there is a GPU: job.device_type=CUDA uses it")
    if unit.tf32:
        log.warning("tf32: true leaves Hessian-vector products three digits; tf32: false is safer")
    backbone = getattr(inner_model(unit.model), "backbone", None)
    if getattr(backbone, "use_quaternion_wigner", True) is False:
        raise ConfigError(
            "use_quaternion_wigner: false (Euler angles) has a wrong second derivative: set use_quaternion_wigner: true"
        )
    checkpointed = any(getattr(m, "activation_checkpoint_chunk_size", None) for m in unit.model.modules())
    if checkpointed and hasattr(backbone, "global_mole_tensors"):
        raise ConfigError(
            "activation_checkpointing: true with a mixture-of-experts backbone (UMA): its routing is kept outside the "
            "graph, so recomputed layers would see that of the labelled structures. Set activation_checkpointing: false"
        )


def check_plugins(hint: Hint) -> None:
    """Refuse plugins with a hook that this host cannot call.

    Raises
    ------
    ConfigError
        Naming plugin and hook.
    """
    for name, plugin in hint.manager.list_name_plugin():
        hooks = {caller.name for caller in hint.manager.get_hookcallers(plugin) or ()}
        if name != "hint" and "batch_sampler" in hooks:
            raise ConfigError(
                f"plugin {name!r} makes a batch sampler (hook batch_sampler), which fairchem "
                "never asks for: leave the plugin out of hint.plugins, and name a sampler as "
                "batch_sampler_fn of the loader"
            )


def check_sampler(hint: Hint, sampler: Any) -> None:
    """Refuse options of the sampler without the sampler, and a sampler that works with other options.

    Raises
    ------
    ConfigError
        Naming the option.
    """
    if isinstance(sampler, HessianBatchSampler):
        require_same(hint, sampler.hint, "batch_sampler_fn")
        return
    config = hint.config
    for name in ("hessian_batch_fraction", "hessian_every", "hessian_recycle"):
        if getattr(config, name) != type(config).model_fields[name].get_default(call_default_factory=True):
            raise ConfigError(
                f"hint.{name} needs batch_sampler_fn._target_: hint_fairchem.sampler.HessianBatchSampler; "
                f"this run has {type(sampler).__name__}"
            )


def force_outputs(unit: MLIPTrainEvalUnit, datasets: list[str]) -> ForceOutputs:
    """Find the forces tasks and their normaliser, and check that the Hessian task is among the tasks.

    Parameters
    ----------
    unit
        The host's unit.
    datasets
        Names of the datasets of the run.

    Raises
    ------
    ConfigError
        If a task is missing, or normalisers do not fit.
    """
    mine = next((task for task in unit.tasks if task.name == TARGET), None)
    if mine is None:
        raise ConfigError(
            "tasks lack the Hessian one: add `- {_target_: hint_fairchem.task.hessian_task, "
            f"datasets: [{', '.join(datasets)}]}}`"
        )
    missing = set(datasets) - set(mine.datasets)
    if missing:
        raise ConfigError(f"the Hessian task lacks dataset {sorted(missing)[0]}: name all datasets of the run in it")
    forces = [task for task in unit.tasks if task.property == "forces"]
    if not forces:
        raise ConfigError("there is no task with property forces, so there are no Hessians")
    scales = {float(task.normalizer.rmsd) for task in forces}
    if len(scales) != 1 or any(float(task.normalizer.mean) for task in forces):
        raise ConfigError(
            f"forces tasks must share one normalizer with mean 0, found rmsd {sorted(scales)}: the Hessian loss "
            "is measured in its unit"
        )
    assert isinstance(mine.normalizer, Answered)
    mine.normalizer.answered = True
    names = [(task.name, task.property, frozenset(task.datasets)) for task in forces]
    return ForceOutputs(names, scales.pop())


def exact_derivatives(model: nn.Module) -> bool:
    """Whether the model's kernels have third derivatives."""
    return not isinstance(getattr(getattr(model, "backbone", None), "backend", None), UMASFastGPUBackend)
