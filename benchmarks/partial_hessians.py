"""Does training on the Hessian blocks of free atoms improve their frequencies? Oxygen on a frozen Cu(111) slab, EMT.

    python benchmarks/partial_hessians.py DIR [--epochs 60] [--structures 12] [--weight 10] [--seeds 1 2 3]

Labels are made by ``hint label`` with ASE's EMT: the two lower layers of the slab are frozen, so that a label is the
block of five atoms of thirteen and costs 31 gradients, not 79. A seed fixes the training structures, the model's first
weights and the order of batches; the test structures are always the same. Prints a table of errors on them (mean and
standard deviation over the seeds). What is finished is not done again; a directory with results of other options is
refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.constraints import FixAtoms

from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.processes import run_logged
from hint_plugins.storage.store import read_structures, write_structures

BIN = Path(sys.executable).parent
ERRORS = ("forces_mae", "hessian_mae", "eigenvalue_mae", "frequency_mae_cm1")
TEST, VALID = 20, 6
#: Standard deviation of the displacements of free atoms (A).
SIGMA = 0.08


def slabs(count: int, seed: int) -> list[Atoms]:
    """Oxygen at random places above a slab of three layers, whose upper one moves."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(count):
        slab = fcc111("Cu", (2, 2, 3), vacuum=6.0)
        add_adsorbate(slab, "O", rng.uniform(1.0, 1.5), ("fcc", "hcp", "bridge")[rng.integers(3)])
        free = slab.get_tags() < 2
        slab.positions[free] += rng.normal(0.0, SIGMA, (int(free.sum()), 3))
        slab.pbc = True
        slab.set_constraint(FixAtoms(np.flatnonzero(~free)))
        frames.append(slab)
    return frames


def make_data(directory: Path, structures: int, seed: int) -> dict[str, int]:
    """Labelled files for training, validation and test; gives the gradients of the training labels."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, frames in (
        ("test", slabs(TEST, 0)),
        ("valid", slabs(VALID, 1000 + seed)),
        ("train", slabs(structures, seed)),
    ):
        write_structures(directory / f"{name}_bare.xyz", frames)
        words = [f"{name}_bare.xyz", f"{name}.xyz", "--engine", "ase", "--calculator", "emt", "--workers", 1]
        run_logged([BIN / "hint", "label", *words], directory)
    labels = list(read_structures(directory / "train.xyz"))
    return {"gradients": sum(int(a.info["label_gradients"]) for a in labels), "atoms": len(labels[0])}


def train(directory: Path, weight: float, epochs: int, seed: int) -> dict[str, float]:
    """Train and evaluate one model."""
    kind = "efh" if weight else "ef"
    done = directory / f"eval_{kind}" / "summary.json"
    if not done.exists():
        options = {
            "name": kind,
            "train_file": "train.xyz",
            "valid_file": "valid.xyz",
            "E0s": "average",
            "r_max": 4.5,
            "hidden_irreps": "16x0e+16x1o",
            "MLP_irreps": "16x0e",
            "max_ell": 2,
            "correlation": 2,
            "energy_key": "REF_energy",
            "forces_key": "REF_forces",
            "energy_weight": 4,
            "forces_weight": 100,
            "lr": 0.01,
            "batch_size": 4,
            "valid_batch_size": 6,
            "max_num_epochs": epochs,
            "eval_interval": max(1, epochs // 10),
            "patience": 10_000,
            "ema_decay": 0.99,
            "default_dtype": "float32",
            "device": "cpu",
            "seed": seed,
            "plot": False,
            "plugins": "hint",
            "hessian_weight": weight,
            "hessian_ramp_end": epochs // 3,
            "hessian_num_probes": 3,
            "hessian_metrics": "probes",
            "hessian_selftest": False,
            "hessian_engine": "reverse",
        }
        words = [str(word) for key, value in options.items() for word in (f"--{key}", value)]
        run_logged([BIN / "mace_run_train", *words, "--ema", "--amsgrad"], directory)
        out = ["--out", f"eval_{kind}", "--overwrite"]
        run_logged([BIN / "hint", "evaluate", f"{kind}.model", "test.xyz", *out], directory)
    return json.loads(done.read_text())


def main() -> None:
    """Run all trainings, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--structures", type=int, default=12)
    parser.add_argument("--weight", type=float, default=10.0, help="weight of the Hessian loss after the ramp")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    rows: dict[str, list[list[float]]] = {"E/F": [], "E/F/H": []}
    with RunDirectory(
        arguments.directory, "partial-hessians", vars(arguments), free={"directory", "seeds"}, overwrite=None
    ):
        for seed in arguments.seeds:
            directory = arguments.directory / f"seed-{seed}"
            if not (directory / "train.xyz").exists():
                cost = make_data(directory, arguments.structures, seed)
                print(
                    f"seed {seed}: {cost['gradients']} gradients, {arguments.structures} slabs of {cost['atoms']} atoms"
                )
            for kind, weight in (("E/F", 0.0), ("E/F/H", arguments.weight)):
                found = train(directory, weight, arguments.epochs, seed)
                rows[kind].append([found[key] for key in ERRORS])
                print(seed, kind, *(f"{value:.4g}" for value in rows[kind][-1]), flush=True)
        print("| training on | forces MAE eV/A | Hessian MAE eV/A^2 | eigenvalue MAE eV/A^2 | frequency MAE 1/cm |")
        print("|---|---|---|---|---|")
        for kind, values in rows.items():
            mean, spread = np.mean(values, axis=0), np.std(values, axis=0)
            cells = [f"{m:.3g} ± {s:.2g}" for m, s in zip(mean, spread, strict=True)]
            print(f"| {kind} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
