"""The map of a selection: everything, what was taken, and what gets a Hessian."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hint_plugins.runs.figures import legend_below, new_figure, save_figure
from hint_plugins.selection.choose import Selection

_MOST = 50_000


def plot_map(selection: Selection, path: Path) -> None:
    """Draw the first two principal components of all structures (at most 50,000 points a kind)."""
    points = selection.points
    if points is None:
        raise ValueError("the selection has no map")
    if points.shape[1] < 2:
        points = np.column_stack([points[:, 0], np.zeros(len(points))])
    figure, axes = new_figure(6, 5)
    groups = (
        (~selection.taken, "0.75", 4, "left"),
        (selection.taken & ~selection.hessian, "tab:blue", 8, "energy and forces"),
        (selection.hessian, "tab:red", 12, "energy, forces, Hessian"),
    )
    for mask, colour, size, name in groups:
        indices = np.flatnonzero(mask)
        if not len(indices):
            continue
        shown = indices[:: max(1, len(indices) // _MOST)]
        axes.scatter(
            points[shown, 0], points[shown, 1], s=size, c=colour, label=f"{name} ({len(indices)})", linewidths=0
        )
    axes.set_xlabel("SOAP principal component 1")
    axes.set_ylabel("SOAP principal component 2")
    legend_below(figure)
    save_figure(figure, path)
