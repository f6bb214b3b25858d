"""A fairchem run of toy size, taken apart: unit, loaders and callback built from the shipped configs."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("CURRRENT_DEVICE_TYPE", "cpu")  # the host's own spelling

import hydra
import torch
from fairchem.core._cli import get_hydra_config_from_yaml, main
from fairchem.core.units.mlip_unit.api.inference import MLIPInferenceCheckpoint
from torchtnt.framework.state import EntryPoint, PhaseState, State

import hint_fairchem
from hint_fairchem.checks import inner_model

CONFIGS = Path(hint_fairchem.__file__).parent / "configs"
BACKBONE = "runner.train_eval_unit.model.backbone"
SMALL = [
    *(f"{BACKBONE}.{name}=8" for name in ("sphere_channels", "hidden_channels", "edge_channels", "num_distance_basis")),
    f"{BACKBONE}.num_layers=1",
]
TINY = [
    "job.device_type=CPU",
    "max_atoms=24",
    "steps=6",
    "runner.train_eval_unit.print_every=1",
    "runner.train_eval_unit.ema_decay=0.9",
]


def compose(stores, run_dir: Path, *overrides: str, config: str = "minimal.yaml", small: bool = True):
    """The config of a shipped YAML at toy size."""
    return get_hydra_config_from_yaml(
        str(CONFIGS / config),
        [
            *TINY,
            *(SMALL if small else []),
            f"train_data={stores.train}",
            f"valid_data={stores.valid}",
            f"job.run_dir={run_dir}",
            *overrides,
        ],
    )


def build(stores, run_dir: Path, *overrides: str, start: bool = True, seed: int = 0, **options):
    """Runner, unit and callback as ``fairchem -c`` would make them; with ``start``, training has begun."""
    torch.manual_seed(seed)
    cfg = compose(stores, run_dir, *overrides, **options)
    runner = hydra.utils.instantiate(cfg.runner)
    runner.job_config = cfg.job
    runner._set_runner_callbacks(runner.callbacks)
    unit = runner.train_eval_unit
    callback = next(c for c in runner.callbacks if type(c).__name__ == "HintCallback")
    state = State(
        entry_point=EntryPoint.FIT,
        train_state=PhaseState(
            dataloader=runner.train_dataloader, max_epochs=runner.max_epochs, max_steps=runner.max_steps
        ),
        eval_state=PhaseState(dataloader=runner.eval_dataloader),
    )
    run = SimpleNamespace(runner=runner, unit=unit, callback=callback, state=state, config=cfg)
    if start:
        begin(run)
    return run


def steps(run, count: int) -> list[float]:
    """Some steps of the host's loop with their losses, then a validation."""
    loader, values, epoch = run.runner.train_dataloader, [], 0
    run.hessian_losses = []
    while len(values) < count:
        loader.batch_sampler.set_epoch_and_start_iteration(epoch, 0)
        run.callback.on_train_epoch_start(run.state, run.unit)
        for data in loader:
            run.callback.on_train_step_start(run.state, run.unit)
            run.unit.train_step(run.state, data)
            run.unit.train_progress.increment_step()
            run.callback.on_train_step_end(run.state, run.unit)
            values.append(float(run.unit.last_loss))
            run.hessian_losses.append(float(run.callback.last_loss))
            if len(values) == count:
                break
        else:
            run.unit.train_progress.increment_epoch()
            epoch += 1
    run.unit.on_eval_epoch_start(run.state)
    with torch.no_grad():
        for data in run.runner.eval_dataloader:
            run.unit.eval_step(run.state, data)
        run.unit.on_eval_epoch_end(run.state)
        run.callback.on_eval_epoch_end(run.state, run.unit)
    return values


def save(run, path: Path) -> Path:
    """The file that the host writes at a checkpoint."""
    unit = run.config.runner.train_eval_unit
    averaged = run.unit.ema_model.state_dict()
    torch.save(
        MLIPInferenceCheckpoint(
            model_state_dict=inner_model(run.unit.model).state_dict(),
            ema_state_dict={name.replace("module.module.", "module."): value for name, value in averaged.items()},
            model_config=unit.model,
            tasks_config=unit.tasks,
        ),
        path,
    )
    return path


def begin(run) -> None:
    """What the host does before the first step."""
    run.unit.on_train_start(run.state)
    run.callback.on_train_start(run.state, run.unit)


def run_cli(config: Path, *overrides: str) -> None:
    """``fairchem -c config overrides`` in this process."""
    main(SimpleNamespace(config=str(config)), list(overrides))
