"""``fairchem -c CONFIG`` with what is wrong in one sentence."""

from __future__ import annotations

import difflib
import pydoc
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from fairchem.core._cli import get_hydra_config_from_yaml, main
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hint_plugins.config import ConfigError
from hint_plugins.curvature.selftest import SelfTestError
from hint_plugins.errors import InputError
from hint_plugins.labels.hessian_label import LabelError
from hint_plugins.objective.metrics import NotFiniteError
from hint_plugins.plugins import PluginError
from hint_plugins.potential.memory import is_out_of_memory

OURS = (ConfigError, LabelError, SelfTestError, NotFiniteError, PluginError)
_TASK, _CALLBACK = "hint_fairchem.task.hessian_task", "hint_fairchem.callback.HintCallback"


def train(config: Path, overrides: Sequence[str]) -> None:
    """Train as ``fairchem -c config overrides`` does.

    Raises
    ------
    InputError
        For whatever is wrong with config, data or model, in one sentence.
    """
    if not config.is_file():
        raise InputError(f"{config}: no such file")
    try:
        check_config(get_hydra_config_from_yaml(str(config), list(overrides)))
        main(SimpleNamespace(config=str(config)), list(overrides))  # type: ignore[arg-type]
    except (*OURS, HydraException, OmegaConfBaseException) as error:
        raise InputError(f"{config}: {sentence(error)}") from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        first = str(error).strip().split("\n")[0]
        raise InputError(
            f"{config}: training ran out of memory ({first}). Lower the sampler's max_atoms (or batch_size) or "
            "hint.hessian_num_probes, or take hint.hessian_engine reverse, which needs least memory among the exact "
            "engines, or finite_difference, which needs less still"
        ) from error


def sentence(error: BaseException) -> str:
    """The message of the error of ours behind ``error``, if there is one, else its own; on one line."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, OURS):
        found = found.__cause__ or found.__context__
    text = str(found or error).strip()
    if "Original Traceback" in text:  # raised in a loader process
        text = text.splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())


def check_config(config: DictConfig) -> None:
    """Refuse what would end in a traceback: no GPU, names that do not exist, parts that are missing.

    Raises
    ------
    ConfigError
        Naming the place in the config.
    """
    if OmegaConf.select(config, "job.device_type") == "cuda" and not torch.cuda.is_available():
        raise ConfigError("job.device_type is CUDA, but torch sees no GPU: set job.device_type=CPU")
    runner = OmegaConf.to_container(config.runner)
    assert isinstance(runner, dict)
    for place, name in _names(runner, "runner"):
        if "." in name and pydoc.locate(name) is None:
            raise ConfigError(f"{place}: there is no {name}{_nearest(name)}")
    for loader in ("train_dataloader", "eval_dataloader"):
        if not (runner.get(loader) or {}).get("batch_sampler_fn"):
            raise ConfigError(f"runner.{loader} lacks batch_sampler_fn: name a sampler, as the shipped configs do")
    tasks = [task.get("_target_") for task in (runner.get("train_eval_unit") or {}).get("tasks") or []]
    callbacks = [callback.get("_target_") for callback in runner.get("callbacks") or []]
    for wanted, there, place, missing in (
        (_TASK, _CALLBACK, "runner.callbacks", _CALLBACK in callbacks),
        (_CALLBACK, _TASK, "tasks", _TASK in tasks),
    ):
        if wanted in tasks + callbacks and not missing:
            raise ConfigError(f"{wanted} needs {there}, which is missing in {place}")


def _names(node: Any, place: str) -> Iterator[tuple[str, str]]:
    """Places and values of all ``_target_`` and ``format``."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("_target_", "format") and isinstance(value, str):
                yield f"{place}.{key}", value
            yield from _names(value, f"{place}.{key}")
    elif isinstance(node, list):
        for k, value in enumerate(node):
            yield from _names(value, f"{place}.{k}")


def _nearest(name: str) -> str:
    """The existing name that is nearest, as the end of a message."""
    module, _, last = name.rpartition(".")
    near = difflib.get_close_matches(last, dir(pydoc.locate(module)), 1) if pydoc.locate(module) is not None else []
    return f"; did you mean {module}.{near[0]}?" if near else ""
