"""The command line of MACE's trainer for a run of the study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matrix import Run

from hint_plugins.training.sampler import HeterogeneousBatchSampler

#: Small enough for two cores: about 180,000 (AlphaNet) and 40,000 (MACE) parameters.
MODELS: dict[str, dict[str, Any]] = {
    "alphanet": {"model": "AlphaNet", "alphanet_config": "net.yaml", "lr": 0.002, "batch_size": 8},
    "mace": {
        "model": "ScaleShiftMACE",
        "hidden_irreps": "32x0e+32x1o",
        "MLP_irreps": "16x0e",
        "max_ell": 2,
        "correlation": 2,
        "lr": 0.01,
        "batch_size": 8,
    },
}
NETWORK = {"hidden_channels": 64, "num_layers": 3, "main_chi1": 8, "mp_chi1": 16, "chi2": 4, "frame_channels": 16}
COMMON: dict[str, Any] = {
    "plugins": "hint,cost",
    "energy_key": "REF_energy",
    "forces_key": "REF_forces",
    "hessian_key": "REF_hessian",
    "energy_weight": 4,
    "forces_weight": 100,
    "r_max": 4.5,
    "valid_batch_size": 16,
    "patience": 100_000,
    "scheduler": "ExponentialLR",
    "ema_decay": 0.99,
    "default_dtype": "float32",
    "error_table": "PerAtomMAE",
    "plot": False,
    "hessian_metrics": "probes",
    "hessian_reproducible": True,
}
#: The learning rate at the end of a run is this part of the first.
LAST_RATE = 0.02
#: Validations in a run.
VALIDATIONS = 20
#: A fine-tuning begins with this part of the learning rate.
TUNING = 0.25


def sampler(run: Run, labelled: Sequence[bool], batch_size: int) -> HeterogeneousBatchSampler:
    """The batches that the plugin will make, which count steps and products of an epoch."""
    half = {"fraction": 0.5} if run.share and run.batches != "plain" else {}
    recycle = bool(half) and run.batches == "recycle"
    return HeterogeneousBatchSampler(labelled, batch_size, recycle=recycle, seed=run.seed, **half)


def epoch_cost(run: Run, labelled: Sequence[bool], batch_size: int) -> tuple[int, int]:
    """Steps and products of one epoch."""
    batches = sampler(run, labelled, batch_size).global_batches()
    return len(batches), run.m * sum(labelled[i] for batch in batches for i in batch) if run.share else 0


def epochs(run: Run, labelled: Sequence[bool], batch_size: int, cpu_per_epoch: float | None = None) -> int:
    """Epochs that the budget of a run pays for, rounded, at least one."""
    kind, amount = run.limit
    steps, products = epoch_cost(run, labelled, batch_size)
    if kind == "cpu":
        assert cpu_per_epoch is not None, "measured beforehand"
        each = cpu_per_epoch
    else:
        each = float(steps if kind == "steps" else products)
    return max(1, round(amount / each))


def training_words(
    name: str,
    model: str,
    *,
    files: tuple[Path, Path],
    e0s: Path,
    num_epochs: int,
    seed: int,
    device: str,
    hessian: dict[str, Any],
    start: Path | None = None,
    sizes: dict[str, Any] | None = None,
) -> list[str]:
    """Words of ``mace_run_train``.

    Parameters
    ----------
    name
        Of the run.
    model
        A key of :data:`MODELS`.
    files
        Training and validation structures.
    e0s
        JSON file with the energies of the elements, eV.
    num_epochs, seed, device
        Of the run.
    hessian
        Options of the plugin.
    start
        Model to start from: a quarter of the learning rate then.
    sizes
        Options that replace those of the model.
    """
    own = MODELS[model] | (sizes or {})
    own.pop("network", None)
    values = COMMON | own | {
        "name": name,
        "train_file": files[0],
        "valid_file": files[1],
        "E0s": e0s,
        "max_num_epochs": num_epochs,
        "eval_interval": max(1, num_epochs // VALIDATIONS),
        "lr_scheduler_gamma": LAST_RATE ** (1 / max(1, num_epochs)),
        "seed": seed,
        "device": device,
        **hessian,
    }  # fmt: skip
    if start is not None:
        values["lr"] = TUNING * values["lr"]
        if model == "mace":
            values |= {"foundation_model": start, "multiheads_finetuning": False, "E0s": "foundation"}
        else:
            values["alphanet_checkpoint"] = start
    words = ["mace_run_train"]
    for key, value in values.items():
        words += [f"--{key}", str(value)]
    return [*words, "--ema", "--amsgrad", "--restart_latest"]


def hessian_options(run: Run, num_epochs: int) -> dict[str, Any]:
    """The plugin's options of a run."""
    if not run.share:
        return {"hessian_weight": 0.0}
    values: dict[str, Any] = {
        "hessian_weight": run.weight,
        "hessian_num_probes": run.m,
        "hessian_probes": "rademacher" if run.law == "stored" else run.law,
        "hessian_loss": run.loss,
    }
    if run.curriculum == "constant":
        values |= {"hessian_weight_start": run.weight, "hessian_schedule": "constant"}
    else:
        values["hessian_ramp_end"] = math.ceil(num_epochs / 2)
    if run.batches != "plain":
        values |= {"hessian_batch_fraction": 0.5, "hessian_recycle": run.batches == "recycle"}
    return values


def network(matrix_sizes: dict[str, Any] | None) -> dict[str, Any]:
    """AlphaNet's sizes."""
    return NETWORK | (matrix_sizes or {}).get("network", {})
