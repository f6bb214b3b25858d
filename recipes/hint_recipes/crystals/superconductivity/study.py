"""Critical temperatures from spectral functions: tables and pictures in one directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hint_plugins.errors import InputError
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.files import write_csv
from hint_recipes.crystals.superconductivity.alpha2f import Alpha2F
from hint_recipes.crystals.superconductivity.alpha2f_file import read_alpha2f
from hint_recipes.crystals.superconductivity.critical_temperatures import (
    critical_temperatures,
    mu_star_convention,
    temperature_text,
)
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
        What ``summary.json`` holds. ``sources`` are the entries of
        :func:`hint_recipes.crystals.superconductivity.critical_temperatures.critical_temperatures` by source; those of
        the first stand also at the top. Empty where inputs of ``matdyn.x`` were only prepared.
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
    from hint_recipes.crystals.superconductivity.carried import carried_spectra
    from hint_recipes.crystals.superconductivity.convergence import convergence

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


def read_spectra(files: Sequence[Path], **options: Any) -> dict[str, Alpha2F]:
    """Spectra of several files by name (:func:`read_alpha2f`); equal names are told apart by their directory."""
    names = [f.name for f in files]
    keys = [f.name if names.count(f.name) == 1 else f"{f.parent.name}-{f.name}" for f in files]
    return {key: read_alpha2f(file, **options) for key, file in zip(keys, files, strict=True)}
