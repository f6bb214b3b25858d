"""Pictures of errors of Gibbs energies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hint_recipes.molecules.thermochemistry.reactions import CHEMICAL_ACCURACY


def plot_gibbs_errors(differences: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Mean absolute errors of G and of G - E for minima and transition states, with chemical accuracy as a line.

    Two panels, since the total energies of two levels may differ by much more than their corrections.

    Parameters
    ----------
    differences
        Model name -> first result of :func:`~hint_recipes.molecules.thermochemistry.reactions.errors_against`.
    path
        PNG file.
    """
    from hint_plugins.runs.figures import legend_below, new_figure, save_figure

    figure, panels = new_figure(6.4, 3.4, ncols=2)
    width = 0.8 / len(differences)
    for axis, (quantity, key) in zip(panels, (("G", "gibbs_error"), ("G − E", "gibbs_correction_error")), strict=True):
        for k, (name, rows) in enumerate(differences.items()):
            for place, saddles in enumerate((False, True)):
                errors = [abs(row[key]) for row in rows if (row["role"] == "ts") == saddles]
                if errors:
                    x = place + (k - (len(differences) - 1) / 2) * width
                    bar = axis.bar([x], [np.mean(errors)], width, color=f"C{k}", label=name)
                    axis.bar_label(bar, fmt="%.3f", fontsize=7, padding=3)
                    axis.plot(np.full(len(errors), x), errors, ".", color="0.3", markersize=3)
        axis.axhline(CHEMICAL_ACCURACY, color="0.4", linestyle="--", linewidth=1, label="1 kcal/mol")
        axis.margins(y=0.1)
        axis.set_xticks((0, 1), ("minima", "saddles"))
        axis.set(xlabel="stationary points", ylabel=f"mean absolute error of {quantity} (eV)", xlim=(-0.6, 1.6))
    legend_below(figure)
    save_figure(figure, path)
