"""Plots of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hint_plugins.runs.figures import legend_below, new_figure, save_figure

#: Axis labels of what a validation gives.
PANELS = {
    "hessian_mae": "Hessian MAE (eV/Å²)",
    "eigenvalue_mae": "eigenvalue MAE (eV/Å²)",
    "frequency_mae_cm1": "frequency MAE (cm⁻¹)",
    "hvp_mae": "Hessian product MAE (eV/Å²)",
    "hessian_weight": "weight of the Hessian loss",
}


def plot_history(history: list[dict[str, Any]], path: Path) -> None:
    """Validation errors of Hessian, eigenvalues and frequencies, and the weight of the Hessian loss, against epoch.

    Parameters
    ----------
    history
        One dictionary a validation, with ``epoch`` (epochs done), any of the names of :data:`PANELS`, and ``head``
        where a model has several (one line for each head).
    path
        PNG file.
    """
    from matplotlib.ticker import LogFormatter

    names = [name for name in PANELS if any(name in row for row in history)] or ["hessian_mae"]
    heads = list(dict.fromkeys(row.get("head") for row in history))
    figure, panels = new_figure(3.4 * len(names), 3.2, ncols=len(names), squeeze=False)
    for axes, name in zip(panels[0], names, strict=True):
        for head in heads:
            rows = [row for row in history if name in row and row.get("head") == head]
            style = {"marker": "o", "markersize": 3, "label": None if len(heads) == 1 else f"head {head}"}
            axes.plot([row["epoch"] for row in rows], [row[name] for row in rows], **style)
        axes.set(xlabel="epochs done", ylabel=PANELS[name])
        axes.locator_params(axis="x", integer=True, nbins=5)
        if name == "hessian_weight":
            axes.set_ylim(0, None)
        else:
            axes.set_yscale("log")
            plain = LogFormatter(minor_thresholds=(2, 0.5))  # 200 and not 2 x 10^2
            axes.yaxis.set(major_formatter=plain, minor_formatter=plain)
    legend_below(figure)
    save_figure(figure, path)
