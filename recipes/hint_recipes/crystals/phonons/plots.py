"""Pictures of phonons: bands, densities of states and free energies of several sources side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hint_plugins.runs.figures import legend_below, new_figure, save_figure
from hint_recipes.crystals.phonons.harmonic import Bands, Harmonic

#: Above bands of a crystal that may be polar.
WITHOUT_CHARGES = "no Born effective charges: no splitting of longitudinal and transverse modes"


def draw_bands(axes, sources: Mapping[str, Bands]) -> None:
    """Bands of several sources; the first one's path labels the axis."""
    for number, (name, bands) in enumerate(sources.items()):
        style = {"color": f"C{number}", "lw": 1.2, "ls": "-" if number == 0 else ("--", ":", "-.")[(number - 1) % 3]}
        for x, y in zip(bands.distances, bands.frequencies, strict=True):
            axes.plot(x, y, **style)
        axes.plot([], [], label=name, **style)
    ticks: dict[float, str] = {}
    for place, name in next(iter(sources.values())).labels:
        label = {"G": "Γ"}.get(name, name)
        ticks[place] = f"{ticks[place]}|{label}" if ticks.get(place, label) != label else label
    axes.set_xticks(list(ticks), list(ticks.values()))
    for place in ticks:
        axes.axvline(place, color="0.8", lw=0.6, zorder=0)
    axes.axhline(0, color="0.5", lw=0.6)
    axes.set_xlim(0, max(ticks))
    axes.set_ylabel("wave number (cm$^{-1}$), imaginary below 0")


def plot_bands(sources: Mapping[str, Bands], path: Path, *, title: str | None = None) -> None:
    """Write the picture of :func:`draw_bands`, with a warning above it where there is one."""
    figure, axes = new_figure()
    draw_bands(axes, sources)
    if title:
        axes.set_title(title, fontsize=9, color="C3")
    legend_below(figure)
    save_figure(figure, path)


def plot_dos(sources: Mapping[str, Harmonic], path: Path) -> None:
    """Densities of states of several sources; of a single one also what each element has of it."""
    figure, axes = new_figure()
    for name, result in sources.items():
        axes.plot(*result.dos.T, label=name)
        if len(sources) == 1 and len(result.dos_of_elements) > 1:
            for symbol, part in result.dos_of_elements.items():
                axes.plot(result.dos[:, 0], part, lw=1, ls="--", label=symbol)
    axes.set(xlabel="wave number (cm$^{-1}$)", ylabel="density of states (per cm$^{-1}$ and unit cell)")
    legend_below(figure)
    save_figure(figure, path)


def plot_thermal(sources: Mapping[str, Harmonic], path: Path) -> None:
    """Vibrational free energy and heat capacity against temperature."""
    figure, (left, right) = new_figure(8, 3.6, ncols=2)
    for name, result in sources.items():
        temperature = [row["temperature_K"] for row in result.thermal]
        left.plot(temperature, [1000 * row["free_energy_eV"] for row in result.thermal], "o-", label=name)
        right.plot(temperature, [1000 * row["heat_capacity_eV_per_K"] for row in result.thermal], "o-", label=name)
    left.set(xlabel="temperature (K)", ylabel="free energy (meV per unit cell)")
    right.set(xlabel="temperature (K)", ylabel="heat capacity (meV/K per unit cell)")
    if any(result.left_out() for result in sources.values()):
        figure.suptitle("imaginary modes are left out, see thermal.csv", fontsize=9, color="C3")
    legend_below(figure)
    save_figure(figure, path)
