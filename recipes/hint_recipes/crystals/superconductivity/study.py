"""Critical temperatures from spectral functions: tables and pictures in one directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hint_plugins.errors import InputError
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.files import write_csv
from hint_plugins.runs.progress import note
from hint_recipes.crystals.superconductivity.alpha2f import Alpha2F, allen_dynes, read_alpha2f
from hint_recipes.crystals.superconductivity.eliashberg import Eliashberg
from hint_recipes.crystals.superconductivity.plots import plot_gap, plot_spectra, plot_tc
from hint_recipes.crystals.superconductivity.settings import CouplingSettings, TcSettings


@dataclass(frozen=True)
class ElectronPhonon:
    """An electron-phonon run of Quantum ESPRESSO, and the phonons on which its coupling is put.

    Attributes
    ----------
    elph_dir
        Directory that ``ph.x`` wrote.
    harmonic
        Prefix of the dynamical matrix files of the same run.
    anharmonic
        Files of other force constants of the same crystal, on the same or a coarser q grid.
    masses
        Isotopes in them, ``SYMBOL=MASS`` in u.
    clip_negative
        Set negative values of alpha2F in the results of ``matdyn.x`` to zero instead of refusing them.
    settings
        How the coupling is put on them.
    """

    elph_dir: Path
    harmonic: Path
    anharmonic: Sequence[Path] = ()
    masses: Sequence[str] = ()
    clip_negative: bool = False
    settings: CouplingSettings = field(default_factory=CouplingSettings)


@dataclass(frozen=True)
class CriticalTemperatures:
    """Critical temperatures of one or several spectral functions.

    Attributes
    ----------
    directory
        Where everything lies: ``tc.csv``, ``gap.csv``, ``alpha2f-NAME.csv``, pictures, ``summary.json``.
    table
        Rows of ``tc.csv``: source, mu*, moments, critical temperatures (K).
    summary
        What ``summary.json`` holds: the entries of :func:`critical_temperatures` for each of the ``sources``, those of
        the first also at the top. Empty where inputs of ``matdyn.x`` were only prepared.
    """

    directory: Path
    table: list[dict[str, Any]]
    summary: dict[str, Any]

    def report(self) -> str:
        """How files were read, and the critical temperatures, as text."""
        if not self.summary:
            return (
                f"inputs written into {self.directory}: run run.sh in each directory, then give its a2F.dosN to "
                "`hint tc`"
            )
        sources = self.summary["sources"]
        lines = [
            f"{name}: {source['read_as']}; lambda = {source['lambda']:.4g}"
            for name, source in sources.items()
            if "read_as" in source
        ]
        for row in self.table:
            full = f", {row['tc_eliashberg_K']} K (Migdal-Eliashberg)" if "tc_eliashberg_K" in row else ""
            lines.append(
                f"{row['source']}: lambda {row['lambda']:.3f}, omega_log {row['omega_log_K']:.0f} K, "
                f"mu* {row['mu_star']:g}: Tc {row['tc_allen_dynes_K']:.2f} K (Allen-Dynes){full}"
            )
        if any("tc_eliashberg_K" in row for row in self.table):
            lines.append(self.summary["mu_star_convention"])
        return "\n".join(lines)


def compute_tc(
    spectra: Mapping[str, Alpha2F],
    directory: str | Path,
    settings: TcSettings | None = None,
    *,
    coupling: ElectronPhonon | None = None,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> CriticalTemperatures:
    """Superconducting critical temperatures: Allen-Dynes and Migdal-Eliashberg, harmonic and anharmonic.

    Parameters
    ----------
    spectra
        Spectral functions by name (:func:`read_spectra`); may be empty with ``coupling``.
    directory
        For the results.
    settings
        Coulomb pseudopotentials, what is solved.
    coupling
        An electron-phonon run whose coupling is put on other phonons, and these.
    options
        What ``config.yaml`` keeps; the settings by default.
    overwrite
        Discard an earlier result in the directory.

    Returns
    -------
    CriticalTemperatures
        With one row per spectrum and mu*.

    Raises
    ------
    InputError
        If there is no spectrum, a file does not fit, or the directory holds a result.
    """
    settings = settings or TcSettings()
    if not spectra and coupling is None:
        raise InputError("give alpha2F files, or --elph-dir with --harmonic")
    if options is None:
        options = settings.model_dump() | (coupling.settings.model_dump() if coupling else {})
    with RunDirectory(Path(directory), "tc", options, overwrite=overwrite) as run:
        found = {**spectra, **(_carried(run.path, coupling, settings) if coupling else {})}
        if not found:
            return CriticalTemperatures(run.path, [], {})
        sources = {name: critical_temperatures(spectrum, settings) for name, spectrum in found.items()}
        table = _table(sources, settings)
        _write(run.path, found, sources, table, settings)
        convention = mu_star_convention(settings.cutoff, settings.rescale_mu)
        summary = {**next(iter(sources.values())), "mu_star_convention": convention, "sources": sources}
        run.finish(summary)
    return CriticalTemperatures(run.path, table, summary)


def _carried(out: Path, coupling: ElectronPhonon, settings: TcSettings) -> dict[str, Alpha2F]:
    """The spectra of a coupling on its phonons; with ``converge`` also the table of what they depend on."""
    from hint_recipes.crystals.superconductivity.convergence import convergence
    from hint_recipes.crystals.superconductivity.electron_phonon import carried_spectra

    how = coupling.settings
    if how.converge and how.prepare_only:
        raise InputError("--converge needs --elph-dir and --harmonic, and cannot go with --prepare-only")
    others = list(coupling.anharmonic)
    shared: dict[str, Any] = {"masses": coupling.masses, **how.model_dump(exclude={"converge", "prepare_only"})}
    spectra = carried_spectra(
        out,
        coupling.elph_dir,
        coupling.harmonic,
        others,
        prepare_only=how.prepare_only,
        clip_negative=coupling.clip_negative,
        **shared,
    )
    if how.converge:
        shared |= {"cutoff": settings.cutoff, "eliashberg": settings.eliashberg}
        convergence(out, coupling.elph_dir, coupling.harmonic, others, settings.mu_star[0], **shared)
    return spectra


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


def _table(sources: Mapping[str, dict[str, Any]], settings: TcSettings) -> list[dict[str, Any]]:
    """Rows of ``tc.csv``."""
    return [
        {
            "source": name,
            "mu_star": mu,
            "lambda": found["lambda"],
            "omega_log_K": found["omega_log_K"],
            "omega_2_K": found["omega_2_K"],
            "tc_allen_dynes_K": found["tc_K"][str(mu)],
            "tc_mcmillan_K": found["tc_mcmillan_K"][str(mu)],
            **({"tc_eliashberg_K": temperature_text(found, mu)} if settings.eliashberg else {}),
        }
        for name, found in sources.items()
        for mu in settings.mu_star
    ]


def _write(
    out: Path,
    spectra: Mapping[str, Alpha2F],
    sources: Mapping[str, dict[str, Any]],
    table: list[dict[str, Any]],
    settings: TcSettings,
) -> None:
    """Tables and pictures."""
    write_csv(out / "tc.csv", table)
    if settings.eliashberg:
        write_csv(out / "gap.csv", [{"source": name, **row} for name, r in sources.items() for row in r["gap"]])
        if any(r["gap"] for r in sources.values()):
            plot_gap(sources, out / "gap.png")
    for name, spectrum in spectra.items():
        rows = zip(spectrum.omega, spectrum.values, spectrum.cumulative_coupling(), strict=True)
        write_csv(out / f"alpha2f-{name}.csv", [{"meV": w, "alpha2F": a, "lambda": c} for w, a, c in rows])
    plot_spectra(spectra, out / "alpha2f.png")
    plot_tc(spectra, settings.mu_star, sources, out / "tc.png")


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
    """Spectra of several files by name (:func:`read_alpha2f`); equal names are told apart by their directory."""
    names = [f.name for f in files]
    keys = [f.name if names.count(f.name) == 1 else f"{f.parent.name}-{f.name}" for f in files]
    return {key: read_alpha2f(file, **options) for key, file in zip(keys, files, strict=True)}
