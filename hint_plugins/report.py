"""Plots of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hint_plugins.cli.common import replacing


def plot_history(history: list[dict[str, Any]], path: Path) -> None:
    """Hessian MAE, eigenvalue MAE, frequency MAE and weight against epoch.

    Parameters
    ----------
    history
        One dictionary a validation, with ``epoch`` (epochs done) and any of the metric names.
    path
        PNG file.
    """
    from matplotlib.figure import Figure

    panels = [
        ("hessian_mae", "Hessian MAE (eV/Å²)"),
        ("eigenvalue_mae", "eigenvalue MAE (eV/Å²)"),
        ("frequency_mae_cm1", "frequency MAE (cm⁻¹)"),
        ("hvp_mae", "product MAE (eV/Å²)"),
    ]
    panels = [p for p in panels if any(p[0] in row for row in history)] or panels[:1]
    figure = Figure(figsize=(3.6 * len(panels), 3.2), layout="constrained")
    for axis, (name, title) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        rows = [row for row in history if name in row]
        axis.plot([row["epoch"] for row in rows], [row[name] for row in rows], marker="o", markersize=3)
        axis.set(xlabel="epoch", ylabel=title)
        axis.set_yscale("log")
        twin = axis.twinx()
        twin.plot(
            [row["epoch"] for row in history],
            [row.get("hessian_weight", 0.0) for row in history],
            color="0.6",
            linestyle="--",
        )
        twin.set_ylabel("weight λ", color="0.5")
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, dpi=150)
