"""Does Hessian training pay for molecules? One table, from labels to transition states, Gibbs energies and stability.

    python benchmarks/molecules_table.py --out molecules-table --seeds 3 --models MACE AlphaNet
    python benchmarks/molecules_table.py --out my-table --reactions endpoints.extxyz --max-atoms 9 --seeds 3

The steps, each a ``hint`` or ``mace_run_train`` command whose words are kept beside its result; what is done already is
not repeated, and a directory with results of other options is refused:

1. ``hint ts`` with GFN2-xTB on the reactions (default: the mini reactions of this package): reference transition
   states, barriers and reaction coordinates of the intended ones.
2. ``hint displace`` and ``hint label``: structures around the reaction coordinates; energies, forces, Hessians.
3. ``mace_run_train`` on the same structures with energies and forces (E/F), and with the Hessians of a few of them
   besides (E/F/H), for every model and seed.
4. For every trained model ``hint evaluate`` on held-out structures, ``hint ts`` on the reactions, ``hint gibbs`` at the
   reference geometries, ``hint stability`` on the reactants.

Training and test structures come from the same reactions: the table says how well a model knows the curvature between
its data, not how it generalises to reactions it has never seen.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read, write

from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.files import write_csv, write_json
from hint_plugins.runs.processes import run_logged
from hint_recipes.demo.settings import DemoSettings
from hint_recipes.demo.training import tool, train

XTB = "tblite:GFN2-xTB"
COLUMNS = {
    "hessian_mae": "Hessian MAE (eV/Å²)",
    "eigenvalue_mae": "eigenvalue MAE (eV/Å²)",
    "forces_mae": "force MAE (eV/Å)",
    "n_ts": "saddles found",
    "n_intended": "intended",
    "barrier_mae": "barrier MAE (eV)",
    "gibbs_correction_mae_minima": "G − E MAE, minima (eV)",
    "gibbs_correction_mae_ts": "G − E MAE, saddles (eV)",
    "gibbs_mae_minima": "G MAE, minima (eV)",
    "gibbs_mae_ts": "G MAE, saddles (eV)",
    "mean_temperature_K": "stable up to (K, mean)",
}


def hint(directory: Path, *words: Any, partial: bool = True) -> None:
    """Run ``hint`` in ``directory``; with ``partial`` a set of which some items failed counts as done."""
    out = directory / str(words[words.index("--out") + 1])
    if (out / "summary.json").exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    command = [tool("hint"), *map(str, words)]
    (out / "command.txt").write_text(shlex.join(["hint", *command[1:]]) + "\n")
    try:
        run_logged(command, directory)
    except RuntimeError:
        if not (partial and (out / "summary.json").exists()):
            raise


def own_reactions(path: Path) -> None:
    """The mini reactions of this package, as end points."""
    from hint_plugins.datasets.minireactions import reactions

    frames = []
    for reaction in reactions():
        for role in ("reactant", "product"):
            atoms = getattr(reaction, role).copy()
            atoms.info = {"reaction": reaction.name, "role": role}
            frames.append(atoms)
    write(path, frames, format="extxyz")


def reference(out: Path, arguments: argparse.Namespace) -> list[str]:
    """Reference searches; ``reactions.extxyz`` gets reactant, saddle and product of the intended ones."""
    limit, end_points = arguments.limit, out / "end_points.extxyz"
    if arguments.reactions is None:
        own_reactions(end_points)
    else:
        frames = read(arguments.reactions, index=":")
        write(end_points, [a for a in frames if len(a) <= arguments.max_atoms], format="extxyz")
    words = ["ts", end_points.name, "--model", XTB, "--out", "reference"]
    hint(out, *words, *(["--limit", limit] if limit else []))
    records = [r for r in json.loads((out / "reference" / "summary.json").read_text())["reactions"] if r["intended"]]
    frames, coordinates = [], []
    for record in records:
        coordinate = read(_folder(out / "reference", record["name"]) / "irc.extxyz", index=":")
        top = int(np.argmax([frame.get_potential_energy() for frame in coordinate]))
        for role, frame in (("reactant", coordinate[0]), ("ts", coordinate[top]), ("product", coordinate[-1])):
            atoms = Atoms(frame.numbers, frame.positions)
            atoms.info = {"reaction": record["name"], "role": role, "REF_energy": frame.get_potential_energy()}
            frames.append(atoms)
        chosen = np.unique(np.linspace(0, len(coordinate) - 1, 8).round().astype(int))
        for k in chosen:
            atoms = Atoms(coordinate[k].numbers, coordinate[k].positions)
            atoms.info = {"reaction": record["name"], "image": int(k)}
            coordinates.append(atoms)
    write(out / "reactions.extxyz", frames, format="extxyz")
    write(out / "coordinates.extxyz", coordinates, format="extxyz")
    reactants = [frame for frame in frames if frame.info["role"] == "reactant"]
    for atoms in reactants:
        atoms.info["name"] = f"{atoms.info['reaction']}"
    write(out / "reactants.extxyz", reactants, format="extxyz")
    return [record["name"] for record in records]


def _folder(directory: Path, name: str) -> Path:
    from hint_plugins.runs.items import safe_name

    return directory / "reactions" / safe_name(name)


def labels(out: Path, per_image: int, sigma: float) -> list[Atoms]:
    """Displaced and labelled structures around the reaction coordinates."""
    hint(out, "displace", "coordinates.extxyz", "--out", "displaced", "--count", per_image, "--sigma", sigma)
    if not (out / "labels.xyz").exists():
        run_logged([tool("hint"), "label", "displaced/structures.xyz", "labels.xyz", "--workers", "1"], out)
    parents = read(out / "coordinates.extxyz", index=":")
    frames = read(out / "labels.xyz", index=":")
    for frame in frames:
        frame.calc = None
        frame.info.setdefault("reaction", parents[int(frame.info["parent"])].info["reaction"])
    return frames


def split(frames: list[Atoms], structures: int, labelled: int, seed: int) -> dict[str, list[Atoms]]:
    """Per reaction 4 test structures (the same for every seed), 2 for validation, the rest for training."""
    groups: dict[str, list[Atoms]] = defaultdict(list)
    for frame in frames:
        groups[frame.info["reaction"]].append(frame)
    parts: dict[str, list[Atoms]] = {"train": [], "valid": [], "test": []}
    fixed, rng = np.random.default_rng(0), np.random.default_rng([1, seed])
    for group in groups.values():
        order = fixed.permutation(len(group))
        rest = rng.permutation(order[4:])
        parts["test"] += [group[i] for i in order[:4]]
        parts["valid"] += [group[i] for i in rest[:2]]
        for rank, i in enumerate(rest[2 : 2 + structures]):
            atoms = group[i].copy()
            if rank >= labelled:
                atoms.info.pop("REF_hessian", None)
            parts["train"].append(atoms)
    return parts


def one(out: Path, model: str, seed: int, hessians: bool, parts: dict, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train one model and put it to all tests."""
    name = "efh" if hessians else "ef"
    directory = out / f"{model.lower()}-seed{seed}" / name
    if not (directory / f"{name}.model").exists():
        settings = DemoSettings(
            steps=arguments.steps, model=model, batch_size=min(8, len(parts["train"])), probes=arguments.probes
        )
        train(directory, name, settings, seed, hessians, parts)
    file = (directory / f"{name}.model").resolve()
    where = out.resolve()
    hint(directory, "evaluate", file, "test.xyz", "--out", "evaluation")
    double = ("--model", file, "--dtype", "float64")
    hint(
        directory, "ts", where / "reactions.extxyz", *double, "--out", "ts", "--max-seconds", arguments.max_seconds
    )  # fmt: skip
    hint(directory, "gibbs", where / "reactions.extxyz", *double, "--reference", XTB, "--out", "gibbs")
    rise, interval, end = arguments.ramp
    hint(
        directory, "stability", where / "reactants.extxyz", "--model", file, "--out", "stability", "--seed", seed,
        "--temperature-step", rise, "--interval", interval, "--max-temperature", end,
    )  # fmt: skip
    row: dict[str, Any] = {"model": model, "training": "E/F/H" if hessians else "E/F", "seed": seed}
    found: dict[str, Any] = {}
    for study in ("evaluation", "ts", "gibbs", "stability"):
        found |= json.loads((directory / study / "summary.json").read_text())
    return row | {key: found.get(key) for key in COLUMNS}


def markdown(rows: list[dict[str, Any]], header: str) -> str:
    """Mean and standard deviation over the seeds."""
    kinds = list(dict.fromkeys((row["model"], row["training"]) for row in rows))
    lines = [header, "", "| | " + " | ".join(f"{model} {training}" for model, training in kinds) + " |"]
    lines.append("|---" * (len(kinds) + 1) + "|")
    for key, label in COLUMNS.items():
        cells = []
        for kind in kinds:
            values = [r[key] for r in rows if (r["model"], r["training"]) == kind and r[key] is not None]
            spread = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.4g}{spread}" if values else "–")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("molecules-table"))
    parser.add_argument("--reactions", type=Path, help="end points (default: the mini reactions of this package)")
    parser.add_argument("--max-atoms", type=int, default=10_000, help="leave out larger reactions")
    parser.add_argument("--limit", type=int, help="only the first so many reactions")
    parser.add_argument("--models", nargs="+", default=["MACE", "AlphaNet"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--per-image", type=int, default=4, help="displaced structures around each of 8 images")
    parser.add_argument("--sigma", type=float, default=0.05, help="of the displacements, A")
    parser.add_argument("--structures", type=int, default=24, help="training structures a reaction")
    parser.add_argument("--labelled", type=int, default=4, help="how many of them carry a Hessian")
    parser.add_argument("--probes", type=int, default=2, help="random probes a labelled structure and step")
    parser.add_argument("--steps", type=int, default=4000, help="optimiser steps of a training")
    parser.add_argument(
        "--ramp", type=float, nargs=3, default=[50.0, 0.25, 1500.0], help="temperature step (K), interval (ps), end (K)"
    )
    parser.add_argument("--max-seconds", type=float, default=3600.0, help="time limit of a transition-state search, s")
    parser.add_argument("--workers", type=int, default=1, help="trainings and studies at a time")
    arguments = parser.parse_args()
    neutral = {"models", "seeds", "workers"}
    with RunDirectory(arguments.out, "molecules-table", vars(arguments), free=neutral, overwrite=None) as run_directory:
        out = run_directory.path
        names = reference(out, arguments)
        frames = labels(out, arguments.per_image, arguments.sigma)
        jobs = [(m, s, h) for s in range(1, arguments.seeds + 1) for m in arguments.models for h in (False, True)]
        with ThreadPoolExecutor(arguments.workers) as pool:
            futures = [
                pool.submit(one, out, m, s, h, split(frames, arguments.structures, arguments.labelled, s), arguments)
                for m, s, h in jobs
            ]
            rows = [future.result() for future in futures]
        header = (
            f"{len(names)} reactions, {arguments.structures} training structures each ({arguments.labelled} with a "
            f"Hessian in E/F/H), {arguments.probes} probes, {arguments.steps} steps, {arguments.seeds} seed(s), "
            "reference GFN2-xTB."
        )
        write_csv(out / "rows.csv", rows)
        write_json(out / "rows.json", {"header": header, "rows": rows})
        (out / "table.md").write_text(markdown(rows, header))
        print(markdown(rows, header))


if __name__ == "__main__":
    main()
