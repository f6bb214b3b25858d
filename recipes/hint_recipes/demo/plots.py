"""Pictures of the comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hint_recipes.demo.tables import ERRORS

#: The two trainings: name in tables, colour, and what it means.
KINDS = (
    ("E/F", "C1", "trained on energies and forces (E/F)"),
    ("E/F/H", "C0", "trained on energies, forces and Hessians (E/F/H)"),
)


def plot_comparison(rows: list[dict[str, Any]], path: Path) -> None:
    """Held-out errors with and without Hessians: bars for one size of the training set, lines for several."""
    from hint_plugins.runs.figures import legend_below, new_figure, save_figure, three_digits

    sizes = sorted({(row["structures"], row["labelled"]) for row in rows})
    figure, panels = new_figure(2.6 * len(ERRORS), 3.4, ncols=len(ERRORS))
    for axes, (key, label) in zip(panels, ERRORS.items(), strict=True):
        for place, (kind, colour, name) in enumerate(KINDS):
            mine = [row for row in rows if row["training"] == kind]
            means = [np.mean([r[key] for r in mine if (r["structures"], r["labelled"]) == size]) for size in sizes]
            if len(sizes) == 1:
                bar = axes.bar([place], means, 0.7, color=colour, label=name)
                axes.bar_label(bar, fmt=three_digits, padding=2, fontsize=9)
                places = [place] * len(mine)
            else:
                axes.plot([n for n, _ in sizes], means, color=colour, label=name)
                places = [row["structures"] for row in mine]
            if len(mine) > len(sizes):  # several seeds
                dots = {"color": "0.2" if len(sizes) == 1 else colour, "s": 12, "zorder": 3}
                axes.scatter(places, [row[key] for row in mine], **dots)
        if len(sizes) == 1:
            axes.set(xticks=range(len(KINDS)), xticklabels=[kind for kind, _, _ in KINDS], xlabel="training on")
        else:
            axes.set(xticks=[n for n, _ in sizes], xlabel="training structures\nper reaction")
        axes.set(ylabel=label, ylim=(0, 1.15 * axes.get_ylim()[1]))
    figure.suptitle("Errors on held-out structures of the same reactions", fontsize=11)
    legend_below(figure)
    save_figure(figure, path)
