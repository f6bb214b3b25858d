"""What Hessians do for an eSCN-MD model in fairchem: few GFN2-xTB labels, with and without their Hessians.

    python benchmarks/fairchem_demo.py --out demo-fairchem

makes normal-mode samples of small molecules, labels them (energies, forces, Hessians), trains the shipped
``minimal.yaml`` twice on the same structures with the same seed and steps (energies and forces; plus Hessians), and the
shipped ``direct.yaml`` four times (without Hessians; with them; with the symmetry penalty besides; and with both from
the model that was trained without), and prints held-out errors. Runs that are done already are not repeated; a
directory with results of other options is refused.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np

from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.files import write_json
from hint_plugins.runs.processes import run_logged

MOLECULES = ("H2O", "NH3", "CH4", "HCN", "H2CO", "C2H2", "CH3OH", "C2H4")
TEST_EACH = 4


def hint(out: Path, *arguments: object) -> None:
    """Run a command of this package in ``out``."""
    run_logged([Path(sys.executable).with_name("hint"), *arguments], out)


def make_data(out: Path, train_each: int) -> None:
    """train.aselmdb and valid.aselmdb: total energies less a least-squares sum over atoms."""
    from ase.build import molecule
    from ase.io import write

    from hint_plugins.storage.store import read_structures, write_structures

    if (out / "valid.aselmdb").exists():
        return
    write(out / "minima.xyz", [molecule(name) for name in MOLECULES])
    count = train_each + TEST_EACH
    hint(out, "displace", out / "minima.xyz", "--out", out / "samples", "--method", "normal-modes", "--count", count,
         "--temperature", 600, "--seed", 1, "--overwrite")  # fmt: skip
    hint(out, "label", out / "samples" / "structures.xyz", out / "labelled.xyz", "--engine", "xtb", "--workers", 1)
    structures = list(read_structures(out / "labelled.xyz"))
    numbers = sorted({int(z) for atoms in structures for z in atoms.numbers})
    counts = np.array([[np.sum(atoms.numbers == z) for z in numbers] for atoms in structures])
    energies = np.array([atoms.info["REF_energy"] for atoms in structures])
    offsets = np.linalg.lstsq(counts, energies, rcond=None)[0]
    for atoms, row in zip(structures, counts, strict=True):
        atoms.info["REF_energy"] -= float(row @ offsets)
    held_out = np.arange(len(structures)) % count >= train_each
    write_structures(out / "train.aselmdb", [a for a, h in zip(structures, held_out, strict=True) if not h])
    write_structures(out / "valid.aselmdb", [a for a, h in zip(structures, held_out, strict=True) if h])


def train(out: Path, name: str, config: str, steps: int, seed: int, *overrides: str) -> dict[str, float]:
    """Train unless done; the last row of the metrics, its first asymmetry and the host's own validation errors."""
    import hint_fairchem

    folder = out / name
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
        path = Path(hint_fairchem.__file__).parent / "configs" / config
        width = [f"runner.train_eval_unit.model.backbone.{k}=32" for k in WIDTHS]
        width += [f"+job.seed={seed}", f"+hint.seed={seed}", f"{SAMPLER}.seed={seed}"]
        thin = f"+runner.callbacks.1.metrics_every_n_steps={steps // 4}"
        command = [Path(sys.executable).with_name("fairchem"), "-c", path, f"train_data={out / 'train.aselmdb'}",
                   f"valid_data={out / 'valid.aselmdb'}", f"steps={steps}", "max_atoms=40", f"job.run_dir={folder}",
                   "job.device_type=CPU", f"runner.evaluate_every_n_steps={steps}", *width,
                   "runner.callbacks.0.checkpoint_every_n_steps=100000", "+job.timestamp_id=run",
                   "runner.train_eval_unit.ema_decay=0.99", "runner.train_eval_unit.optimizer_fn.lr=0.003",
                   "hint.hessian_num_probes=2", "tasks.0.element_references=null", thin, *overrides]  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        run_logged(command, folder)
        (folder / "done").touch()
    with (folder / "run" / "results" / "hessian_metrics.csv").open() as handle:
        history = list(csv.DictReader(handle))
    row = {key: float(value) for key, value in history[-1].items()}
    row["first_asymmetry"] = float(history[0]["asymmetry"])
    for line in (folder / "log.txt").read_text().splitlines():
        for key in ("energy,per_atom_mae", "forces,mae"):
            if line.strip().startswith(f"val/mol.val,{key}"):
                row[key] = float(line.split(":")[1])
    return row


WIDTHS = ("sphere_channels", "hidden_channels", "edge_channels", "num_distance_basis")
ERRORS = ("energy,per_atom_mae", "forces,mae", "hessian_mae", "eigenvalue_mae", "frequency_mae_cm1")
COLUMNS = (*ERRORS, "first_asymmetry", "asymmetry")
SAMPLER = "runner.train_dataloader.batch_sampler_fn"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("demo-fairchem"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--train-each", type=int, default=3, help="training structures of each molecule")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and probes; the data stay the same")
    parser.add_argument("--only", nargs="+", metavar="RUN", help="names of runs as in the table")
    arguments = parser.parse_args()
    neutral = {"seed", "only"}
    with RunDirectory(arguments.out, "fairchem-demo", vars(arguments), free=neutral, overwrite=None) as run_directory:
        out = run_directory.path
        out = out.resolve()
        make_data(out, arguments.train_each)
        ramp = ("+hint.hessian_ramp_unit=steps", "+hint.hessian_ramp_end=" + str(arguments.steps // 4))
        suffix = f"_seed{arguments.seed}" if arguments.seed else ""
        trained = out / f"direct_EF{suffix}" / "run" / "checkpoints" / "final" / "inference_ckpt.pt"
        loader = "fairchem.core.units.mlip_unit.mlip_unit.initialize_finetuning_model"
        runs: dict[str, tuple[str, ...]] = {
            "E/F": ("minimal.yaml", "hint.hessian_weight=0"),
            "E/F/H": ("minimal.yaml", "hint.hessian_weight=0.1", *ramp),
            "direct E/F": ("direct.yaml", "hint.hessian_weight=0"),
            "direct E/F/H": ("direct.yaml", "hint.hessian_weight=0.1", "hint.hessian_symmetry_weight=0", *ramp),
            "direct E/F/H + symmetry": ("direct.yaml", "hint.hessian_weight=0.1", *ramp),
        }
        runs["direct E/F, then E/F/H + symmetry"] = (
            *runs["direct E/F/H + symmetry"],
            "~runner.train_eval_unit.model",
            f"+runner.train_eval_unit.model={{_target_:{loader},checkpoint_location:'{trained}'}}",
        )
        for name in arguments.only or ():
            if name not in runs:
                parser.error(f"--only {name!r}: runs are {', '.join(map(repr, runs))}")
        file = out / f"table{suffix}.json"
        table = json.loads(file.read_text()) if file.exists() else {}
        print("| run | " + " | ".join(COLUMNS) + " |")
        for name, (config, *overrides) in runs.items():
            if arguments.only and name not in arguments.only:
                continue
            if str(trained) in "".join(overrides) and not trained.exists():
                parser.error(f"{name!r} starts from 'direct E/F': run that first (or leave --only out)")
            folder = name.replace("/", "").replace(",", "").replace(" ", "_").replace("+", "and") + suffix
            table[name] = train(out, folder, config, arguments.steps, arguments.seed, *overrides)
            print(f"| {name} | " + " | ".join(f"{table[name][key]:.4g}" for key in COLUMNS) + " |", flush=True)
            write_json(file, table)


if __name__ == "__main__":
    main()
