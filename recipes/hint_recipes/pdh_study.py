"""PdH from density-functional data to the end: model, harmonic and anharmonic phonons of PdH, PdD, PdT, lambda and Tc.

The data (Quantum ESPRESSO, PBE) are in ``data/pdh``; its README gives their settings and limits.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.cli.common import InputError, write_csv, write_summary
from hint_recipes.crystal_input import load_potential
from hint_recipes.finetune import run_finetune
from hint_recipes.force_constants import set_masses
from hint_recipes.phonon_plots import figure, plot_bands, save
from hint_recipes.phonons import bands, read_force_constants

#: Data of the study.
DATA = Path(__file__).parent / "data" / "pdh"
#: Dynamical matrices.
DYN = DATA / "dfpt_222" / "dyn"
#: Lattice constant (A) and energy of the undisplaced unit cell (eV), data/pdh/README.md.
LATTICE, ENERGY = 4.085, -3462.877155
#: Hydrogen isotopes, u.
ISOTOPES = {"H": 1.008, "D": 2.014, "T": 3.016}


@dataclass(frozen=True)
class StudySize:
    """How much to do; the defaults are the paper's."""

    epochs: int = 2000
    configurations: int = 500
    max_populations: int = 30
    broadening: int = 3
    mu_star: float = 0.125
    trainer_options: Mapping[str, Any] = field(default_factory=dict)


def palladium_hydride() -> Atoms:
    """Rocksalt PdH, primitive cell."""
    cell = LATTICE / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return Atoms("PdH", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=cell, pbc=True)


def run_pdh(
    out: Path,
    size: StudySize,
    *,
    model: str | None = None,
    isotopes: Sequence[str] = ("H", "D", "T"),
    device: str = "cpu",
    seed: int = 0,
) -> dict[str, Any]:
    """The whole study; finished parts in ``out`` are kept, an unfinished SSCHA run is continued.

    Parameters
    ----------
    out
        Directory.
    size
        Training length and SSCHA sampling.
    model
        A trained model to use; by default one is trained with and one without the Hessian (``out/model``).
    isotopes
        Which of H, D, T.
    device, seed
        Passed on.

    Returns
    -------
    dict
        Training figures, SSCHA results and superconductivity for each isotope, as in ``summary.json``.
    """
    unknown = sorted(set(isotopes) - set(ISOTOPES))
    if unknown:
        raise InputError(f"isotope {unknown[0]!r}: choose among {', '.join(ISOTOPES)}")
    summary: dict[str, Any] = {}
    if model is None:
        summary["training"] = _train(out / "model", size, device, seed)
        model = str(out / "model" / "hint" / "hint.model")
    potential = load_potential(model, device, "float64")
    summary["sscha"] = {name: _sscha(out / f"sscha-{name}", potential, name, size, seed, model) for name in isotopes}
    summary["tc"] = _superconductivity(out, isotopes, size)
    _tables(out, summary, isotopes)
    write_summary(out, summary)
    return summary


def _train(out: Path, size: StudySize, device: str, seed: int) -> dict[str, Any]:
    finished = out / "summary.json"
    if finished.exists():
        return json.loads(finished.read_text())
    out.mkdir(parents=True, exist_ok=True)
    palladium_hydride().write(out / "pdh.extxyz")
    return run_finetune(
        out / "pdh.extxyz",
        out,
        hessian=DYN,
        cells=DATA / "unit_cells.extxyz",
        cell_energy=ENERGY,
        test=DATA / "check_supercells.extxyz",
        compare_without=True,
        epochs=size.epochs,
        device=device,
        seed=seed,
        options=size.trainer_options,
    )


def _sscha(out: Path, potential: Any, isotope: str, size: StudySize, seed: int, model: str) -> dict[str, Any]:
    from hint_recipes.ensemble import EnsembleEngine
    from hint_recipes.sscha_state import SschaSettings
    from hint_recipes.sscha_study import run_sscha

    finished = out / "summary.json"
    if finished.exists():
        return json.loads(finished.read_text())
    out.mkdir(parents=True, exist_ok=True)
    crystal = set_masses(palladium_hydride(), {"H": ISOTOPES[isotope]})
    settings = SschaSettings(
        configurations=size.configurations, max_populations=size.max_populations, relax_positions=False, seed=seed
    )
    run_sscha(
        crystal, potential, out, settings, [(2, 2, 2)], engine=EnsembleEngine(potential, directory=out), label=model
    )
    return json.loads(finished.read_text())


def _superconductivity(out: Path, isotopes: Sequence[str], size: StudySize) -> dict[str, Any]:
    """lambda and Tc on harmonic phonons and on the SSCHA phonons of each isotope."""
    from hint_recipes.alpha2f import read_alpha2f
    from hint_recipes.electron_phonon import in_setting, read_mode_couplings, reproject
    from hint_recipes.matdyn import prepare_matdyn, run_matdyn
    from hint_recipes.tc_study import run_tc

    elph_dir = DATA / "a2F_222" / "elph_dir"
    couplings, harmonic = read_mode_couplings(elph_dir, DATA / "a2F_222" / "dyn", size.broadening)
    exact = all(map(shutil.which, ("q2r.x", "matdyn.x")))
    directory = out / "tc"
    directory.mkdir(exist_ok=True)
    spectra, unstable = {}, {}
    for name in isotopes:
        masses = {"H": ISOTOPES[name]}
        crystal = set_masses(palladium_hydride(), masses)
        reference = read_force_constants(DYN, crystal).acoustic_sum_rule()
        found = read_force_constants(out / f"sscha-{name}" / "sscha.npz", crystal)
        for kind, constants in (("harmonic (DFT)", reference), ("SSCHA", found)):
            label, other = f"Pd{name} {kind}", in_setting(constants, harmonic.primitive)
            try:
                if exact:
                    script = prepare_matdyn(directory / f"matdyn-{name}-{kind[:5]}", elph_dir, other)
                    spectra[label] = read_alpha2f(run_matdyn(script)[size.broadening - 1])
                else:
                    spectra[label] = reproject(couplings, harmonic, other).spectrum(2.0)
            except InputError as error:
                unstable[label] = str(error)
    if not spectra:
        raise InputError(f"no stable phonons to put the coupling on: {unstable}")
    route = "matdyn" if exact else "projected"
    found_tc = run_tc(directory, spectra, [size.mu_star], eliashberg=True)
    return {"route": route, "unstable": unstable, **found_tc}


def _tables(out: Path, summary: dict[str, Any], isotopes: Sequence[str]) -> None:
    rows, sources = [], {}
    for name in isotopes:
        result = summary["sscha"][name]
        crystal = set_masses(palladium_hydride(), {"H": ISOTOPES[name]})
        constants = read_force_constants(out / f"sscha-{name}" / "sscha.npz", crystal)
        sources[f"Pd{name} SSCHA"] = bands(constants)
        if name == isotopes[0]:
            model = read_force_constants(out / f"sscha-{name}" / "harmonic.npz", crystal)
            sources[f"Pd{name} harmonic (model)"] = bands(model)
            reference = read_force_constants(DYN, crystal).acoustic_sum_rule()
            sources[f"Pd{name} harmonic (DFT)"] = bands(reference)
        rows.append(
            {
                "isotope": name,
                "converged": result["converged"],
                "populations": result["n_populations"],
                "free_energy_above_static_meV": 1000 * (result["free_energy"] - result["static_energy"]),
                "error_meV": 1000 * result["free_energy_error"],
                "gamma_optical_harmonic_cm1": max(result["harmonic_frequencies_gamma_cm1"]),
                "gamma_optical_sscha_cm1": max(result["frequencies_gamma_cm1"]),
                "highest_sscha_cm1": max(max(q["cm1"]) for q in result["frequencies_cm1"]),
            }
        )
    write_csv(out / "isotopes.csv", rows)
    plot_bands(sources, out / "bands.png")
    fig, axes = figure()
    labels = list(summary["tc"]["sources"])
    mu_star = next(iter(next(iter(summary["tc"]["sources"].values()))["tc_K"]))
    for offset, key in ((-0.2, "tc_K"), (0.2, "tc_eliashberg_K")):
        values = [summary["tc"]["sources"][label][key][mu_star] for label in labels]
        axes.barh(np.arange(len(labels)) + offset, values, 0.4, label={"tc_K": "Allen-Dynes"}.get(key, "Eliashberg"))
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_xlabel(rf"$T_c$ (K), $\mu^*$ = {mu_star}")
    axes.legend(fontsize=8)
    save(fig, out / "tc.png")
