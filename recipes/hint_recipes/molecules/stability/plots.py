"""Pictures of how hot molecules get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def plot_stability(results: Mapping[str, Sequence[dict[str, Any]]], path: Path) -> None:
    """Bars: temperature reached by every molecule, one colour a model; those that survived are hatched and said."""
    from matplotlib.patches import Patch

    from hint_plugins.runs.figures import legend_below, new_figure, save_figure, wrapped

    names = list(dict.fromkeys(row["name"] for rows in results.values() for row in rows))
    height = 2.8 + 0.05 * min(30, max(map(len, names)))  # slanted names below the bars
    figure, axis = new_figure(max(4.5, 2.5 + 0.5 * len(names) * max(1, len(results) / 2)), height)
    width = 0.8 / len(results)
    for k, rows in enumerate(results.values()):
        places = [names.index(row["name"]) + (k - (len(results) - 1) / 2) * width for row in rows]
        bars = axis.bar(places, [row["temperature_K"] for row in rows], width, color=f"C{k}")
        for bar, row in zip(bars, rows, strict=True):
            bar.set_hatch("//" if row["survived"] else "")
    labels = [wrapped(name, 2.0, 8) for name in names]
    axis.set_xticks(range(len(names)), labels, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axis.set(xlabel="molecule", ylabel="temperature at the end (K)")
    models = [Patch(color=f"C{k}", label=model) for k, model in enumerate(results)]
    survived = Patch(facecolor="none", edgecolor="0.3", hatch="//", label="survived the whole ramp")
    legend_below(figure, *models, survived)
    save_figure(figure, path)
