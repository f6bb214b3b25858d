"""Labels, split and the two trainings of the comparison: the commands a user would give."""

from __future__ import annotations

import json
import shlex
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase import Atoms
from ase.io import read, write

from hint_plugins.datasets.minireactions import geometries
from hint_plugins.errors import InputError
from hint_plugins.runs.devices import training_device
from hint_plugins.runs.files import replacing, write_json
from hint_plugins.runs.processes import run_logged
from hint_recipes.demo.settings import DemoSettings
from hint_recipes.demo.tables import ERRORS

#: Reactions of 3 to 7 atoms of H, C, N, O.
REACTIONS = (
    "hydrogen cyanide",
    "vinyl alcohol",
    "formaldehyde = hydroxycarbene",
    "formaldehyde = hydrogen",
    "formic acid = carbon monoxide",
    "methanol",
    "oxirane",
)
#: Held-out and validation structures a reaction.
TEST, VALID = 10, 2
#: Size and learning rate of each model.
MODELS: dict[str, dict[str, Any]] = {
    "MACE": {"hidden_irreps": "16x0e+16x1o", "MLP_irreps": "16x0e", "max_ell": 2, "correlation": 2, "lr": 0.01},
    "AlphaNet": {"alphanet_config": "net.yaml", "lr": 0.002},
}
ALPHANET = {"hidden_channels": 64, "num_layers": 3, "main_chi1": 8, "mp_chi1": 16, "chi2": 4, "frame_channels": 16}


def make_geometries(path: Path, seed: int = 0) -> None:
    """Write the unlabelled geometries: 44 a reaction, around its minimum-energy path."""
    frames = list(geometries(names=list(REACTIONS), images=6, samples=3, temperature=600.0, seed=seed))
    with replacing(path) as temporary:
        write(temporary, frames, format="extxyz")


def make_labels(out: Path, workers: int) -> Path:
    """Label the geometries with ``hint label`` (GFN2-xTB); resumes what was begun."""
    structures, labels = out / "geometries.xyz", out / "labels.xyz"
    if not structures.exists():
        make_geometries(structures)
    if not labels.exists():
        run_logged([tool("hint"), "label", structures.name, labels.name, "--engine", "xtb", "--workers", workers], out)
    return labels


def split(labels: Path, settings: DemoSettings, seed: int) -> dict[str, list[Atoms]]:
    """Train, validation and test structures of every reaction; the first ``labelled`` keep their Hessians.

    The test structures are the same for every size of the training set and every seed.
    """
    groups: dict[str, list[Atoms]] = defaultdict(list)
    for atoms in read(labels, ":"):
        atoms.calc = None
        groups[atoms.info["reaction"]].append(atoms)
    parts: dict[str, list[Atoms]] = {"train": [], "valid": [], "test": []}
    fixed, rng = np.random.default_rng(0), np.random.default_rng([1, seed])
    for frames in groups.values():
        order = fixed.permutation(len(frames))
        parts["test"] += [frames[i] for i in order[:TEST]]
        rest = rng.permutation(order[TEST:])
        parts["valid"] += [frames[i] for i in rest[:VALID]]
        for rank, i in enumerate(rest[VALID : VALID + settings.structures]):
            atoms = frames[i].copy()
            if settings.labelled is not None and rank >= settings.labelled:
                atoms.info.pop("REF_hessian")
            parts["train"].append(atoms)
    return parts


def training_command(
    name: str, settings: DemoSettings, num_train: int, seed: int, hessians: bool, device: str = "cpu"
) -> list[str]:
    """The literal command that is run."""
    per_epoch = max(1, num_train // settings.batch_size)
    epochs = max(1, round(settings.steps / per_epoch))
    words = [tool("mace_run_train"), "--name", name, "--train_file", "train.xyz", "--valid_file", "valid.xyz"]
    options: dict[str, Any] = {
        "E0s": "average",
        "model": settings.model,
        "r_max": 4.0,
        "energy_key": "REF_energy",
        "forces_key": "REF_forces",
        "energy_weight": 4,
        "forces_weight": 100,
        "batch_size": settings.batch_size,
        "valid_batch_size": 14,
        "max_num_epochs": epochs,
        "eval_interval": max(1, epochs // 20),
        "scheduler_patience": 6,
        "patience": 10_000,
        "ema_decay": 0.99,
        "default_dtype": "float32",
        "device": device,
        "seed": seed,
        "error_table": "PerAtomMAE",
        "plot": False,
    }
    options |= MODELS.get(settings.model, {})
    if hessians or settings.model != "MACE":
        options |= {"plugins": "hint", "hessian_weight": settings.weight if hessians else 0.0}
    if hessians:
        options |= {"hessian_ramp_end": epochs // 3, "hessian_metrics": "probes", "hessian_num_probes": settings.probes}
        # an engine that is chosen by its speed changes the last digits; on a GPU some kernels are never deterministic
        options["hessian_reproducible"] = device == "cpu"
    for key, value in options.items():
        words += [f"--{key}", str(value)]
    return [*words, "--ema", "--amsgrad"]


def train(
    directory: Path,
    name: str,
    settings: DemoSettings,
    seed: int,
    hessians: bool,
    parts: dict,
    device: str | None = None,
) -> None:
    """Train ``name``.model in ``directory``; data, command and log are kept there.

    ``device`` is one of :data:`hint_plugins.runs.devices.TRAINER`, by default the GPU when there is one.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for part, frames in parts.items():
        write(directory / f"{part}.xyz", frames, format="extxyz")
    (directory / "net.yaml").write_text(yaml.safe_dump(ALPHANET))
    command = training_command(name, settings, len(parts["train"]), seed, hessians, training_device(device))
    (directory / "command.txt").write_text(shlex.join(command) + "\n")
    run_logged(command, directory)


def training_directory(out: Path, settings: DemoSettings, seed: int, hessians: bool) -> Path:
    """Where one training lies; its last part is the name of the model."""
    size = f"{settings.model.lower()}-n{settings.structures}-h{settings.labelled}-seed{seed}"
    return out / size / ("efh" if hessians else "ef")


def train_and_evaluate(
    out: Path, settings: DemoSettings, seed: int, hessians: bool, parts: dict, device: str | None = None
) -> dict[str, Any]:
    """One training and its errors on the test set; what is finished is not done again."""
    directory = training_directory(out, settings, seed, hessians)
    name = directory.name
    done, record = directory / "evaluation" / "summary.json", directory / "settings.json"
    if record.exists() and json.loads(record.read_text()) != settings.model_dump():
        raise InputError(f"{directory} holds a training with other settings: choose another --out, or remove it")
    write_json(record, settings.model_dump())
    if not done.exists():
        device = training_device(device)
        train(directory, name, settings, seed, hessians, parts, device)
        words = ["evaluate", f"{name}.model", "test.xyz", "--out", "evaluation", "--overwrite", "--device", device]
        run_logged([tool("hint"), *words], directory)
    errors = json.loads(done.read_text())
    row: dict[str, Any] = {"training": "E/F/H" if hessians else "E/F", "seed": seed, **settings.model_dump()}
    return row | {key: errors[key] for key in ERRORS}


def tool(name: str) -> str:
    """Path of a command of this environment."""
    return str(Path(sys.executable).parent / name)
