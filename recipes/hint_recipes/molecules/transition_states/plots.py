"""Energy profiles of single reactions and success counts of whole sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hint_plugins.runs.figures import legend_below, new_figure, save_figure, wrapped
from hint_plugins.units import KCAL
from hint_recipes.molecules.paths.elastic_band import path_length

if TYPE_CHECKING:
    from hint_recipes.molecules.transition_states.result import SearchResult

STAGES = (("n_path", "path"), ("n_ts", "transition state"), ("n_intended", "intended"))


def plot_profile(result: SearchResult, path: Path) -> None:
    """Energy along the reaction coordinate (else along the guessed path), kcal/mol above the relaxed reactant.

    The zero is that of the barrier; an end of the coordinate that is another conformer lies off it.
    """
    coordinate = result.irc or []
    frames = coordinate or result.path
    energies = np.array([frame.get_potential_energy() for frame in frames]) - result.record["reactant_energy"]
    energies /= KCAL
    along = path_length(frames)
    figure, axis = new_figure(5.2, 3.4)
    axis.plot(along, energies, "-o", markersize=2.5, linewidth=1)
    if coordinate and result.ts is not None:
        top = next(i for i, frame in enumerate(frames) if frame is result.ts)
        wave = result.record["imaginary_cm1"]
        axis.plot(along[top], energies[top], "*", markersize=11, label=f"saddle, {wave:.0f}i cm⁻¹")
        legend_below(figure)
    state = "intended" if result.record["intended"] else str(result.record["reason"])
    axis.set(
        xlabel="reaction coordinate (amu$^{1/2}$ Å)" if coordinate else "guessed path (amu$^{1/2}$ Å)",
        ylabel="energy above the reactant (kcal/mol)",
    )
    axis.set_title(wrapped(f"{result.record['name']}: {state}", 4.6, 11), fontsize=11)
    save_figure(figure, path)


def plot_success(summaries: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Bars: how many reactions of the set reached each stage, for every model.

    Parameters
    ----------
    summaries
        Model name -> the result of :func:`~hint_recipes.molecules.transition_states.study.summarise`.
    path
        PNG file.
    """
    figure, axis = new_figure(3.4 + 1.0 * len(summaries), 3.6)
    width = 0.8 / len(summaries)
    for k, (name, summary) in enumerate(summaries.items()):
        places = np.arange(len(STAGES)) + (k - (len(summaries) - 1) / 2) * width
        counts = [summary[key] for key, _ in STAGES]
        bars = axis.bar(places, counts, width, label=f"{name} ({summary['n_reactions']} reactions)")
        axis.bar_label(bars, fontsize=8)
    axis.set_xticks(np.arange(len(STAGES)), [label for _, label in STAGES])
    most = max(summary["n_reactions"] for summary in summaries.values())
    axis.set(xlabel="stage reached", ylabel="number of reactions", ylim=(0, 1.15 * most))
    legend_below(figure)
    save_figure(figure, path)
