"""The SSCHA study: one crystal, one model; tables, pictures, standard files and a checkpoint in one directory."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from hint_plugins.cli.common import InputError, write_config, write_csv, write_summary
from hint_plugins.figures import new_figure, save_figure
from hint_recipes.dynamical_matrices import to_cellconstructor, write_dynamical_matrices
from hint_recipes.ensemble import EnsembleEngine, require_sscha
from hint_recipes.force_constants import ForceConstants, hessian_from_potential
from hint_recipes.perturbation import perturbation
from hint_recipes.phonon_plots import plot_bands
from hint_recipes.phonons import bands, read_force_constants, save_force_constants
from hint_recipes.sscha import draw, free_energy_hessian, report_raised, run, start
from hint_recipes.sscha_cell import static_start
from hint_recipes.sscha_request import (
    CHECKPOINT,
    check_request,
    correction_mark,
    discard_run,
    earlier_run,
    identity,
    times,
)
from hint_recipes.sscha_state import SschaSettings, State

if TYPE_CHECKING:
    from hint_plugins.potential import Potential


def run_sscha(
    crystal: Atoms,
    potential: Potential,
    out: Path,
    settings: SschaSettings,
    stages: Sequence[tuple[int, int, int]],
    *,
    engine: EnsembleEngine | None = None,
    start_from: Path | None = None,
    floor: float = 20.0,
    hessian_configurations: int = 0,
    four_phonon: bool = False,
    reference: Potential | None = None,
    reference_configurations: int = 20,
    label: str = "",
    reference_label: str = "",
    overwrite: bool = False,
    config: Mapping[str, Any] | None = None,
    bar: bool = True,
) -> dict[str, Any]:
    """SSCHA of one crystal, continued from ``out/checkpoint.npz`` when that exists.

    A finished run can be continued too: with more populations, a free-energy Hessian, or a correction. Results are
    written before Hessian and correction, so that a failure there loses nothing.

    Parameters
    ----------
    crystal
        Unit cell with its masses.
    potential
        The model.
    out
        Directory (exists).
    settings
        Options of the run.
    stages
        Supercells, one after the other.
    engine
        Force engine; made from ``potential`` by default.
    start_from
        Starting force constants (:func:`hint_recipes.phonons.read_force_constants`) instead of the model's Hessian.
    floor
        Lowest starting frequency, cm^-1.
    hessian_configurations
        Configurations for the free-energy Hessian; 0 leaves it out.
    four_phonon
        Include the fourth-order term in it.
    reference, reference_configurations
        Potential and number of configurations for the free-energy correction.
    label, reference_label
        Specifications of model and reference; where they name files, a changed file is another model.
    overwrite
        Discard an earlier run in ``out``.
    config
        Options for ``config.yaml``, written once it is clear that the run may go on.
    bar
        Show progress.

    Returns
    -------
    dict
        What ``summary.json`` holds. Energies in eV a unit cell.

    Raises
    ------
    InputError
        For options that cannot work (:func:`check_request`), and if ``out`` holds another run.
    """
    require_sscha()
    check_request(
        settings,
        stages,
        hessian_configurations=hessian_configurations,
        reference_configurations=None if reference is None else reference_configurations,
    )
    for multiples in stages:
        if len(crystal) * np.prod(multiples) < 2:
            raise InputError("a supercell of one atom has no vibrations: choose a larger --supercell or --stage")
    engine = engine or EnsembleEngine(potential, directory=out)
    mark = identity(crystal, engine, settings, stages, start_from=start_from, floor=floor, label=label)
    if overwrite:
        discard_run(out)
    state = earlier_run(out, mark)
    if config is not None:
        write_config(out, "sscha", config)
    (out / "summary.json").unlink(missing_ok=True)
    checkpoint, log = out / CHECKPOINT, out / "sscha.log"
    if start_from is None:
        crystal = static_start(potential, crystal, settings)
    if state is None:
        first = _starting_point(potential, crystal, stages[0], start_from)
        constants, changed = start(first, floor)
        report_raised(first, changed, floor)
        state = State(constants, difficult=changed > 0)
    harmonic = hessian_from_potential(potential, crystal, stages[-1]).symmetrized().acoustic_sum_rule()
    static = float(potential.evaluate([crystal]).energies[0])

    def report(now: State) -> None:
        progress(now)
        _write_history(out, now, static)

    with _Progress(settings.max_populations * len(stages), len(state.history), bar) as progress:
        state = run(
            state,
            engine,
            settings,
            stages,
            floor=floor,
            checkpoint=checkpoint,
            fingerprint=mark,
            log=log,
            progress=report,
        )
    last = state.history[-1]
    crystal_now = state.constants.primitive
    summary: dict[str, Any] = {
        "converged": state.converged,
        "n_populations": len(state.history),
        "n_configurations": len(state.history) * settings.configurations - sum(r["dropped"] for r in state.history),
        "n_dropped": sum(r["dropped"] for r in state.history),
        "max_populations": settings.max_populations,
        "temperature_K": settings.temperature,
        "supercell": state.constants.multiples,
        "free_energy": last["free_energy_eV"],
        "free_energy_error": last["free_energy_error_eV"],
        "static_energy": static,
        "gradient_over_error": last["gradient_over_error"],
        "frequencies_gamma_cm1": state.constants.frequencies()[0],
        "frequencies_cm1": [
            {"q": q, "cm1": row} for q, row in zip(state.constants.q_points, state.constants.frequencies(), strict=True)
        ],
        "harmonic_frequencies_gamma_cm1": harmonic.frequencies()[0],
        "n_imaginary_harmonic": int((harmonic.frequencies() < -5).sum()),
        "centroids": crystal_now.positions,
        "cell": crystal_now.cell.array,
        "masses": crystal_now.get_masses(),
        "seconds": {
            part: sum(row[f"seconds_{part}"] for row in state.history)
            for part in ("sampling", "forces", "minimisation")
        },
        **{key: last[key] for key in ("pressure_GPa", "pressure_error_GPa", "volume_A3") if key in last},
        "fingerprint": mark,
    }
    sources = {"harmonic": harmonic, "sscha": state.constants}
    _write(out, sources, crystal_now)
    write_summary(out, summary)
    if hessian_configurations:
        curved = free_energy_hessian(
            state.constants, engine, settings, hessian_configurations, four_phonon=four_phonon, log=log
        )
        sources["free-energy-hessian"] = curved
        summary["free_energy_hessian"] = {
            "configurations": hessian_configurations,
            "frequencies_gamma_cm1": curved.frequencies()[0],
            "lowest_cm1": curved.acoustic_sum_rule().frequencies().min(),
        }
        _write(out, sources, crystal_now)
        write_summary(out, summary)
    if reference is not None:
        correction = _correct(state.constants, engine, settings, reference, reference_configurations, out)
        summary["correction"] = {**correction_mark(reference_label, reference_configurations), **correction}
        write_summary(out, summary)
    return summary


def _starting_point(
    potential: Potential, crystal: Atoms, multiples: tuple[int, int, int], start_from: Path | None
) -> ForceConstants:
    if start_from is None:
        return hessian_from_potential(potential, crystal, multiples)
    constants = read_force_constants(start_from, crystal)
    if constants.multiples != tuple(multiples):
        raise InputError(
            f"{start_from} holds a {times(constants.multiples)} supercell, the run starts with {times(multiples)}: "
            "use the same, or a --stage of that size"
        )
    return constants


def _correct(
    constants: ForceConstants,
    engine: EnsembleEngine,
    settings: SschaSettings,
    reference: Potential,
    count: int,
    out: Path,
) -> dict[str, Any]:
    """First-order and exponential correction from ``count`` configurations of the converged ensemble, per unit cell.

    Each reference energy is on disk (``correction.extxyz``) before the next is computed; failing ones are left out.
    """
    from ase.io import write

    from hint_plugins.potential import PotentialError

    dyn = to_cellconstructor(constants)
    dyn.Symmetrize()
    ensemble = draw(dyn, settings.temperature, count + count % 2, (settings.seed, 2 * 10**6))
    structures = [s.get_ase_atoms() for s in ensemble.structures]
    found = engine.evaluate(structures)
    reasons, energies = dict(found.reasons), np.full(len(structures), np.nan)
    table = out / "correction.extxyz"
    table.unlink(missing_ok=True)
    for index in np.flatnonzero(found.good):
        atoms = structures[index]
        try:
            energies[index] = reference.evaluate([atoms]).energies[0]
        except PotentialError as error:
            reasons[int(index)] = f"reference: {error}"
            continue
        if not np.isfinite(energies[index]):
            reasons[int(index)] = "reference: the energy is not finite"
            continue
        atoms.info.update(configuration=int(index), model_energy=found.energies[index], REF_energy=energies[index])
        write(table, atoms, append=True)
    if reasons:
        first = min(reasons)
        print(
            f"hint: correction: {len(reasons)} of {len(structures)} configurations left out; number {first}: "
            f"{reasons[first]}",
            file=sys.stderr,
        )
    used = np.flatnonzero(np.isfinite(energies))
    # configurations come in mirror pairs, one after the other
    correction = perturbation(
        found.energies[used], energies[used], settings.temperature, pairs=used // 2, seed=settings.seed
    )
    cells = constants.num_cells
    values = {k: v / cells if v is not None and k != "effective_sample" else v for k, v in asdict(correction).items()}
    return {"configurations": len(used), "dropped": len(reasons), **values}


def _write(out: Path, sources: dict[str, ForceConstants], crystal: Atoms) -> None:
    from ase.io import write

    write(out / "centroids.extxyz", crystal)
    for name, constants in sources.items():
        save_force_constants(constants, out, name)
        write_dynamical_matrices(to_cellconstructor(constants), out / "dyn" / f"{name}-dyn")
    write_csv(
        out / "frequencies.csv",
        [
            {"source": name, "q1": q[0], "q2": q[1], "q3": q[2], "mode": mode + 1, "cm1": value}
            for name, constants in sources.items()
            for q, row in zip(constants.q_points, constants.frequencies(), strict=True)
            for mode, value in enumerate(row)
        ],
    )
    plot_bands({name: bands(constants) for name, constants in sources.items()}, out / "bands.png")


def _write_history(out: Path, state: State, static: float) -> None:
    write_csv(out / "populations.csv", state.history)
    write_csv(out / "minimisation.csv", state.steps)
    figure, axes = new_figure(6.4, 7.2, nrows=3, sharex=True)
    x = np.arange(len(state.steps))
    energies = np.array([row["free_energy_eV"] for row in state.steps]) - static
    errors = np.array([row["error_eV"] for row in state.steps])
    axes[0].errorbar(x, 1000 * energies, 1000 * errors, lw=1, elinewidth=0.4, color="C0")
    axes[0].set_ylabel("free energy - static energy\n(meV per unit cell)")
    gradient = [row["gradient_over_error"] for row in state.steps]
    axes[1].semilogy(x, [g or np.nan for g in gradient], color="C1")
    axes[1].set_ylabel("gradient / its error")
    axes[2].plot(x, [row["kong_liu"] for row in state.steps], color="C2")
    axes[2].set(ylabel="effective sample", xlabel="minimisation step", ylim=(0, 1.02))
    marks = [(r["stage"], r["population"]) for r in state.steps]
    for index in range(1, len(marks)):
        if marks[index] != marks[index - 1]:
            for axis in axes:
                axis.axvline(index - 0.5, color="0.8", lw=0.6)
    save_figure(figure, out / "convergence.png")


class _Progress:
    """Progress bar over populations with what matters for convergence."""

    def __init__(self, total: int, done: int, show: bool) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total, initial=done, unit="population", disable=not show)

    def __call__(self, state: State) -> None:
        row = state.history[-1]
        self._bar.set_postfix_str(
            f"{row['supercell']} F {row['free_energy_eV']:.5f}({row['free_energy_error_eV']:.5f}) eV, "
            f"gradient/error {row['gradient_over_error']:.3g}, sample {row['kong_liu']:.2f}, "
            f"lowest {row['lowest_cm1']:.1f} cm-1"
        )
        self._bar.update()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
