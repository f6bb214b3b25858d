"""Raw results of ``evaluate.py`` by condition, and what differs within a block of the matrix."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matrix import Matrix, Run
from statistics_of_pairs import shown

from hint_plugins.errors import InputError

FIELDS = ("model", "pretrained", "selection", "share", "law", "m", "loss", "weight", "curriculum", "batches", "budget")
#: Column of ``runs.csv``: heading.
ERRORS = {
    "forces_mae": "force MAE (eV/Å)",
    "hessian_mae": "Hessian MAE (eV/Å²)",
    "eigenvalue_mae": "eigenvalue MAE (eV/Å²)",
    "frequency_mae_cm1": "frequency MAE (cm⁻¹)",
}
TS = {"found": "found (reactions)", "intended": "intended (reactions)", "barrier_mae_eV": "barrier MAE (eV)"}
TS |= {"ts_rmsd_A": "TS distance (Å)"}
GIBBS = {
    f"{key}_mae_eV_{kind}": f"{label}, {kind} (eV)"
    for key, label in (
        ("gibbs_correction", "G − E MAE"),
        ("gibbs", "G MAE"),
        ("gibbs_above_reactant", "G MAE above the reactant"),
    )
    for kind in ("minima", "saddles")
}
COST = {"products": "products", "cpu_seconds": "CPU time (s)"}


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    """Rows of a table; none where it was not made."""
    file = folder / f"{name}.csv"
    if not file.is_file():
        return []
    with file.open(newline="") as handle:
        return list(csv.DictReader(handle))


def number(value: Any) -> float | None:
    """A cell as a number; None where it is empty."""
    return None if value in (None, "") else float(value)


class Results:
    """The tables of ``RUNS/results``.

    Parameters
    ----------
    folder
        With ``runs.csv`` and what else was made.

    Raises
    ------
    InputError
        If nothing is there.
    """

    def __init__(self, folder: Path) -> None:
        self.runs = {row["run"]: row for row in read(folder, "runs")}
        if not self.runs:
            raise InputError(f"{folder / 'runs.csv'}: no results; run evaluate.py first")
        self.tables = {name: _by_run(read(folder, name)) for name in ("structures", "reactions", "gibbs", "curves")}
        saddles = {run: [row for row in rows if row["role"] == "ts"] for run, rows in self.tables["gibbs"].items()}
        self.tables["saddles"] = saddles

    def values(self, runs: Sequence[Run], key: str) -> list[float]:
        """A column of the finished ones among ``runs``."""
        cells = (number(self.runs[run.name].get(key)) for run in runs if run.name in self.runs)
        return [cell for cell in cells if cell is not None]

    def rows(self, table: str, runs: Sequence[Run]) -> list[dict[str, Any]]:
        """Raw rows of the finished ones among ``runs``."""
        return [row for run in runs for row in self.tables[table].get(run.name, [])]


def _by_run(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["run"], []).append(row)
    return groups


def conditions(matrix: Matrix, block: str) -> dict[Run, list[Run]]:
    """Runs of a block that differ in the seed alone, by the one with seed 0, in the order of the matrix."""
    runs = {run.name: run for run in matrix.runs}
    groups: dict[Run, list[Run]] = {}
    for name in matrix.blocks[block]:
        groups.setdefault(replace(runs[name], seed=0), []).append(runs[name])
    return groups


def varying(groups: dict[Run, list[Run]]) -> list[str]:
    """Fields that differ between the conditions of a block."""
    return [name for name in FIELDS if len({getattr(run, name) for run in groups}) > 1]


def label(condition: Run, fields: Sequence[str]) -> str:
    """A condition in words: the fields that vary."""
    words = []
    for name in fields:
        value = getattr(condition, name)
        if not condition.share and name in ("law", "m", "loss", "weight", "curriculum", "batches"):
            continue
        spelt = {
            "pretrained": "pre-trained" if value is True else "not pre-trained",
            "share": f"{value} % Hessians" if not isinstance(value, float) else f"{value:g} % Hessians",
            "m": f"m = {value}",
            "weight": f"weight {value}",
            "batches": f"batches {value}",
        }
        words.append(str(spelt.get(name, value)))
    return ", ".join(words) or "all"


def table(results: Results, groups: dict[Run, list[Run]], columns: dict[str, str]) -> list[dict[str, Any]]:
    """Mean and spread over seeds, one row a condition with results; columns that nobody has are left out."""
    fields = varying(groups)
    rows = []
    for condition, runs in groups.items():
        done = [run for run in runs if run.name in results.runs]
        if done:
            cells = {heading: shown(results.values(done, key)) for key, heading in columns.items()}
            rows.append({"training": label(condition, fields), "seeds": len(done), **cells})
    empty = {heading for heading in columns.values() if all(row[heading] == "–" for row in rows)}
    return [{key: value for key, value in row.items() if key not in empty} for row in rows]
