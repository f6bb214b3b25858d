"""The results of a set of searches as counts, rows of tables and text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from hint_plugins.units import KCAL
from hint_recipes.failures import REASONS
from hint_recipes.molecules.transition_states.result import FIELDS

#: Fields of a record that are lists.
LISTS = {"frequencies_cm1", "irc_converged", "bonds", "attempts"}
#: Columns of the table on the terminal; energies in kcal/mol above the relaxed reactant.
BARRIER_HEADINGS = ("reaction", "barrier", "products", "end R", "end P", "imaginary", "result")


def summarise(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts, errors and cost of a set.

    Returns
    -------
    dict
        ``n_reactions, n_path, n_ts, n_intended, n_failed`` (not intended); ``reasons``: reason -> number;
        ``ts_rmsd_median`` (A), ``barrier_mae``, ``barrier_error_median_abs`` (eV; over intended ones with a reference,
        also ``_kcal_mol``), ``n_hessians``, ``n_forces``, ``seconds``, ``seconds_per_reaction``; ``reactions``.
    """
    intended = [record for record in records if record["intended"]]
    summary: dict[str, Any] = {
        "n_reactions": len(records),
        "n_path": sum(bool(record["path_converged"]) for record in records),
        "n_ts": sum(bool(record["ts_converged"]) for record in records),
        "n_intended": len(intended),
        "n_failed": len(records) - len(intended),
        "reasons": dict(Counter(record["reason"] for record in records if record["reason"]).most_common()),
    }
    distances = [record["ts_rmsd"] for record in intended if record.get("ts_rmsd") is not None]
    errors = [abs(record["barrier_error"]) for record in intended if record.get("barrier_error") is not None]
    if distances:
        summary["ts_rmsd_median"] = float(np.median(distances))
    if errors:
        for name, value in (("barrier_mae", np.mean(errors)), ("barrier_error_median_abs", np.median(errors))):
            summary |= {name: float(value), f"{name}_kcal_mol": float(value / KCAL)}
    for key in ("n_hessians", "n_forces", "seconds"):
        summary[key] = sum(record.get(key) or 0 for record in records)
    summary["seconds_per_reaction"] = summary["seconds"] / len(records) if records else None
    return summary | {"reactions": list(records)}


def table_rows(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records as rows of a table (no lists, energies in eV), with the reason spelt out."""
    columns = [field for field in FIELDS if field not in LISTS | {"detail"}]
    return [
        {column: record.get(column) for column in columns}
        | {"explanation": f"{REASONS[record['reason']]}: {record.get('detail')}" if record.get("reason") else None}
        for record in records
    ]


def barrier_rows(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The barriers of a set as a short table: kcal/mol above the relaxed reactant, the zero of ``profile.png``.

    ``end_reactant`` and ``end_product`` are the energies of the minima at which the reaction coordinate ends;
    ``result`` says ``intended`` or the reason why not, and which end is another conformer.
    """
    rows = []
    for record in records:
        ends = {role: record.get(f"irc_{role}_energy") for role in ("reactant", "product")}
        others = [role for role in ends if record.get(f"irc_{role}_conformer") == "other"]
        note = f" ({' and '.join(others)}: another conformer)" if others and record["intended"] else ""
        rows.append(
            {
                "name": record["name"],
                "barrier_kcal_mol": _rounded(record.get("barrier_kcal_mol")),
                "reaction_energy_kcal_mol": _rounded(record.get("reaction_energy_kcal_mol")),
                **{f"end_{role}_kcal_mol": _rounded(energy, unit=KCAL) for role, energy in ends.items()},
                "imaginary_cm1": _rounded(record.get("imaginary_cm1"), 0),
                "result": ("intended" if record["intended"] else str(record["reason"])) + note,
            }
        )
    return rows


def _rounded(value: float | None, digits: int = 2, unit: float = 1.0) -> float | None:
    return None if value is None else round(value / unit, digits) + 0.0  # no -0.0


def barrier_table(rows: Sequence[dict[str, Any]], at_most: int = 40) -> str:
    """Rows of :func:`barrier_rows` as text for a terminal."""
    shown = [list(BARRIER_HEADINGS), *([str("" if v is None else v) for v in row.values()] for row in rows[:at_most])]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(w) for cell, w in zip(row[1:-1], widths[1:-1], strict=True)),
                row[-1],
            ]
        )
        for row in shown
    ]
    if len(rows) > at_most:
        lines.append(f"... and {len(rows) - at_most} more in barriers.csv")
    return "\n".join(line.rstrip() for line in lines)
