"""Critical temperatures and gaps of one spectral function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hint_plugins.runs.progress import note
from hint_recipes.crystals.superconductivity.alpha2f import Alpha2F, allen_dynes
from hint_recipes.crystals.superconductivity.eliashberg import Eliashberg
from hint_recipes.crystals.superconductivity.settings import TcSettings


def critical_temperatures(spectrum: Alpha2F, settings: TcSettings | None = None) -> dict[str, Any]:
    """Moments, Allen-Dynes Tc for each mu*, and the Migdal-Eliashberg Tc and gaps.

    Parameters
    ----------
    spectrum
        alpha2F.
    settings
        Coulomb pseudopotentials, what is solved.

    Returns
    -------
    dict
        ``read_as`` (of spectra from files), ``lambda, omega_log_K, omega_2_K, tc_K, tc_mcmillan_K, factors`` and with
        ``eliashberg`` also ``tc_eliashberg_K`` (None where it lies below ``solver_reaches_K``) and ``gap`` (rows of
        mu*, temperature, gap in meV).
    """
    settings = settings or TcSettings()
    mu_star, temperatures = settings.mu_star, settings.temperature
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
    if not settings.eliashberg:
        return result
    result["tc_eliashberg_K"], result["gap"], result["solver_reaches_K"] = {}, [], {}
    for mu in mu_star:
        equations = Eliashberg(spectrum, mu, cutoff=settings.cutoff, rescale_mu=settings.rescale_mu)
        tc = equations.critical_temperature()
        result["tc_eliashberg_K"][str(mu)] = tc or None
        result["solver_reaches_K"][str(mu)] = equations.lowest_temperature
        reachable = [t for t in np.linspace(0.2, 0.97, 12) * tc if t >= equations.lowest_temperature]
        if cold := [t for t in temperatures if 0 < t < equations.lowest_temperature]:
            note(f"no gap at {cold[0]} K: the solver reaches {equations.lowest_temperature:.3g} K")
        wanted = [t for t in temperatures if t >= equations.lowest_temperature] if temperatures else reachable
        for temperature in wanted:
            gap = 0.0 if tc and temperature >= tc else equations.gap(temperature).edge
            result["gap"].append({"mu_star": mu, "temperature_K": temperature, "gap_meV": gap})
    return result


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
