"""The HINT recipe for crystals as one command: training set, MACE's trainer with the hint plugin, checks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hint_plugins.errors import InputError
from hint_plugins.runs.devices import training_device
from hint_plugins.runs.directory import write_summary
from hint_plugins.runs.files import write_json
from hint_plugins.runs.processes import run
from hint_recipes.crystals.finetune.check import check
from hint_recipes.crystals.finetune.data import build, cell_label, read_labelled, write
from hint_recipes.crystals.inputs import load_potential, read_crystal
from hint_recipes.crystals.phonons.harmonic import read_force_constants

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
    from tqdm import tqdm

    ended = threading.Event()
    with tqdm(total=epochs, unit="epoch", desc=f"training {name}", disable=None) as bar:

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


def run_finetune(
    cell: Path,
    out: Path,
    *,
    hessian: Path,
    cells: Path | Sequence[Path],
    cell_energy: float | None = None,
    test: Path | None = None,
    scan: Path | None = None,
    compare_without: bool = False,
    epochs: int = 500,
    valid_fraction: float = 0.1,
    max_energy: float | None = 4.0,
    copies: int = 1,
    foundation: Path | None = None,
    device: str | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    prepare_only: bool = False,
) -> dict[str, Any]:
    """Training set, training with (and for comparison without) Hessians, checks; options as in the command's help.

    Returns
    -------
    dict
        What ``summary.json`` holds.

    Raises
    ------
    InputError
        For files that do not fit, for a device that is not there, and where neither ``cell_energy`` nor a label in
        ``cell`` gives the energy of the undisplaced cell.
    """
    device = training_device(device)
    if foundation is not None and not Path(foundation).is_file():
        raise InputError(f"--foundation {foundation}: no such file")
    crystal = read_crystal(cell)
    cell_energy, cell_stress = cell_label(cell, cell_energy)
    constants = read_force_constants(hessian, crystal, any_cell=True)
    files = [cells] if isinstance(cells, str | Path) else cells
    labelled = [atoms for file in files for atoms in read_labelled(file)]
    held = read_labelled(test) if test is not None else []
    scanned = read_labelled(scan) if scan is not None else []
    kinds = {"hint": True} | ({"plain": False} if compare_without else {})
    summary: dict[str, Any] = {"models": {}, "n_cells": len(labelled)}
    potentials = {}
    for name, hessians in kinds.items():
        data = build(
            constants,
            labelled,
            cell_energy=cell_energy,
            cell_stress=cell_stress,
            hessians=hessians,
            valid_fraction=valid_fraction,
            max_energy=max_energy,
            copies=copies,
            seed=seed,
        )
        directory = out / name
        directory.mkdir(exist_ok=True)
        earlier = _earlier(directory)
        train, valid = write(data, directory)
        stress = all("REF_stress" in a.info for a in data.train if a.info["config_type"] != "equilibrium")
        if not stress:
            print(
                "hint: some displaced cells carry no stress: the model is trained without, so its pressures are wrong"
            )
        command = trainer_command(
            train, valid, name=name, epochs=epochs, seed=seed, device=device, hessians=hessians,
            foundation=foundation, stress=stress, options=_only(options, hessians),
        )  # fmt: skip
        now = {"command": ["mace_run_train", *command], "data": _digest(train, valid)}
        if earlier is not None and _elsewhere(earlier) != _elsewhere(now):
            raise InputError(
                f"{directory} holds a training with other data or options: choose another --out, or add --overwrite"
            )
        write_json(directory / "command.json", now)
        summary["skipped_cells"] = data.skipped
        summary["n_train"] = len(data.train)
        if not prepare_only:
            model = train_model(command, directory, name, epochs)
            potentials[name] = load_potential(str(model), device, "float64")
            summary["models"][name] = {"file": model}
    if potentials:
        found = check(
            potentials, constants, out, cell_energy=cell_energy, cell_stress=cell_stress, test=held, scan=scanned
        )
        for name, values in found.pop("models").items():
            summary["models"][name].update(values)
        summary.update(found)
    write_summary(out, summary)
    for name, values in summary["models"].items():
        print(f"{name}: {describe(values)}")
    print(f"results are in {out}")
    return summary


def describe(values: Mapping[str, Any]) -> str:
    """The checks of one model in a line."""
    parts = [
        f"frequencies off by {values['frequency_mae_cm1']:.1f} cm^-1 (at most {values['frequency_max_error_cm1']:.1f})"
    ]
    if "pressure_error_GPa" in values:
        parts.append(f"pressure of the undisplaced cell off by {values['pressure_error_GPa']:+.2f} GPa")
    if "held_out" in values:
        parts.append(f"held-out forces off by {values['held_out']['forces_mae']:.3f} eV/A")
        if "stress_mae_GPa" in values["held_out"]:
            parts.append(f"held-out stresses by {values['held_out']['stress_mae_GPa']:.2f} GPa")
    return ", ".join(parts)


def _digest(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _earlier(directory: Path) -> dict[str, Any] | None:
    """What a training that began in ``directory`` was made with."""
    record = directory / "command.json"
    began = any(directory.glob("*.model")) or any(directory.glob("checkpoints/*"))
    return json.loads(record.read_text()) if began and record.is_file() else None


def _elsewhere(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a training without its device, on which it may be continued elsewhere."""
    return {**record, "command": [word for word in record["command"] if not word.startswith("--device=")]}


def _only(options: Mapping[str, Any] | None, hessians: bool) -> dict[str, Any]:
    """Without the plugin its options must not reach the trainer."""
    return {k: v for k, v in (options or {}).items() if hessians or not k.startswith("hessian")}
