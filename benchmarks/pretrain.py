"""Pre-train on GFN2-xTB Hessians, choose a few structures, label them with omegaB97X/6-31G(d), fine-tune, compare.

    python benchmarks/pretrain.py DIR [--models MACE AlphaNet] [--few 14] [--dry-run]

docs/howto/pretrain.md walks through it. The commands that are run are printed; ``--dry-run`` prints them only. What is
finished is not done again; a directory with results of other options is refused. At the end a table: errors against
omegaB97X on structures that no training saw.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hint_plugins.datasets.minireactions import geometries
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.processes import run_logged
from hint_plugins.storage.store import count_structures, write_structures

BIN = Path(sys.executable).parent
#: Parts of the names of reactions of 3 and 4 atoms.
REACTIONS = ["hydrogen isocyanide", "hydroxycarbene", "hydrogen + carbon monoxide"]
TEST, VALID = 12, 12
KEYS: dict[str, Any] = {"energy_key": "REF_energy", "forces_key": "REF_forces", "hessian_key": "REF_hessian"}
MODELS: dict[str, dict[str, Any]] = {
    "MACE": {
        "model": "ScaleShiftMACE",
        "hidden_irreps": "16x0e+16x1o",
        "MLP_irreps": "16x0e",
        "max_ell": 2,
        "correlation": 2,
        "r_max": 4.0,
    },
    "AlphaNet": {"model": "AlphaNet", "alphanet_config": "net.yaml", "r_max": 4.0},
}
NETWORK = {"hidden_channels": 64, "num_layers": 3, "main_chi1": 8, "mp_chi1": 16, "chi2": 4, "frame_channels": 16}
LEARNING_RATE = {"MACE": 0.01, "AlphaNet": 0.002}
COMMON: dict[str, Any] = {
    "plugins": "hint",
    **KEYS,
    "energy_weight": 4,
    "forces_weight": 100,
    "hessian_weight": 0.1,
    "hessian_num_probes": 1,
    "hessian_metrics": "none",
    "valid_batch_size": 12,
    "patience": 10_000,
    "scheduler_patience": 10,
    "ema_decay": 0.99,
    "default_dtype": "float32",
    "device": "cpu",
    "plot": False,
}
ERRORS = ("hessian_mae", "eigenvalue_mae", "frequency_mae_cm1", "forces_mae")


class Runner:
    """Runs commands in a directory, or only prints them."""

    def __init__(self, directory: Path, dry: bool) -> None:
        self.directory, self.dry = directory, dry

    def __call__(self, made: str, *command: object) -> None:
        """Run ``command`` unless the file ``made`` is there."""
        words = [str(word) for word in command]
        print(shlex.join(words), flush=True)
        if self.dry or (self.directory / made).exists():
            return
        run_logged([BIN / words[0], *words[1:]], self.directory)


def make_data(run: Runner, few: int, engine: list[str]) -> None:
    """Cheap labels for the pool, good ones for the chosen few and for the test."""
    directory = run.directory
    if not run.dry and not (directory / "test.xyz").exists():
        frames = list(geometries(names=REACTIONS, images=6, samples=3, temperature=600.0, seed=0))
        order = np.random.default_rng(0).permutation(len(frames))
        parts = {"valid": order[TEST : TEST + VALID], "pool": order[TEST + VALID :], "test": order[:TEST]}
        for name, chosen in parts.items():
            write_structures(directory / f"{name}.xyz", [frames[i] for i in chosen])
    size = 108 if run.dry else count_structures(directory / "pool.xyz")
    for name in ("pool", "valid"):
        run(f"pre_{name}.xyz", "hint", "label", f"{name}.xyz", f"pre_{name}.xyz")
    select = ("--method", "density", "--fraction", f"{few / size:.4f}")
    run("few/summary.json", "hint", "select", "pre_pool.xyz", "--out", "few", *select)
    run("dft.xyz", "hint", "label", "few/selected.xyz", "dft.xyz", *engine)
    run("dft_test.xyz", "hint", "label", "test.xyz", "dft_test.xyz", *engine)
    run("few.xyz", "hint", "convert", "dft.xyz", "few.xyz", "--align-to", "pre_pool.xyz")
    align = ("--align-to", "pre_pool.xyz", "--align-from", "dft.xyz")
    run("few_test.xyz", "hint", "convert", "dft_test.xyz", "few_test.xyz", *align)


def train(run: Runner, name: str, **options: Any) -> None:
    """Train a model ``name.model`` and evaluate it on the test structures."""
    flags = [item for key, value in {**COMMON, **options}.items() for item in (f"--{key}", value)]
    run(f"{name}.model", "mace_run_train", "--name", name, *flags, "--ema", "--amsgrad")
    run(f"{name}-eval/summary.json", "hint", "evaluate", f"{name}.model", "few_test.xyz", "--out", f"{name}-eval")


def compare(run: Runner, model: str, epochs: int, few: int, seed: int) -> None:
    """Pre-train; fine-tune; train on the few alone, for as many steps as both together."""
    name, base, rate = f"{model.lower()}-seed{seed}", MODELS[model], LEARNING_RATE[model]
    cheap = {"train_file": "pre_pool.xyz", "valid_file": "pre_valid.xyz", "E0s": "average", "batch_size": 8}
    good = {"train_file": "few.xyz", "valid_fraction": 0.15, "batch_size": 4}
    sizes = {"pre_pool": 108, "few": few}
    if not run.dry:
        sizes = {part: count_structures(run.directory / f"{part}.xyz") for part in sizes}
    # The trainer drops the last, incomplete batch.
    pool_batches, few_batches = sizes["pre_pool"] // 8, (sizes["few"] - int(0.15 * sizes["few"])) // 4
    tuning = 2 * epochs
    alone = tuning + epochs * pool_batches // few_batches
    shared = {"seed": seed}
    train(run, f"{name}-pre", **base, **cheap, **shared, lr=rate, max_num_epochs=epochs, eval_interval=5)
    if model == "MACE":
        start = {"foundation_model": f"{name}-pre.model", "multiheads_finetuning": False, "E0s": "foundation"}
    else:
        start = {"alphanet_checkpoint": f"{name}-pre.model", "E0s": "average"}
    schedule = {"eval_interval": 5, "hessian_num_probes": 5}
    ramp = {"max_num_epochs": tuning, "hessian_ramp_end": tuning // 4}
    train(run, f"{name}-tuned", **base, **good, **shared, **schedule, **ramp, **start, lr=rate / 4)
    ramp = {"max_num_epochs": alone, "hessian_ramp_end": alone // 4}
    train(run, f"{name}-alone", **base, **good, **shared, **schedule, **ramp, E0s="average", lr=rate)


def table(directory: Path, models: list[str], seeds: list[int]) -> list[str]:
    """Markdown: one line for each model and way of training."""
    ways = {"pre": "GFN2-xTB only", "alone": "few omegaB97X only", "tuned": "pre-trained, then few omegaB97X"}
    lines = [
        "| model | trained on | Hessian MAE eV/A^2 | eigenvalue MAE eV/A^2 | frequency MAE 1/cm | forces MAE eV/A |",
        "|---|---|---|---|---|---|",
    ]
    for model in models:
        for way, text in ways.items():
            files = [directory / f"{model.lower()}-seed{seed}-{way}-eval" / "summary.json" for seed in seeds]
            found = [json.loads(file.read_text()) for file in files]
            values = [np.array([item[key] for item in found]) for key in ERRORS]
            spread = [f" ± {v.std():.2g}" if len(seeds) > 1 else "" for v in values]
            cells = [f"{v.mean():.3g}{s}" for v, s in zip(values, spread, strict=True)]
            lines.append(f"| {model} | {text} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Make the data, train, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--few", type=int, default=14, help="structures labelled with omegaB97X for training")
    parser.add_argument("--epochs", type=int, default=60, help="of the pre-training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--engine", default="--engine pyscf --method wb97x/6-31g*", help="options of `hint label`")
    parser.add_argument("--data-only", action="store_true", help="stop after the labels")
    parser.add_argument("--dry-run", action="store_true", help="print the commands only")
    arguments = parser.parse_args()
    neutral = {"directory", "models", "seeds", "data_only", "dry_run"}
    with RunDirectory(arguments.directory, "pretrain", vars(arguments), free=neutral, overwrite=None):
        run = Runner(arguments.directory, arguments.dry_run)
        (arguments.directory / "net.yaml").write_text(yaml.safe_dump(NETWORK))
        make_data(run, arguments.few, arguments.engine.split())
        if arguments.data_only:
            return
        for seed in arguments.seeds:
            for model in arguments.models:
                compare(run, model, arguments.epochs, arguments.few, seed)
        if not arguments.dry_run:
            print("\n".join(table(arguments.directory, arguments.models, arguments.seeds)))


if __name__ == "__main__":
    main()
