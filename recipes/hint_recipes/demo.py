"""Does training on Hessians pay? One small, honest comparison on real GFN2-xTB labels.

Geometries along and around small reactions are labelled with ``hint label``; MACE's own trainer then trains the same
model twice on the same structures, with energies and forces (E/F) and with Hessians besides (E/F/H); both are
evaluated on held-out structures of the same reactions.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase import Atoms
from ase.io import read, write

from hint_plugins.datasets.minireactions import geometries
from hint_plugins.errors import InputError
from hint_plugins.runs.devices import training_device
from hint_plugins.runs.files import replacing, write_csv, write_json
from hint_plugins.runs.processes import end_all, run_logged

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
ERRORS = {
    "hessian_mae": "Hessian MAE (eV/Å²)",
    "eigenvalue_mae": "eigenvalue MAE (eV/Å²)",
    "frequency_mae_cm1": "frequency MAE (cm⁻¹)",
    "forces_mae": "force MAE (eV/Å)",
    "energy_mae_per_atom": "energy MAE (eV/atom)",
}


#: Names of the errors in the tables that are written, with their units.
KEYS = {
    "hessian_mae": "hessian_mae_eV_per_A2",
    "eigenvalue_mae": "eigenvalue_mae_eV_per_A2",
    "frequency_mae_cm1": "frequency_mae_cm1",
    "forces_mae": "forces_mae_eV_per_A",
    "energy_mae_per_atom": "energy_mae_eV_per_atom",
}
#: The two trainings: name in tables, colour, and what it means.
KINDS = (
    ("E/F", "C1", "trained on energies and forces (E/F)"),
    ("E/F/H", "C0", "trained on energies, forces and Hessians (E/F/H)"),
)


@dataclass(frozen=True)
class DemoSettings:
    """Size of the comparison.

    Attributes
    ----------
    structures
        Training structures a reaction.
    labelled
        How many of them carry a Hessian.
    steps
        Optimiser steps of each training, so that trainings of different size see as many batches.
    weight
        Hessian weight w_H after the ramp.
    probes
        Random probes a labelled structure and step.
    model
        MACE, or a model that a plugin offers (AlphaNet).
    """

    structures: int = 6
    labelled: int = 6
    steps: int = 1000
    weight: float = 0.1
    probes: int = 5
    batch_size: int = 6
    model: str = "MACE"


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
            if rank >= settings.labelled:
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


def train_and_evaluate(
    out: Path, settings: DemoSettings, seed: int, hessians: bool, parts: dict, device: str | None = None
) -> dict[str, Any]:
    """One training and its errors on the test set; what is finished is not done again."""
    name = "efh" if hessians else "ef"
    directory = out / f"{settings.model.lower()}-n{settings.structures}-h{settings.labelled}-seed{seed}" / name
    done, record = directory / "evaluation" / "summary.json", directory / "settings.json"
    if record.exists() and json.loads(record.read_text()) != asdict(settings):
        raise InputError(f"{directory} holds a training with other settings: choose another --out, or remove it")
    write_json(record, asdict(settings))
    if not done.exists():
        device = training_device(device)
        train(directory, name, settings, seed, hessians, parts, device)
        words = ["evaluate", f"{name}.model", "test.xyz", "--out", "evaluation", "--overwrite", "--device", device]
        run_logged([tool("hint"), *words], directory)
    errors = json.loads(done.read_text())
    row: dict[str, Any] = {"training": "E/F/H" if hessians else "E/F", "seed": seed, **asdict(settings)}
    return row | {key: errors[key] for key in ERRORS}


def run_demo(
    out: Path, sizes: Sequence[DemoSettings], seeds: Sequence[int], workers: int = 2, device: str | None = None
) -> list[dict[str, Any]]:
    """All trainings, several at a time; one row each.

    Parameters
    ----------
    out
        Directory; a run that was stopped continues in it.
    sizes
        Sizes of the comparison (one, or the points of a curve).
    seeds
        Seeds of model, order and choice of training structures.
    workers
        Trainings at a time, one thread each.
    device
        Of trainings and evaluations (:data:`hint_plugins.runs.devices.TRAINER`); by default the GPU when there is one.
    """
    labels = make_labels(out, workers)
    jobs = [(size, seed, hessians) for seed in seeds for size in sizes for hessians in (True, False)]
    pool = ThreadPoolExecutor(workers)
    try:
        futures = [
            pool.submit(train_and_evaluate, out, size, seed, hessians, split(labels, size, seed), device)
            for size, seed, hessians in jobs
        ]
        rows = [future.result() for future in futures]
    except BaseException as error:
        if not isinstance(error, Exception):  # Ctrl-C: nobody waits for the trainings under way
            end_all()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    write_csv(out / "errors.csv", with_units(rows))
    return rows


def with_units(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows whose errors are called by :data:`KEYS`."""
    return [{KEYS.get(key, key): value for key, value in row.items()} for row in rows]


def compare(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds, and the ratio E/F/H : E/F, by size."""
    out = []
    for size in sorted({(row["structures"], row["labelled"]) for row in rows}):
        for key in ERRORS:
            values = {
                kind: np.array(
                    [r[key] for r in rows if (r["structures"], r["labelled"]) == size and r["training"] == kind]
                )
                for kind in ("E/F", "E/F/H")
            }
            plain, ours = values["E/F"], values["E/F/H"]
            out.append(
                {
                    "structures": size[0],
                    "labelled": size[1],
                    "error": key,
                    "quantity": ERRORS[key],
                    "ef": plain.mean(),
                    "ef_std": plain.std(),
                    "efh": ours.mean(),
                    "efh_std": ours.std(),
                    "ratio": ours.mean() / plain.mean(),
                }
            )
    return out


def sentences(table: list[dict[str, Any]]) -> list[str]:
    """What the rows of :func:`compare` say, in words: what gets better and what gets worse with Hessians."""
    lines = []
    for size in dict.fromkeys((row["structures"], row["labelled"]) for row in table):
        mine = [row for row in table if (row["structures"], row["labelled"]) == size]
        lines.append(f"With Hessians in training ({size[0]} structures per reaction, {size[1]} with a Hessian),")
        for row in mine:
            name, _, unit = ERRORS[row["error"]].removesuffix(")").partition(" (")
            change = "falls" if row["ratio"] < 1 else "rises"
            values = f"from {row['ef']:.3g} to {row['efh']:.3g} {unit}"
            lines.append(f"  the {name} {change} {values}, {row['ratio']:.2f} times as much")
    return lines


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Held-out errors with and without Hessians: bars for one size of the training set, lines for several."""
    from hint_plugins.runs.figures import legend_below, new_figure, save_figure, three_digits

    sizes = sorted({(row["structures"], row["labelled"]) for row in rows})
    figure, panels = new_figure(2.6 * len(ERRORS), 3.4, ncols=len(ERRORS))
    for axes, (key, label) in zip(panels, ERRORS.items(), strict=True):
        for place, (kind, colour, name) in enumerate(KINDS):
            mine = [row for row in rows if row["training"] == kind]
            means = [np.mean([r[key] for r in mine if (r["structures"], r["labelled"]) == size]) for size in sizes]
            if len(sizes) == 1:
                bar = axes.bar([place], means, 0.7, color=colour, label=name)
                axes.bar_label(bar, fmt=three_digits, padding=2, fontsize=9)
                places = [place] * len(mine)
            else:
                axes.plot([n for n, _ in sizes], means, color=colour, label=name)
                places = [row["structures"] for row in mine]
            if len(mine) > len(sizes):  # several seeds
                dots = {"color": "0.2" if len(sizes) == 1 else colour, "s": 12, "zorder": 3}
                axes.scatter(places, [row[key] for row in mine], **dots)
        if len(sizes) == 1:
            axes.set(xticks=range(len(KINDS)), xticklabels=[kind for kind, _, _ in KINDS], xlabel="training on")
        else:
            axes.set(xticks=[n for n, _ in sizes], xlabel="training structures\nper reaction")
        axes.set(ylabel=label, ylim=(0, 1.15 * axes.get_ylim()[1]))
    figure.suptitle("Errors on held-out structures of the same reactions", fontsize=11)
    legend_below(figure)
    save_figure(figure, path)


def tool(name: str) -> str:
    """Path of a command of this environment."""
    return str(Path(sys.executable).parent / name)
