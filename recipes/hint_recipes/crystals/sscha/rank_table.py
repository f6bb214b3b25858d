"""The table of a ranking: a row per candidate, the errors of differences, the report and the picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hint_plugins.runs.figures import new_figure, save_figure, wrapped
from hint_recipes.crystals.sscha.state import GPA


def candidate_row(
    name: str,
    summary: Mapping[str, Any],
    atoms: int,
    pressure: float,
    *,
    corrected: bool,
    check: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What ``ranking.csv`` says of one candidate.

    Parameters
    ----------
    name
        Of the candidate.
    summary
        Of its SSCHA run.
    atoms
        In the unit cell.
    pressure
        GPa.
    corrected
        Whether the correction to the reference counts.
    check
        Summary of the run in the smaller supercell, where there is one.
    """
    volume = abs(np.linalg.det(np.array(summary["cell"])))
    energy, error = summary["free_energy"], summary["free_energy_error"]
    row: dict[str, Any] = {"name": name, "converged": summary["converged"], "volume_A3_per_atom": volume / atoms}
    if corrected:
        correction = summary["correction"]
        energy += correction["first_order"]
        error = float(np.hypot(error, correction["first_order_error"]))
        exponential = correction["exponential"]
        row["correction_eV_per_atom"] = correction["first_order"] / atoms
        row["exponential_correction_eV_per_atom"] = None if exponential is None else exponential / atoms
        row["effective_sample"] = correction["effective_sample"]
        row["correction_configurations"] = correction["configurations"]
    row |= {
        "atoms_in_supercell": atoms * math.prod(summary["supercell"]),
        "static_eV_per_atom": summary["static_energy"] / atoms,
        "free_energy_supercell_eV_per_atom": summary["free_energy_supercell"] / atoms,
        "dense_mesh_eV_per_atom": (summary["free_energy"] - summary["free_energy_supercell"]) / atoms,
        "gibbs_eV_per_atom": (energy + pressure * GPA * volume) / atoms,
        "error_eV_per_atom": error / atoms,
        "lowest_cm1": min(min(q["cm1"]) for q in summary["frequencies_cm1"][1:])
        if summary["frequencies_cm1"][1:]
        else None,
    }
    if check is not None:
        small = check["free_energy"] + pressure * GPA * abs(np.linalg.det(np.array(check["cell"])))
        large = summary["free_energy"] + pressure * GPA * volume
        row["atoms_in_check"] = atoms * math.prod(check["supercell"])
        row["check_converged"] = check["converged"]
        row["size_eV_per_atom"] = (large - small) / atoms
    return row


def compare(rows: list[dict[str, Any]]) -> None:
    """Sort the rows by Gibbs free energy, and add how far each lies above the best, with the error of that difference.

    The error of a difference holds the statistical errors of both candidates, and, where both were also run in a
    smaller supercell, by how much the difference changed from that supercell to the last one.
    """
    rows.sort(key=lambda row: row["gibbs_eV_per_atom"])
    for row in rows:
        best = rows[0]
        row["above_best_meV_per_atom"] = 1000 * (row["gibbs_eV_per_atom"] - best["gibbs_eV_per_atom"])
        own = row is not best
        statistics = 1000 * math.hypot(row["error_eV_per_atom"], best["error_eV_per_atom"]) * own
        row["above_best_statistical_error_meV_per_atom"] = statistics
        if "size_eV_per_atom" in row:
            size = 1000 * abs(row["size_eV_per_atom"] - best["size_eV_per_atom"])
            row["above_best_size_error_meV_per_atom"] = size
            row["above_best_error_meV_per_atom"] = math.hypot(statistics, size)


def report(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each candidate, and what the errors hold."""
    lines = []
    for row in rows:
        error = row.get("above_best_error_meV_per_atom", row["above_best_statistical_error_meV_per_atom"])
        line = f"{row['name']}: {row['above_best_meV_per_atom']:.2f}"
        if row is not rows[0]:
            line += f" +- {error:.2f}"
        line += f" meV per atom above the best, {row['atoms_in_supercell']} atoms in the supercell"
        if "size_eV_per_atom" in row:
            line += f", {1000 * row['size_eV_per_atom']:+.2f} meV per atom since that of {row['atoms_in_check']}"
        lines.append(line + ("" if row["converged"] else ", NOT converged"))
    if len(rows) < 2:
        return lines
    if "size_eV_per_atom" in rows[0]:
        lines.append(
            "The errors hold the statistical errors of both candidates, and by how much their difference changed from "
            "the smaller to the larger supercell."
        )
    else:
        lines.append(
            "The errors are statistical. They do not contain the error of the finite supercell: its harmonic part is "
            "corrected on a dense mesh, its anharmonic part is not. --check-supercell (or --check-length) adds it."
        )
    return lines


def plot_ranking(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the picture of the rows of a ranking: free energies above the best, with errors."""
    figure, axes = new_figure(6.4, 1.4 + 0.5 * len(rows))
    values = [row["above_best_meV_per_atom"] for row in rows]
    errors = [
        row.get("above_best_error_meV_per_atom", row["above_best_statistical_error_meV_per_atom"]) for row in rows
    ]
    axes.barh(range(len(rows)), values, xerr=errors, color="C0")
    axes.set_yticks(range(len(rows)), [wrapped(row["name"], 2.0, 8) for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("free energy above the best (meV per atom)")
    save_figure(figure, path)
