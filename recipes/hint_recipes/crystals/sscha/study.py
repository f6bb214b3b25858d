"""The SSCHA study: one crystal, one model; tables, pictures, standard files and a checkpoint in one directory."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from hint_plugins.errors import InputError
from hint_plugins.runs.directory import write_config, write_summary
from hint_recipes.crystals.force_constants.dynamical_matrices import output_to
from hint_recipes.crystals.force_constants.force_constants import ForceConstants, force_constants_from_potential
from hint_recipes.crystals.phonons.dense_mesh import dense_mesh
from hint_recipes.crystals.phonons.harmonic import read_force_constants
from hint_recipes.crystals.sscha.cell import require_stress, static_start
from hint_recipes.crystals.sscha.correction import correct
from hint_recipes.crystals.sscha.ensemble import EnsembleEngine, require_sscha
from hint_recipes.crystals.sscha.free_energy_hessian import free_energy_hessian
from hint_recipes.crystals.sscha.fresh_ensemble import MAX_DEVIATION, kept_fresh_ensemble
from hint_recipes.crystals.sscha.output import Progress, write_history, write_tables
from hint_recipes.crystals.sscha.populations import report_raised, run, start
from hint_recipes.crystals.sscha.request import (
    CHECKPOINT,
    FRESH,
    check_request,
    correction_mark,
    discard_run,
    earlier_run,
    identity,
    times,
)
from hint_recipes.crystals.sscha.state import SschaSettings, State

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
        Starting force constants (:func:`hint_recipes.crystals.phonons.harmonic.read_force_constants`) instead of the
        model's Hessian.
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
        What ``summary.json`` holds. Energies in eV per unit cell: ``free_energy`` is the average over a fresh ensemble
        (``free_energy_supercell``) plus the harmonic part that the supercell misses (``dense_mesh``);
        ``free_energy_minimised``, of the last population, is biased low.

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
    if settings.stress or settings.relax_cell:
        require_stress(potential, crystal)
    checkpoint, log = out / CHECKPOINT, out / "sscha.log"
    if start_from is None:
        crystal = static_start(potential, crystal, settings)
    if state is None:
        first = _starting_point(potential, crystal, stages[0], start_from)
        constants, changed = start(first, floor)
        report_raised(first, changed, floor)
        state = State(constants, difficult=changed > 0)
    harmonic = force_constants_from_potential(potential, crystal, stages[-1]).symmetrized().acoustic_sum_rule()
    static = float(potential.evaluate([crystal]).energies[0])

    def report(now: State) -> None:
        progress(now)
        write_history(out, now, static)

    with Progress(settings.max_populations * len(stages), len(state.history), bar) as progress:
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
    with output_to(log):
        count = settings.final_configurations or settings.configurations
        fresh = kept_fresh_ensemble(out / FRESH, state.constants, engine, settings, count)
        mesh = dense_mesh(state.constants, settings.temperature)
    effective = last["kong_liu"] * (settings.configurations - last["dropped"])
    deviation = fresh.deviation(state.constants.frequencies(), effective)
    if deviation > MAX_DEVIATION:
        print(
            f"hint: a frequency of the fresh ensemble differs by {deviation:.1f} standard errors from that of the last "
            "population: take more configurations, or more populations",
            file=sys.stderr,
        )
    if not mesh.usable:
        print(
            f"hint: {mesh.num_imaginary} modes of the interpolated auxiliary matrix are imaginary on the dense mesh: "
            "the free energy is that of the supercell alone; take a larger supercell",
            file=sys.stderr,
        )
    summary: dict[str, Any] = {
        "converged": state.converged,
        "stopped": state.stopped or "converged",
        "n_populations": len(state.history),
        "n_configurations": len(state.history) * settings.configurations - sum(r["dropped"] for r in state.history),
        "n_dropped": sum(r["dropped"] for r in state.history),
        "max_populations": settings.max_populations,
        "temperature_K": settings.temperature,
        "supercell": state.constants.multiples,
        "free_energy": fresh.free_energy + (mesh.difference if mesh.usable else 0.0),
        "free_energy_error": fresh.free_energy_error,
        "free_energy_supercell": fresh.free_energy,
        "free_energy_minimised": last["free_energy_eV"],
        "dense_mesh": mesh.summary(),
        "fresh_ensemble": {**fresh.summary(), "largest_deviation": deviation},
        "static_energy": static,
        "gradient_over_error": last["gradient_over_error"],
        "frequencies_gamma_cm1": state.constants.frequencies()[0],
        "frequencies_cm1": [
            {"q": q, "cm1": row, "error_cm1": error}
            for q, row, error in zip(
                state.constants.q_points, state.constants.frequencies(), fresh.errors_for(effective), strict=True
            )
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
        **{key: value for key, value in fresh.summary().items() if key.startswith("pressure")},
        **{key: last[key] for key in ("volume_A3",) if key in last},
        "fingerprint": mark,
    }
    sources = {"harmonic": harmonic, "sscha": state.constants}
    write_tables(out, sources, crystal_now)
    write_summary(out, summary)
    if hessian_configurations:
        curved = free_energy_hessian(
            state.constants, engine, settings, hessian_configurations, four_phonon=four_phonon, log=log
        )
        sources["free-energy-hessian"] = curved.constants
        summary["free_energy_hessian"] = {"configurations": hessian_configurations, **curved.summary()}
        write_tables(out, sources, crystal_now)
        write_summary(out, summary)
    if reference is not None:
        correction = correct(state.constants, engine, settings, reference, reference_configurations, out)
        summary["correction"] = {**correction_mark(reference_label, reference_configurations), **correction}
        write_summary(out, summary)
    return summary


def _starting_point(
    potential: Potential, crystal: Atoms, multiples: tuple[int, int, int], start_from: Path | None
) -> ForceConstants:
    if start_from is None:
        return force_constants_from_potential(potential, crystal, multiples)
    constants = read_force_constants(start_from, crystal)
    if constants.multiples != tuple(multiples):
        raise InputError(
            f"{start_from} holds a {times(constants.multiples)} supercell, the run starts with {times(multiples)}: "
            "use the same, or a --stage of that size"
        )
    return constants
