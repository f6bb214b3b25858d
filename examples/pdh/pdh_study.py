"""PdH from density-functional data to the end: model, harmonic and anharmonic phonons of PdH, PdD, PdT, lambda and Tc.

    python examples/pdh/pdh_study.py --out pdh6 --epochs 400
    python examples/pdh/pdh_study.py --help

The data (Quantum ESPRESSO, PBE) are in ``data``; its README gives their settings and limits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from ase import Atoms
from pydantic import Field

from hint_plugins.cli.common import fail
from hint_plugins.cli.options import Device, Overwrite
from hint_plugins.cli.settings import asked, with_settings
from hint_plugins.errors import HintError, InputError
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.figures import legend_below, new_figure, save_figure
from hint_plugins.runs.files import write_csv
from hint_plugins.settings import Settings
from hint_recipes.crystals.finetune.settings import FinetuneSettings
from hint_recipes.crystals.finetune.study import finetune_hydride
from hint_recipes.crystals.force_constants.force_constants import ForceConstants, set_masses
from hint_recipes.crystals.inputs import parse_options
from hint_recipes.crystals.phonons.harmonic import bands, read_force_constants
from hint_recipes.crystals.phonons.plots import plot_bands

#: Data of the study.
DATA = Path(__file__).parent / "data"
#: Lattice constant, A.
LATTICE = 4.085
#: Options that may differ from those of a run that is continued.
FREE = frozenset({"isotope", "broadening", "mu_star", "route", "device"})
#: Hydrogen isotopes, u.
ISOTOPES = {"H": 1.008, "D": 2.014, "T": 3.016}


@dataclass(frozen=True)
class Reference:
    """Density-functional data at one grid of k points.

    Attributes
    ----------
    hessian
        Prefix of the dynamical matrices on the 2x2x2 q grid.
    cells
        Displaced unit cells: energies, forces, stresses.
    cell_energy
        Energy of the undisplaced unit cell, eV.
    coupling
        Directory of the electron-phonon run (``elph_dir`` and ``dyn*``).
    held_out
        Displaced supercells, for checking only.
    supercells
        Supercells with the zero-point displacements of a first SSCHA run, for training.
    """

    hessian: Path
    cells: Path
    cell_energy: float
    coupling: Path
    held_out: Path | None = None
    supercells: Path | None = None


#: Data by k points an axis of the unit cell (data/README.md): 6 shows the method, 12 is near convergence.
REFERENCES = {
    6: Reference(
        DATA / "dfpt_222" / "dyn",
        DATA / "unit_cells.extxyz",
        -3462.877155,
        DATA / "a2F_222",
        DATA / "check_supercells.extxyz",
        DATA / "supercells.extxyz",
    ),
    12: Reference(
        DATA / "dfpt_222_k12" / "dyn",
        DATA / "unit_cells_k12.extxyz",
        -3462.901145746763,
        DATA / "a2F_222_k12",
        DATA / "check_supercells_k12.extxyz",
    ),
}


class StudySettings(Settings):
    """How much to do; the defaults are the paper's."""

    kpoints: int = Field(6, description="Reference data: k points per axis of the unit cell, 6 or 12.")
    supercells: bool = Field(
        True, description="Train on the displaced supercells of the data too, not only on unit cells."
    )
    epochs: int = Field(2000, ge=1, description="Number of epochs of a training.")
    configurations: int = Field(500, ge=2, description="SSCHA configurations of a population (even).")
    max_populations: int = Field(30, ge=1, description="Largest number of SSCHA populations.")
    broadening: int = Field(3, ge=1, description="Number of the electronic broadening of the coupling, 1 to 10.")
    mu_star: float = Field(0.125, description="Coulomb pseudopotential.")
    route: Literal["auto", "matdyn", "projected"] = Field(
        "auto",
        description="How the coupling is carried to other phonons: matdyn (exact, Quantum ESPRESSO), projected, or "
        "auto (matdyn where Quantum ESPRESSO is installed).",
    )
    seed: int = Field(0, ge=0, description="Seed of trainings and ensembles.")


def palladium_hydride() -> Atoms:
    """Rocksalt PdH, primitive cell."""
    cell = LATTICE / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return Atoms("PdH", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=cell, pbc=True)


def run_pdh(
    out: Path,
    settings: StudySettings,
    *,
    model: str | None = None,
    foundation: Path | None = None,
    trainer_options: Mapping[str, Any] | None = None,
    isotopes: Sequence[str] = ("H", "D", "T"),
    device: str | None = None,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """The whole study; finished parts in ``out`` are kept, an unfinished SSCHA run is continued.

    Parameters
    ----------
    out
        Directory.
    settings
        Data, length of the training, SSCHA sampling, coupling.
    model
        A trained model to use; by default one is trained with and one without the Hessian (``out/model``), and the
        SSCHA of the first isotope is run with both.
    foundation
        MACE model from which the training starts (for example that of the cheaper k-point grid).
    trainer_options
        Options of ``mace_run_train`` by name.
    isotopes
        Which of H, D, T.
    device
        Of training and SSCHA; by default the GPU when there is one.
    options
        What ``config.yaml`` keeps; the settings by default.
    overwrite
        Discard an earlier run.

    Returns
    -------
    dict
        Training figures, SSCHA results and superconductivity for each isotope, as in ``summary.json``.

    Raises
    ------
    InputError
        For an unknown isotope or k-point grid, and if no phonons are stable.
    """
    unknown = sorted(set(isotopes) - set(ISOTOPES))
    if unknown:
        raise InputError(f"isotope {unknown[0]!r}: choose among {', '.join(ISOTOPES)}")
    if settings.kpoints not in REFERENCES:
        raise InputError(
            f"no data at {settings.kpoints} k points an axis: choose among {', '.join(map(str, REFERENCES))}"
        )
    reference = REFERENCES[settings.kpoints]
    summary: dict[str, Any] = {"kpoints": settings.kpoints}
    plain = None
    options = {**settings.model_dump(), "model": model} if options is None else options
    sscha = [f"sscha-{name}{kind}" for name in ISOTOPES for kind in ("", "-plain")]
    contents = ["model", "tc", *sscha]
    with RunDirectory(out, "pdh_study.py", options, free=FREE, contents=contents, overwrite=overwrite) as run:
        if model is None:
            summary["training"] = _train(run / "model", reference, settings, foundation, trainer_options or {}, device)
            model, plain = (str(run / "model" / name / f"{name}.model") for name in ("hint", "plain"))
        summary["sscha"] = {name: _sscha(run / f"sscha-{name}", model, name, settings, device) for name in isotopes}
        if plain is not None:
            try:
                first = isotopes[0]
                summary["sscha_plain"] = _sscha(run / f"sscha-{first}-plain", plain, first, settings, device)
            except InputError as error:
                summary["sscha_plain"] = {"error": str(error)}
        phonons = {}
        for name in isotopes:
            crystal = isotope(name)
            phonons[f"Pd{name} harmonic"] = read_force_constants(reference.hessian, crystal).acoustic_sum_rule()
            phonons[f"Pd{name} SSCHA"] = read_force_constants(run / f"sscha-{name}" / "sscha.npz", crystal)
        summary["tc"] = _superconductivity(run / "tc", reference.coupling, phonons, settings)
        _tables(run.path, summary, phonons)
        run.finish(summary)
    return summary


def isotope(name: str) -> Atoms:
    """The unit cell with hydrogen of the given isotope (H, D, T)."""
    return set_masses(palladium_hydride(), {"H": ISOTOPES[name]})


def _train(
    out: Path,
    reference: Reference,
    settings: StudySettings,
    foundation: Path | None,
    trainer_options: Mapping[str, Any],
    device: str | None,
) -> dict[str, Any]:
    finished = out / "summary.json"
    if finished.exists():
        return json.loads(finished.read_text())
    out.mkdir(parents=True, exist_ok=True)
    palladium_hydride().write(out / "pdh.extxyz")
    training = FinetuneSettings(epochs=settings.epochs, seed=settings.seed, compare_without=True)
    result = finetune_hydride(
        out / "pdh.extxyz",
        out,
        training,
        hessian=reference.hessian,
        cells=[f for f in (reference.cells, reference.supercells if settings.supercells else None) if f],
        cell_energy=reference.cell_energy,
        test=reference.held_out,
        foundation=foundation,
        device=device,
        trainer_options=trainer_options,
    )
    return result.summary


def _sscha(out: Path, model: str, name: str, settings: StudySettings, device: str | None) -> dict[str, Any]:
    from hint_recipes.crystals.sscha.settings import SschaSettings
    from hint_recipes.crystals.sscha.study import run_sscha

    finished = out / "summary.json"
    if finished.exists():
        return json.loads(finished.read_text())
    sampling = SschaSettings(
        configurations=settings.configurations,
        max_populations=settings.max_populations,
        relax_positions=False,
        seed=settings.seed,
    )
    run_sscha(isotope(name), model, out, sampling, device=device, dtype="float64")
    return json.loads(finished.read_text())


def _superconductivity(
    out: Path, coupling: Path, phonons: Mapping[str, ForceConstants], settings: StudySettings
) -> dict[str, Any]:
    """Lambda and Tc with one electron-phonon coupling on different phonons; unstable ones are named."""
    from hint_recipes.crystals.superconductivity.alpha2f_file import read_alpha2f
    from hint_recipes.crystals.superconductivity.carried import choose_route
    from hint_recipes.crystals.superconductivity.electron_phonon import in_setting, read_mode_couplings, reproject
    from hint_recipes.crystals.superconductivity.matdyn import prepare_matdyn, run_matdyn
    from hint_recipes.crystals.superconductivity.settings import TcSettings
    from hint_recipes.crystals.superconductivity.study import compute_tc

    couplings, harmonic = read_mode_couplings(coupling / "elph_dir", coupling / "dyn", settings.broadening)
    route = choose_route(coupling / "elph_dir") if settings.route == "auto" else settings.route
    out.mkdir(parents=True, exist_ok=True)
    spectra, unstable = {}, {}
    for label, constants in phonons.items():
        other = in_setting(constants, harmonic.primitive)
        if route == "matdyn":
            script = prepare_matdyn(out / f"matdyn-{label.replace(' ', '-')}", coupling / "elph_dir", other)
            file = run_matdyn(script)[settings.broadening - 1]
        try:
            if route == "matdyn":
                spectra[label] = read_alpha2f(file)
            else:
                spectra[label] = reproject(couplings, harmonic, other).spectrum(2.0)
        except InputError as error:
            unstable[label] = str(error)
    if not spectra:
        raise InputError(f"no stable phonons to put the coupling on: {unstable}")
    found = compute_tc(spectra, out, TcSettings(mu_star=[settings.mu_star], eliashberg=True), overwrite=True)
    print(found.report())
    return {"route": route, "unstable": unstable, **found.summary}


def _tables(out: Path, summary: dict[str, Any], phonons: Mapping[str, ForceConstants]) -> None:
    first = next(iter(summary["sscha"]))
    model = read_force_constants(out / f"sscha-{first}" / "harmonic.npz", isotope(first))
    sources = {f"Pd{first} harmonic (DFT)": phonons[f"Pd{first} harmonic"], f"Pd{first} harmonic (model)": model}
    sources |= {label: constants for label, constants in phonons.items() if label.endswith("SSCHA")}
    plot_bands({label: bands(constants) for label, constants in sources.items()}, out / "bands.png")
    runs = {(name, "E/F/H" if "training" in summary else ""): r for name, r in summary["sscha"].items()}
    if "converged" in summary.get("sscha_plain", {}):
        runs[first, "E/F"] = summary["sscha_plain"]
    rows = [
        {
            "isotope": name,
            "training": training,
            "converged": result["converged"],
            "populations": result["n_populations"],
            "dropped": result["n_dropped"],
            "free_energy_above_static_meV": 1000 * (result["free_energy"] - result["static_energy"]),
            "error_meV": 1000 * result["free_energy_error"],
            "gamma_optical_harmonic_cm1": max(result["harmonic_frequencies_gamma_cm1"]),
            "gamma_optical_sscha_cm1": max(result["frequencies_gamma_cm1"]),
            "highest_sscha_cm1": max(max(q["cm1"]) for q in result["frequencies_cm1"]),
        }
        for (name, training), result in runs.items()
    ]
    write_csv(out / "isotopes.csv", rows)
    figure, axes = new_figure()
    labels = list(summary["tc"]["sources"])
    mu_star = next(iter(next(iter(summary["tc"]["sources"].values()))["tc_K"]))
    for offset, key, method in ((-0.2, "tc_K", "Allen-Dynes"), (0.2, "tc_eliashberg_K", "Eliashberg")):
        values = [summary["tc"]["sources"][label][key][mu_star] or 0.0 for label in labels]  # None: below the reach
        axes.barh(np.arange(len(labels)) + offset, values, 0.4, label=method)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(rf"$T_c$ (K), $\mu^*$ = {mu_star}")
    legend_below(figure)
    save_figure(figure, out / "tc.png")


def main(
    out: Annotated[Path, typer.Option(help="Output directory; what is finished there is kept.")],
    settings: StudySettings,
    model: Annotated[
        str | None, typer.Option(help="Trained model [default: train one with and one without the Hessian].")
    ] = None,
    foundation: Annotated[
        Path | None,
        typer.Option(help="Local MACE model from which the training starts, for example that of the coarser k grid."),
    ] = None,
    isotope: Annotated[
        list[str] | None, typer.Option(help="H, D or T; may be given several times [default: all].")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Option of mace_run_train; may be given several times."),
    ] = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Palladium hydride: model from one Hessian and 30 cells, SSCHA of PdH, PdD, PdT, coupling and Tc."""
    run_pdh(
        out,
        settings,
        model=model,
        foundation=foundation,
        trainer_options=parse_options(option or []),
        isotopes=isotope or list(ISOTOPES),
        device=device,
        options=asked(),
        overwrite=overwrite,
    )


if __name__ == "__main__":
    try:
        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        app.command()(with_settings(main))
        app()
    except HintError as error:
        fail(str(error))
