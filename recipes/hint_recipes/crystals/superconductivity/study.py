"""Critical temperatures from spectral functions: tables and pictures in one directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hint_plugins.errors import InputError
from hint_plugins.runs.directory import write_summary
from hint_plugins.runs.figures import legend_below, new_figure, save_figure
from hint_plugins.runs.files import write_csv
from hint_recipes.crystals.superconductivity.alpha2f import Alpha2F, allen_dynes, read_alpha2f
from hint_recipes.crystals.superconductivity.eliashberg import Eliashberg


def critical_temperatures(
    spectrum: Alpha2F,
    mu_star: Sequence[float],
    *,
    eliashberg: bool = False,
    temperatures: Sequence[float] = (),
    cutoff: float = 10.0,
    rescale_mu: bool = True,
) -> dict[str, Any]:
    """Moments, Allen-Dynes Tc for each mu*, and the Migdal-Eliashberg Tc and gaps.

    Parameters
    ----------
    spectrum
        alpha2F.
    mu_star
        Coulomb pseudopotentials.
    eliashberg
        Solve the Migdal-Eliashberg equations too.
    temperatures
        K, for the gap; by default twelve between 0.2 and 0.97 Tc, less those too low to be solved.
    cutoff, rescale_mu
        See :class:`hint_recipes.crystals.superconductivity.eliashberg.Eliashberg`.

    Returns
    -------
    dict
        ``read_as`` (of spectra from files), ``lambda, omega_log_K, omega_2_K, tc_K, tc_mcmillan_K, factors`` and with
        ``eliashberg`` also ``tc_eliashberg_K`` (None where it lies below ``solver_reaches_K``) and ``gap`` (rows of
        mu*, temperature, gap in meV).
    """
    if not mu_star:
        raise InputError("give at least one --mu-star")
    if wrong := [mu for mu in mu_star if not 0 <= mu < 1]:
        raise InputError(f"--mu-star {wrong[0]}: mu* is at least 0 and below 1")
    moments = spectrum.coupling, spectrum.omega_log, spectrum.omega_2
    closed = {mu: allen_dynes(*moments, mu) for mu in mu_star}
    result: dict[str, Any] = {
        **({"read_as": spectrum.read_as} if spectrum.read_as else {}),
        "lambda": moments[0],
        "omega_log_K": moments[1],
        "omega_2_K": moments[2],
        "tc_K": {str(mu): r.tc for mu, r in closed.items()},
        "tc_mcmillan_K": {str(mu): r.tc_mcmillan for mu, r in closed.items()},
        "factors": {str(mu): {"f1": r.f1, "f2": r.f2} for mu, r in closed.items()},
    }
    if not eliashberg:
        return result
    result["tc_eliashberg_K"], result["gap"], result["solver_reaches_K"] = {}, [], {}
    for mu in mu_star:
        equations = Eliashberg(spectrum, mu, cutoff=cutoff, rescale_mu=rescale_mu)
        tc = equations.critical_temperature()
        result["tc_eliashberg_K"][str(mu)] = tc or None
        result["solver_reaches_K"][str(mu)] = equations.lowest_temperature
        reachable = [t for t in np.linspace(0.2, 0.97, 12) * tc if t >= equations.lowest_temperature]
        if cold := [t for t in temperatures if 0 < t < equations.lowest_temperature]:
            print(f"hint: no gap at {cold[0]} K: the solver reaches {equations.lowest_temperature:.3g} K")
        wanted = [t for t in temperatures if t >= equations.lowest_temperature] if temperatures else reachable
        for temperature in wanted:
            gap = 0.0 if tc and temperature >= tc else equations.gap(temperature).edge
            result["gap"].append({"mu_star": mu, "temperature_K": temperature, "gap_meV": gap})
    return result


def run_tc(
    out: Path,
    spectra: Mapping[str, Alpha2F],
    mu_star: Sequence[float],
    *,
    eliashberg: bool = False,
    temperatures: Sequence[float] = (),
    cutoff: float = 10.0,
    rescale_mu: bool = True,
) -> dict[str, Any]:
    """:func:`critical_temperatures` for several spectra; writes tables, pictures and ``summary.json`` into ``out``."""
    sources = {
        name: critical_temperatures(
            spectrum, mu_star, eliashberg=eliashberg, temperatures=temperatures, cutoff=cutoff, rescale_mu=rescale_mu
        )
        for name, spectrum in spectra.items()
    }
    table = [
        {
            "source": name,
            "mu_star": mu,
            "lambda": r["lambda"],
            "omega_log_K": r["omega_log_K"],
            "omega_2_K": r["omega_2_K"],
            "tc_allen_dynes_K": r["tc_K"][str(mu)],
            "tc_mcmillan_K": r["tc_mcmillan_K"][str(mu)],
            **({"tc_eliashberg_K": temperature_text(r, mu)} if eliashberg else {}),
        }
        for name, r in sources.items()
        for mu in mu_star
    ]
    write_csv(out / "tc.csv", table)
    if eliashberg:
        write_csv(out / "gap.csv", [{"source": name, **row} for name, r in sources.items() for row in r["gap"]])
        if any(r["gap"] for r in sources.values()):
            _plot_gap(sources, out / "gap.png")
    for name, spectrum in spectra.items():
        rows = zip(spectrum.omega, spectrum.values, spectrum.cumulative_coupling(), strict=True)
        write_csv(out / f"alpha2f-{name}.csv", [{"meV": w, "alpha2F": a, "lambda": c} for w, a, c in rows])
    _plot_spectra(spectra, out / "alpha2f.png")
    _plot_tc(spectra, mu_star, sources, out / "tc.png")
    for row in table:
        full = f", {row['tc_eliashberg_K']} K (Migdal-Eliashberg)" if eliashberg else ""
        print(
            f"{row['source']}: lambda {row['lambda']:.3f}, omega_log {row['omega_log_K']:.0f} K, "
            f"mu* {row['mu_star']:g}: Tc {row['tc_allen_dynes_K']:.2f} K (Allen-Dynes){full}"
        )
    convention = mu_star_convention(cutoff, rescale_mu)
    if eliashberg:
        print(convention)
    summary = {**next(iter(sources.values())), "mu_star_convention": convention, "sources": sources}
    write_summary(out, summary)
    return summary


def temperature_text(result: Mapping[str, Any], mu: float) -> str:
    """The Migdal-Eliashberg Tc of one mu* in K, or below which temperature the solver could not look."""
    tc = result["tc_eliashberg_K"][str(mu)]
    return f"below {result['solver_reaches_K'][str(mu)]:.2g}" if tc is None else f"{tc:.4g}"


def mu_star_convention(cutoff: float, rescale_mu: bool) -> str:
    """One sentence on what mu* means in the Migdal-Eliashberg equations; Allen-Dynes takes it as it is given."""
    if not rescale_mu:
        return f"mu* of Migdal-Eliashberg: taken as it is at the Matsubara cutoff of {cutoff:g} highest phonon energies"
    return (
        "mu* of Migdal-Eliashberg: given at the highest phonon energy and brought to the Matsubara cutoff of "
        f"{cutoff:g} times it, 1/mu*' = 1/mu* - ln {cutoff:g}"
    )


def read_spectra(files: Sequence[Path], **options: Any) -> dict[str, Alpha2F]:
    """Read several files and say how; equal names are told apart by their directory."""
    names = [f.name for f in files]
    keys = [f.name if names.count(f.name) == 1 else f"{f.parent.name}-{f.name}" for f in files]
    spectra = {key: read_alpha2f(file, **options) for key, file in zip(keys, files, strict=True)}
    for key, spectrum in spectra.items():
        print(f"{key}: {spectrum.read_as}; lambda = {spectrum.coupling:.4g}")
    return spectra


def _plot_spectra(spectra: Mapping[str, Alpha2F], path: Path) -> None:
    figure, axes = new_figure()
    right = axes.twinx()
    for number, (name, spectrum) in enumerate(spectra.items()):
        axes.plot(spectrum.omega, spectrum.values, color=f"C{number}", label=name)
        right.plot(spectrum.omega, spectrum.cumulative_coupling(), color=f"C{number}", ls="--", lw=1)
    axes.set(xlabel="phonon energy (meV)", ylabel=r"$\alpha^2F$", xlim=(0, None), ylim=(0, None))
    right.set(ylabel=r"$\lambda(\omega)$, dashed", ylim=(0, None))
    legend_below(figure)
    save_figure(figure, path)


def _plot_tc(spectra: Mapping[str, Alpha2F], mu_star: Sequence[float], sources: Mapping, path: Path) -> None:
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


def _plot_gap(sources: Mapping[str, Any], path: Path) -> None:
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
