"""Pictures of the study; every one shows the numbers of the table beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matrix import Run
from results import Results, label, number, varying
from statistics_of_pairs import mean_and_spread

from hint_plugins.runs.figures import legend_below, new_figure, save_figure, wrapped

Groups = dict[Run, list[Run]]


def lines_of_shares(results: Results, groups: Groups, columns: dict[str, str], path: Path) -> bool:
    """Means and spread over seeds against the share of Hessians; a line for all else that varies."""
    fields = [name for name in varying(groups) if name != "share"]
    shares = sorted({run.share for run in groups})
    curves: dict[str, dict[float, list[Run]]] = {}
    for condition, runs in groups.items():
        curves.setdefault(label(condition, [f for f in fields if f in ("model", "pretrained", "selection")]), {})[
            condition.share
        ] = runs
    columns = {k: v for k, v in columns.items() if any(results.values(runs, k) for runs in groups.values())}
    if len(shares) < 2 or not columns:
        return False
    figure, panels = new_figure(3.2 * len(columns), 3.2, ncols=len(columns), squeeze=False)
    for axes, (key, heading) in zip(panels[0], columns.items(), strict=True):
        for colour, (name, points) in enumerate(curves.items()):
            found = [(s, *mean_and_spread(results.values(points[s], key))) for s in shares if s in points]
            known = [(shares.index(s), mean, spread or 0.0) for s, mean, spread in found if mean is not None]
            if known:
                x, y, error = zip(*known, strict=True)
                axes.errorbar(x, y, error, marker="o", markersize=4, capsize=3, color=f"C{colour}", label=name)
        axes.set_xticks(range(len(shares)), [f"{share:g}" for share in shares])
        axes.set(
            xlabel="structures with\na Hessian (%)", ylabel=heading, ylim=(0, None), xlim=(-0.3, len(shares) - 0.7)
        )
    legend_below(figure)
    save_figure(figure, path)
    return True


def bars(results: Results, groups: Groups, columns: dict[str, str], path: Path) -> bool:
    """Means over seeds as bars, single seeds as dots, one row of bars a condition."""
    fields = varying(groups)
    done = {c: runs for c, runs in groups.items() if any(results.values(runs, k) for k in columns)}
    columns = {k: v for k, v in columns.items() if any(results.values(runs, k) for runs in done.values())}
    if not columns:
        return False
    height = 1.0 + 0.36 * len(done)
    figure, panels = new_figure(3.0 + 2.4 * len(columns), height, ncols=len(columns), squeeze=False, sharey=True)
    for axes, (key, heading) in zip(panels[0], columns.items(), strict=True):
        for place, runs in enumerate(done.values()):
            values = results.values(runs, key)
            mean, _ = mean_and_spread(values)
            if mean is not None:
                axes.barh(place, mean, 0.7, color="C0", alpha=0.6)
                axes.plot(values, [place] * len(values), "k.", markersize=4)
        axes.set(xlabel=wrapped(heading, 2.2), xlim=(0, None))
    names = [wrapped(label(condition, fields), 3.0, 9) for condition in done]
    panels[0][0].set_yticks(range(len(done)), names, fontsize=8)
    panels[0][0].set(ylabel="training on", ylim=(len(done) - 0.5, -0.5))
    save_figure(figure, path)
    return True


def reasons(results: Results, groups: Groups, path: Path) -> list[dict[str, Any]]:
    """Why searches end without the intended saddle: a stacked bar a condition, mean number of reactions a seed.

    Returns
    -------
    list of dict
        The same as a table; nothing is drawn where there are no searches.
    """
    fields, counts, seeds = varying(groups), [], []
    shown = [c for c, runs in groups.items() if results.rows("reactions", runs)]
    for condition in shown:
        counts.append(Counter(row["reason"] or "intended" for row in results.rows("reactions", groups[condition])))
        seeds.append(sum(bool(results.tables["reactions"].get(run.name)) for run in groups[condition]))
    order = [name for name, _ in sum(counts, Counter()).most_common() if name != "intended"]
    if not shown:
        return []
    figure, axes = new_figure(7.0, 1.2 + 0.36 * len(shown))
    for place, (count, n) in enumerate(zip(counts, seeds, strict=True)):
        left = 0.0
        for colour, name in enumerate(["intended", *order]):
            axes.barh(place, count[name] / n, 0.7, left=left, color=f"C{colour % 10}", label=name.replace("_", " "))
            left += count[name] / n
    axes.set_yticks(range(len(shown)), [wrapped(label(c, fields), 3.0, 9) for c in shown], fontsize=8)
    axes.set(xlabel="number of reactions", ylabel="training on", ylim=(len(shown) - 0.5, -0.5))
    legend_below(figure)
    save_figure(figure, path)
    return [
        {"training": label(c, fields), **{name.replace("_", " "): count[name] / n for name in ["intended", *order]}}
        for c, count, n in zip(shown, counts, seeds, strict=True)
    ]


def courses(results: Results, groups: Groups, path: Path) -> bool:
    """Validation error of Hessian products in the course of training, every seed a line."""
    fields = varying(groups)
    figure, axes = new_figure(6.4, 4.0)
    drawn = False
    for colour, (condition, runs) in enumerate(groups.items()):
        for run in runs:
            rows = [row for row in results.tables["curves"].get(run.name, []) if number(row["hvp_mae"]) is not None]
            if len(rows) > 1:
                last = max(float(row["epoch"]) for row in rows) or 1.0
                x, y = ([float(row[key]) for row in rows] for key in ("epoch", "hvp_mae"))
                axes.plot(100 * np.array(x) / last, y, color=f"C{colour % 10}", label=label(condition, fields))
                drawn = True
    if drawn:
        axes.set(xlabel="part of the training (%)", ylabel="error of Hessian products, validation (eV/Å²)")
        axes.set_yscale("log")
        legend_below(figure)
        save_figure(figure, path)
    return drawn


def names_of(pictures: Sequence[tuple[str, bool]]) -> list[str]:
    """Markdown lines of the pictures that were drawn."""
    return [f"![{name}]({name})" for name, drawn in pictures if drawn]
