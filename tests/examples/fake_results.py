"""Raw results that no training made, with known differences between conditions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from matrix import read_matrix

from hint_plugins.runs.files import write_csv, write_json

REASONS = ("one_end_wrong", "wrong_imaginary_modes", "no_barrier")


def write_fake(runs: Path, matrix_file: Path, reactions: int = 12) -> None:
    """``RUNS/results`` and what else the report reads.

    Every Hessian error is 2 / (1 + share) plus 1 without pre-training plus what the reaction adds; a search is intended
    with a Hessian where the reaction's number is even.
    """
    matrix = read_matrix(matrix_file)
    rng = np.random.default_rng(0)
    tables: dict[str, list] = {name: [] for name in ("runs", "structures", "reactions", "gibbs", "curves")}
    for run in matrix.runs:
        errors = []
        for k in range(reactions):
            error = 2 / (1 + run.share) + (0 if run.pretrained else 1) + 0.1 * k + 0.01 * rng.normal()
            errors.append(error)
            row = {"run": run.name, "reaction": f"r{k}", "index": k, "atoms": 5, "energy_error_per_atom": -0.1}
            row |= {"forces_mae": 0.2 + 0.1 * error, "hessian_mae": error, "eigenvalue_mae": 3 * error}
            tables["structures"].append(row | {"frequency_mae_cm1": 100 * error})
            intended = bool(run.share) and k % 2 == 0
            row = {"run": run.name, "reaction": f"r{k}", "found": True, "intended": intended}
            row |= {"reason": None if intended else REASONS[k % 3], "barrier_error_eV": 0.2 if intended else None}
            tables["reactions"].append(row | {"ts_rmsd_A": 0.1 if intended else None})
            for role in ("reactant", "ts", "product"):
                row = {"run": run.name, "reaction": f"r{k}", "role": role, "gibbs_error_eV": -error}
                row |= {"gibbs_correction_error_eV": 0.1 * error}
                tables["gibbs"].append(row | {"gibbs_above_reactant_error_eV": None if role == "reactant" else 0.3})
        for epoch in range(6):
            row = {"run": run.name, "epoch": epoch, "hessian_weight": 0.1, "hvp_mae": 5 / (1 + epoch)}
            tables["curves"].append(row | {"hessian_loss": 1.0, "mae_f": 0.1, "mae_e_per_atom": 0.01})
        row = {"run": run.name, **vars(run), "products": 1000, "steps": 100, "cpu_seconds": 60.0, "epochs": 4}
        mean = float(np.mean(errors))
        row |= {"forces_mae": 0.2 + 0.1 * mean, "hessian_mae": mean, "eigenvalue_mae": 3 * mean}
        row |= {"frequency_mae_cm1": 100 * mean, "reactions": reactions, "found": reactions}
        row |= {"intended": sum(r["intended"] for r in tables["reactions"][-reactions:]), "barrier_mae_eV": 0.2}
        row |= {"ts_rmsd_A": 0.1}
        for kind in ("minima", "saddles"):
            row |= {f"gibbs_mae_eV_{kind}": mean, f"gibbs_correction_mae_eV_{kind}": 0.1 * mean}
            row |= {f"gibbs_above_reactant_mae_eV_{kind}": 0.3}
        tables["runs"].append(row)
    level = dict.fromkeys(tables["runs"][0]) | {"run": "level-GFN1-xTB", "hessian_mae": 1.5}
    tables["runs"].append(level)
    for name, rows in tables.items():
        write_csv(runs / "results" / f"{name}.csv", rows)
    data = runs / "data"
    write_json(runs / "runs.json", {"data": str(data), "runs": {}, "blocks": {}})
    split = {"test": reactions, "held_back": 2, "valid": 2, "train": 20, "left_out": 0, "seconds": 1.0}
    write_json(data / "summary.json", {"split": split, "rows": json.loads('[{"set": "geometries", "structures": 10}]')})
