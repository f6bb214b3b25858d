"""MACE's trainer for one crystal: its command line, and its run."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hint_plugins.errors import InputError
from hint_plugins.runs.processes import run
from hint_plugins.runs.progress import progress_bar

#: MACE's options for a small model that two dozen cells can train; ``--option`` overrides them.
SETTINGS: dict[str, Any] = {
    "model": "MACE",
    "hidden_irreps": "32x0e + 32x1o",
    "r_max": 4.5,
    "num_interactions": 2,
    "correlation": 3,
    "batch_size": 4,
    "valid_batch_size": 4,
    "lr": 0.01,
    "weight_decay": 5e-7,
    "ema": True,
    "ema_decay": 0.99,
    "amsgrad": True,
    "E0s": "average",
    "energy_weight": 4.0,
    "forces_weight": 100.0,
    "stress_weight": 100.0,
    "loss": "stress",
    "compute_stress": True,
    "error_table": "PerAtomMAE",
    "default_dtype": "float64",
}
#: Options of HINT; with a tenth of the weight (the paper's) PdH's Hessian error was four times higher.
HINT: dict[str, Any] = {"hessian_weight": 1.0, "hessian_num_probes": 5, "hessian_metrics": "probes"}


def trainer_command(
    train: Path,
    valid: Path,
    *,
    name: str,
    epochs: int,
    seed: int,
    device: str = "cpu",
    hessians: bool = True,
    foundation: Path | None = None,
    stress: bool = True,
    options: Mapping[str, Any] | None = None,
) -> list[str]:
    """The ``mace_run_train`` command line.

    Parameters
    ----------
    train, valid
        extxyz files of :mod:`hint_recipes.crystals.finetune.data`.
    name
        Name of the model file.
    epochs, seed, device
        Options of the trainer; the learning rate falls to a hundredth of its first value.
    hessians
        Train with ``--plugins hint``.
    foundation
        Local model to start from, of MACE or (with ``model`` among the options) AlphaNet.
    stress
        Train on stresses.
    options
        Further options, which override :data:`SETTINGS` and :data:`HINT`.
    """
    values = {
        "name": name,
        "train_file": train.name,
        "valid_file": valid.name,
        "energy_key": "REF_energy",
        "forces_key": "REF_forces",
        "stress_key": "REF_stress",
        "max_num_epochs": epochs,
        "eval_interval": max(1, min(10, epochs // 10)),  # MACE keeps the best model of those it evaluates
        "scheduler": "ExponentialLR",
        "lr_scheduler_gamma": round(0.01 ** (1 / epochs), 6),
        "seed": seed,
        "device": device,
        **SETTINGS,
    }
    if not stress:
        values.update(loss="weighted", compute_stress=False)
    if foundation is not None:
        weights = str(Path(foundation).resolve())
        if (options or {}).get("model") == "AlphaNet":  # its cutoff must be given, and is checked
            values["alphanet_checkpoint"] = weights
        else:
            values["foundation_model"] = weights
            for key in ("model", "hidden_irreps", "r_max", "num_interactions", "correlation"):
                values.pop(key)
    if hessians:
        values.update(plugins="hint", **HINT, hessian_ramp_end=epochs / 2)
    values.update(options or {})
    words = []
    for key, value in values.items():
        if value is True and key in ("ema", "amsgrad"):
            words.append(f"--{key}")
        elif value is not None and not (value is False and key in ("ema", "amsgrad")):
            words.append(f"--{key}={value}")
    return words


def train_model(command: Sequence[str], directory: Path, name: str, epochs: int | None = None) -> Path:
    """Run ``mace_run_train`` in ``directory``; a finished model there is kept. With ``epochs`` progress is shown.

    Returns
    -------
    Path
        The model file.

    Raises
    ------
    InputError
        If the trainer is not installed or fails; its output is in ``NAME.out``.
    """
    model, log = directory / f"{name}.model", directory / f"{name}.out"
    if model.exists():
        return model
    program = Path(sys.executable).with_name("mace_run_train")
    found = str(program) if program.exists() else shutil.which("mace_run_train")
    if found is None:
        raise InputError("mace_run_train is not installed: pip install 'hint-plugins[mace]'")
    with log.open("w") as handle, _epochs_shown(log, name, epochs):
        status = run([found, *command, "--restart_latest"], cwd=directory, output=handle)
    if status or not model.exists():
        tail = "\n".join(log.read_text().splitlines()[-5:])
        raise InputError(f"mace_run_train failed (status {status}); last lines of {log}:\n{tail}")
    return model


@contextlib.contextmanager
def _epochs_shown(log: Path, name: str, epochs: int | None) -> Iterator[None]:
    """A progress bar over the epochs that the trainer's output reports."""
    if epochs is None:
        yield
        return
    ended = threading.Event()
    with progress_bar(epochs, f"training {name}", "epoch") as bar:

        def follow() -> None:
            while not ended.wait(1.0):
                reported = re.findall(r"Epoch (\d+): ", log.read_text(errors="replace"))
                if reported:
                    bar.update(int(reported[-1]) + 1 - bar.n)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
