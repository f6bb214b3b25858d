"""Train on five stored projections a structure, on whole Hessians, and on neither: the same structures and seeds.

    python benchmarks/projections.py DIR [--epochs 40] [--structures 40] [--seeds 1 2 3]

A seed fixes the training structures, the model's first weights and the order of batches; the test structures are
always the same. Prints a table of errors on the test structures (mean and standard deviation over the seeds) and of
what the labels cost in gradients. What is finished is not done again; a directory with results of other options is
refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from hint_plugins.datasets.minireactions import geometries
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.processes import run_logged
from hint_plugins.storage.store import read_structures, write_structures

BIN = Path(sys.executable).parent
REACTIONS = ["hydrogen isocyanide", "hydroxycarbene"]
KINDS = ("none", "projections", "full")
ERRORS = ("forces_mae", "hessian_mae", "eigenvalue_mae", "frequency_mae_cm1")
TEST, VALID = 30, 10


def make_data(directory: Path, structures: int, seed: int) -> dict[str, int]:
    """Label the same training structures in both ways; returns the gradients that each kind took."""
    frames = list(geometries(names=REACTIONS, images=6, samples=6, seed=0))
    fixed = np.random.default_rng(0).permutation(len(frames))
    rest = np.random.default_rng([1, seed]).permutation(fixed[TEST:])
    parts = {"test": fixed[:TEST], "valid": rest[:VALID], "train": rest[VALID : VALID + structures]}
    for name, chosen in parts.items():
        write_structures(directory / f"{name}.xyz", [frames[i] for i in chosen])
        run_logged([BIN / "hint", "label", f"{name}.xyz", f"{name}_full.xyz"], directory)
    run_logged([BIN / "hint", "label", "train.xyz", "train_projections.xyz", "--kind", "projections"], directory)
    return {
        kind: sum(int(a.info["label_gradients"]) for a in read_structures(directory / f"train_{kind}.xyz"))
        for kind in ("full", "projections")
    } | {"none": structures}


def train(directory: Path, kind: str, epochs: int, seed: int) -> dict[str, float]:
    """Train and evaluate one model."""
    done = directory / f"eval_{kind}" / "summary.json"
    if done.exists():
        return json.loads(done.read_text())
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
        "seed": seed,
        "plot": False,
        **({} if kind == "none" else hessian),
    }
    flags = [item for name, value in options.items() for item in (f"--{name}", value)]
    run_logged([BIN / "mace_run_train", *flags], directory)
    words = ["evaluate", f"{kind}.model", "test_full.xyz", "--out", f"eval_{kind}", "--overwrite"]
    run_logged([BIN / "hint", *words], directory)
    return json.loads(done.read_text())


def main() -> None:
    """Make the data, train three times a seed, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--structures", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    neutral = {"directory", "seeds"}
    with RunDirectory(arguments.directory, "projections", vars(arguments), free=neutral, overwrite=None):
        gradients: dict[str, list[int]] = {kind: [] for kind in KINDS}
        errors: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
        for seed in arguments.seeds:
            directory = arguments.directory / f"seed{seed}"
            directory.mkdir(parents=True, exist_ok=True)
            cost = make_data(directory, arguments.structures, seed)
            for kind in KINDS:
                found = train(directory, kind, arguments.epochs, seed)
                gradients[kind].append(cost[kind])
                errors[kind].append([found[key] for key in ERRORS])
                print(seed, kind, cost[kind], *(f"{value:.4g}" for value in errors[kind][-1]), flush=True)
        print(
            "| labels | gradients | forces MAE eV/A | Hessian MAE eV/A^2 | eigenvalue MAE eV/A^2 | frequency MAE 1/cm |"
        )
        print("|---|---|---|---|---|---|")
        for kind in KINDS:
            mean, spread = np.mean(errors[kind], axis=0), np.std(errors[kind], axis=0)
            cells = [f"{m:.3g} ± {s:.2g}" for m, s in zip(mean, spread, strict=True)]
            print(f"| {kind} | {np.mean(gradients[kind]):.0f} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
