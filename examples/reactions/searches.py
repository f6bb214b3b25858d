"""One potential on a set of reactions: transition states and Gibbs energies, against a reference."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from stages import DONE, SOME_FAILED, command

from hint_recipes.molecules.thermochemistry.reactions import errors_against, reaction_free_energies

#: The level that counts as the truth.
TRUTH = "tblite:GFN2-xTB"


def transition_states(end_points: Path, model: str, out: Path, workers: int = 1, *words: Any) -> list[dict[str, Any]]:
    """``hint ts`` in float64; one record a reaction. Goes on where a killed call stood."""
    out.mkdir(parents=True, exist_ok=True)
    options = ("--model", model, "--dtype", "float64", "--workers", workers, "--out", ".")
    if not (out / "summary.json").is_file():
        command(out, "hint", "ts", end_points.resolve(), *options, *words, statuses=(DONE, SOME_FAILED))
    return json.loads((out / "summary.json").read_text())["reactions"]


def gibbs(points: Path, model: str, out: Path, *words: Any) -> list[dict[str, Any]]:
    """``hint gibbs`` at the geometries of ``points`` as they are, float64; one row a structure."""
    out.mkdir(parents=True, exist_ok=True)
    options = ("--model", model, "--dtype", "float64", "--no-relax", "--out", ".")
    if not (out / "summary.json").is_file():
        command(out, "hint", "gibbs", points.resolve(), *options, *words, statuses=(DONE, SOME_FAILED))
    return json.loads((out / "summary.json").read_text())["structures"]


def truth(end_points: Path, out: Path, workers: int = 1, reference: str = TRUTH) -> dict[str, Any]:
    """The reference's own searches and Gibbs energies; what it finds intended is what a model is asked for.

    Returns
    -------
    dict
        ``reactions`` and how many of them are ``found`` and ``intended``; ``out/points.extxyz`` holds relaxed reactant,
        saddle and relaxed product of the intended ones.
    """
    records = transition_states(end_points, reference, out / "ts", workers)
    intended = [record for record in records if record["intended"]]
    if intended:
        gibbs(out / "ts" / "stationary_points.extxyz", reference, out / "gibbs")
    found = sum(bool(record["ts_converged"]) for record in records)
    return {"reactions": len(records), "found": found, "intended": len(intended)}


def points(out: Path) -> Path:
    """Stationary points of the intended reactions of :func:`truth`."""
    return out / "ts" / "stationary_points.extxyz"


def reaction_rows(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a search of a model says, one row a reaction; eV and A."""
    return [
        {
            "reaction": record["name"],
            "found": bool(record["ts_converged"]),
            "intended": bool(record["intended"]),
            "reason": record["reason"],
            "barrier_eV": record["barrier"],
            "barrier_error_eV": record.get("barrier_error") if record["intended"] else None,
            "ts_rmsd_A": record.get("ts_rmsd") if record["intended"] else None,
            "reaction_energy_error_eV": record.get("reaction_energy_error"),
            "cpu_seconds": record.get("cpu_seconds"),
        }
        for record in records
    ]


def gibbs_rows(rows: Sequence[dict[str, Any]], reference: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Errors of energy, G and G - E of every structure, and of G above the reactant, in eV.

    Parameters
    ----------
    rows, reference
        From :func:`gibbs` for the same structures; those that failed at either level are left out.
    """
    errors, _ = errors_against(rows, reference)
    above = [{row["reaction"]: row for row in reaction_free_energies(table)} for table in (rows, reference)]
    good = [row for row, ref in zip(rows, reference, strict=True) if "error" not in row and "error" not in ref]
    table = []
    for row, error in zip(good, errors, strict=True):
        key = {"ts": "activation_gibbs", "product": "reaction_gibbs"}.get(row["role"], "")
        ours, theirs = (sides.get(row["reaction"], {}).get(key) for sides in above)
        table.append(
            {
                "reaction": row["reaction"],
                "role": row["role"],
                "energy_error_eV": error["energy_error"],
                "gibbs_error_eV": error["gibbs_error"],
                "gibbs_correction_error_eV": error["gibbs_correction_error"],
                "gibbs_above_reactant_error_eV": None if ours is None or theirs is None else ours - theirs,
            }
        )
    return table


def mean_abs(values: Sequence[float | None]) -> float | None:
    """Mean absolute value of those that are there; None of none."""
    numbers = [abs(value) for value in values if value is not None]
    return float(np.mean(numbers)) if numbers else None
