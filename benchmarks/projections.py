"""Train on five stored projections a structure, on whole Hessians, and on neither: the same structures and seeds.

    python benchmarks/projections.py DIR [--epochs 40] [--structures 40]

Prints a table of errors on held-out structures and of what the labels cost in gradients.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from hint_plugins.datasets.minireactions import geometries
from hint_plugins.labels.store import read_structures, write_structures

BIN = Path(sys.executable).parent
REACTIONS = ["hydrogen isocyanide", "hydroxycarbene"]


def run(directory: Path, *command: object) -> None:
    with (directory / "log.txt").open("a") as log:
        subprocess.run([str(c) for c in command], cwd=directory, check=True, stdout=log, stderr=log)


def make_data(directory: Path, structures: int) -> dict[str, int]:
    """Label the same training structures in both ways; returns the gradients that each kind took."""
    frames = list(geometries(names=REACTIONS, images=6, samples=6, seed=0))
    order = np.random.default_rng(0).permutation(len(frames))
    parts = {"train": order[:structures], "valid": order[-20:-10], "test": order[structures : structures + 30]}
    for name, chosen in parts.items():
        write_structures(directory / f"{name}.xyz", [frames[i] for i in chosen])
        run(directory, BIN / "hint", "label", f"{name}.xyz", f"{name}_full.xyz")
    run(directory, BIN / "hint", "label", "train.xyz", "train_projections.xyz", "--kind", "projections")
    return {
        kind: sum(int(a.info["label_gradients"]) for a in read_structures(directory / f"train_{kind}.xyz"))
        for kind in ("full", "projections")
    } | {"none": structures}


def train(directory: Path, kind: str, epochs: int) -> dict[str, float]:
    """Train and evaluate one model."""
    data = "train_full.xyz" if kind == "none" else f"train_{kind}.xyz"
    hessian = {
        "plugins": "hint",
        "hessian_weight": 0.0 if kind == "none" else 0.1,
        "hessian_num_probes": 5,
        "hessian_ramp_end": epochs // 4,
        "hessian_engine": "vmap",
        "hessian_selftest": False,
        "hessian_metrics": "none",
    }
    options = {
        "name": kind,
        "train_file": data,
        "valid_file": "valid_full.xyz",
        "E0s": "average",
        "model": "ScaleShiftMACE",
        "hidden_irreps": "16x0e+16x1o",
        "MLP_irreps": "16x0e",
        "r_max": 4.0,
        "num_interactions": 2,
        "correlation": 2,
        "max_ell": 2,
        "batch_size": 5,
        "max_num_epochs": epochs,
        "eval_interval": max(1, epochs // 5),
        "lr": 0.01,
        "energy_key": "REF_energy",
        "forces_key": "REF_forces",
        "default_dtype": "float64",
        "device": "cpu",
        "seed": 1,
        "plot": False,
        **({} if kind == "none" else hessian),
    }
    flags = [item for name, value in options.items() for item in (f"--{name}", value)]
    run(directory, BIN / "mace_run_train", *flags)
    run(directory, BIN / "hint", "evaluate", f"{kind}.model", "test_full.xyz", "--out", f"eval_{kind}", "--overwrite")
    return json.loads((directory / f"eval_{kind}" / "summary.json").read_text())


def main() -> None:
    """Make the data, train three times, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--structures", type=int, default=40)
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    gradients = make_data(arguments.directory, arguments.structures)
    print("| labels | gradients | forces MAE eV/A | Hessian MAE eV/A^2 | eigenvalue MAE eV/A^2 | frequency MAE 1/cm |")
    print("|---|---|---|---|---|---|")
    for kind in ("none", "projections", "full"):
        found = train(arguments.directory, kind, arguments.epochs)
        cells = [f"{found[key]:.4g}" for key in ("forces_mae", "hessian_mae", "eigenvalue_mae", "frequency_mae_cm1")]
        print(f"| {kind} | {gradients[kind]} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
