"""How far lambda and Tc depend on electronic broadening, q mesh and Matsubara cutoff."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hint_plugins.errors import InputError
from hint_plugins.runs.figures import legend_below, new_figure, save_figure
from hint_plugins.runs.files import write_csv
from hint_recipes.crystals.superconductivity.alpha2f import Alpha2F, allen_dynes
from hint_recipes.crystals.superconductivity.alpha2f_file import read_alpha2f
from hint_recipes.crystals.superconductivity.carried import carried_phonons, choose_route
from hint_recipes.crystals.superconductivity.electron_phonon import read_mode_couplings, reproject
from hint_recipes.crystals.superconductivity.eliashberg import Eliashberg
from hint_recipes.crystals.superconductivity.matdyn import prepare_matdyn, run_matdyn

#: Electronic broadenings of an electron-phonon run.
BROADENINGS = range(1, 11)


def convergence(
    out: Path,
    elph_dir: Path,
    harmonic_prefix: Path,
    others: Sequence[Path],
    mu_star: float,
    *,
    masses: Sequence[str] = (),
    broadening: int = 3,
    route: str = "auto",
    mesh: Sequence[int] = (12, 12, 12),
    smearing: float = 1.0,
    cutoff: float = 10.0,
    eliashberg: bool = False,
) -> list[dict[str, Any]]:
    """Vary one setting at a time about the chosen ones; writes ``convergence.csv`` and ``convergence.png``.

    Parameters
    ----------
    out
        Directory for the results, and for the runs of ``matdyn.x``.
    elph_dir, harmonic_prefix, others, masses, broadening, route, mesh, smearing
        As in :func:`hint_recipes.crystals.superconductivity.carried.carried_spectra`. The mesh is
        halved once (route ``matdyn``).
    mu_star
        Coulomb pseudopotential.
    cutoff, eliashberg
        Also the Migdal-Eliashberg Tc, at half, once and one and a half times the cutoff (in highest phonon energies).

    Returns
    -------
    list of dict
        ``source``, ``varied`` (broadening, mesh or cutoff), ``value``, ``lambda``, ``omega_log_K``, Tc.
    """
    _, harmonic = read_mode_couplings(elph_dir, harmonic_prefix, broadening)
    phonons = carried_phonons(harmonic, others, masses)
    if route == "auto":
        route = choose_route(elph_dir)
    rows: list[dict[str, Any]] = []
    for name, constants in phonons.items():
        if route == "matdyn":
            coarse = [max(1, n // 2) for n in mesh]
            spectra = {}
            for divisions in (list(mesh), coarse):
                text = "x".join(map(str, divisions))
                script = prepare_matdyn(out / f"matdyn-{name}-{text}", elph_dir, constants, mesh=divisions)
                files = run_matdyn(script)
                if divisions == list(mesh):
                    spectra = {number: _read(file) for number, file in zip(BROADENINGS, files, strict=True)}
                rows.append(_row(name, "mesh", text, _read(files[broadening - 1]), mu_star))
        else:
            spectra = {}
            for number in BROADENINGS:
                couplings, own = read_mode_couplings(elph_dir, harmonic_prefix, number)
                spectra[number] = reproject(couplings, own, constants).spectrum(smearing)
        rows += [_row(name, "broadening", number, spectrum, mu_star) for number, spectrum in spectra.items()]
        chosen = spectra[broadening]
        if eliashberg and chosen is not None:
            for value in (0.5 * cutoff, cutoff, 1.5 * cutoff):
                row = _row(name, "cutoff", value, chosen, mu_star)
                tc = Eliashberg(chosen, mu_star, cutoff=value).critical_temperature()
                rows.append(row | {"tc_eliashberg_K": tc or None})
    write_csv(out / "convergence.csv", rows)
    _plot(rows, mu_star, out / "convergence.png")
    return rows


def _read(file: Path) -> Alpha2F | None:
    """A spectrum, or None where this broadening gives no positive one."""
    try:
        return read_alpha2f(file)
    except InputError:
        return None


def _row(name: str, varied: str, value: Any, spectrum: Alpha2F | None, mu_star: float) -> dict[str, Any]:
    row: dict[str, Any] = {"source": name, "varied": varied, "value": value, "mu_star": mu_star}
    if spectrum is None:
        return row | {"lambda": None, "omega_log_K": None, "tc_allen_dynes_K": None}
    moments = spectrum.coupling, spectrum.omega_log, spectrum.omega_2
    return row | {
        "lambda": moments[0],
        "omega_log_K": moments[1],
        "tc_allen_dynes_K": allen_dynes(*moments, mu_star).tc,
    }


def _plot(rows: Sequence[Mapping[str, Any]], mu_star: float, path: Path) -> None:
    figure, axes = new_figure(6.4, 5.6, nrows=2, sharex=True)
    for name in dict.fromkeys(row["source"] for row in rows):
        own = [row for row in rows if row["source"] == name and row["varied"] == "broadening" and row["lambda"]]
        x = [row["value"] for row in own]
        axes[0].plot(x, [row["lambda"] for row in own], "o-", ms=3, label=name)
        axes[1].plot(x, [row["tc_allen_dynes_K"] for row in own], "o-", ms=3)
    axes[0].set(ylabel=r"$\lambda$", ylim=(0, None))
    axes[1].set(ylabel=rf"$T_c$ (K), Allen-Dynes, $\mu^*$ = {mu_star:g}", ylim=(0, None))
    axes[1].set_xlabel("electronic broadening (number in the files)")
    legend_below(figure)
    save_figure(figure, path)
