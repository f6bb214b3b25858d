"""Pictures of spectral functions, critical temperatures and gaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hint_plugins.runs.figures import legend_below, new_figure, save_figure
from hint_recipes.crystals.superconductivity.alpha2f import Alpha2F, allen_dynes


def plot_spectra(spectra: Mapping[str, Alpha2F], path: Path) -> None:
    """Spectral functions and the coupling integrated up to each energy."""
    figure, axes = new_figure()
    right = axes.twinx()
    for number, (name, spectrum) in enumerate(spectra.items()):
        axes.plot(spectrum.omega, spectrum.values, color=f"C{number}", label=name)
        right.plot(spectrum.omega, spectrum.cumulative_coupling(), color=f"C{number}", ls="--", lw=1)
    axes.set(xlabel="phonon energy (meV)", ylabel=r"$\alpha^2F$", xlim=(0, None), ylim=(0, None))
    right.set(ylabel=r"$\lambda(\omega)$, dashed", ylim=(0, None))
    legend_below(figure)
    save_figure(figure, path)


def plot_tc(spectra: Mapping[str, Alpha2F], mu_star: Sequence[float], sources: Mapping[str, Any], path: Path) -> None:
    """Critical temperatures against mu*."""
    figure, axes = new_figure()
    grid = np.linspace(0.05, 0.2, 40)
    for number, (name, spectrum) in enumerate(spectra.items()):
        moments = spectrum.coupling, spectrum.omega_log, spectrum.omega_2
        axes.plot(grid, [allen_dynes(*moments, mu).tc for mu in grid], color=f"C{number}", label=f"{name}, Allen-Dynes")
        if "tc_eliashberg_K" in sources[name]:
            values = [sources[name]["tc_eliashberg_K"][str(mu)] for mu in mu_star]
            values = [np.nan if value is None else value for value in values]  # below what the solver reaches
            axes.plot(mu_star, values, "s", color=f"C{number}", label=f"{name}, Migdal-Eliashberg")
    axes.set(xlabel=r"$\mu^*$", ylabel=r"$T_c$ (K)", ylim=(0, None))
    legend_below(figure)
    save_figure(figure, path)


def plot_gap(sources: Mapping[str, Any], path: Path) -> None:
    """Gaps against temperature."""
    figure, axes = new_figure()
    for name, result in sources.items():
        for mu in dict.fromkeys(row["mu_star"] for row in result["gap"]):
            rows = [row for row in result["gap"] if row["mu_star"] == mu]
            tc = result["tc_eliashberg_K"][str(mu)]
            end = [] if tc is None else [(tc, 0.0)]
            x, y = zip(*[(row["temperature_K"], row["gap_meV"]) for row in rows], *end, strict=True)
            axes.plot(x, y, "o-", ms=3, label=rf"{name}, $\mu^*$ = {mu}")
    axes.set(xlabel="temperature (K)", ylabel="gap at the first Matsubara energy (meV)", xlim=(0, None), ylim=(0, None))
    legend_below(figure)
    save_figure(figure, path)
