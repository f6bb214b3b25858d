"""The summary of an SSCHA run."""

from __future__ import annotations

from typing import Any

from hint_plugins.runs.progress import note
from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.phonons.dense_mesh import DenseMesh
from hint_recipes.crystals.sscha.fresh_ensemble import MAX_DEVIATION, FreshEnsemble
from hint_recipes.crystals.sscha.settings import SschaSettings
from hint_recipes.crystals.sscha.state import State


def summarise(
    state: State,
    settings: SschaSettings,
    fresh: FreshEnsemble,
    mesh: DenseMesh,
    *,
    harmonic: ForceConstants,
    static: float,
) -> dict[str, Any]:
    """What ``summary.json`` holds; says where the fresh ensemble and the last population do not agree.

    Parameters
    ----------
    state
        After the last population.
    settings
        Of the run.
    fresh
        Averages over the fresh ensemble.
    mesh
        What the supercell leaves out.
    harmonic
        Force constants of the model in the last supercell.
    static
        Static energy, eV per unit cell.
    """
    last, crystal = state.history[-1], state.constants.primitive
    effective = last["kong_liu"] * (settings.configurations - last["dropped"])
    frequencies = state.constants.frequencies()
    deviation = fresh.deviation(frequencies, effective)
    if deviation > MAX_DEVIATION:
        note(
            f"a frequency of the fresh ensemble differs by {deviation:.1f} standard errors from that of the last "
            "population: take more configurations, or more populations"
        )
    dropped = sum(row["dropped"] for row in state.history)
    errors = fresh.errors_for(effective)
    return {
        "converged": state.converged,
        "stopped": state.stopped or "converged",
        "n_populations": len(state.history),
        "n_configurations": len(state.history) * settings.configurations - dropped,
        "n_dropped": dropped,
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
        "frequencies_gamma_cm1": frequencies[0],
        "frequencies_cm1": [
            {"q": q, "cm1": row, "error_cm1": error}
            for q, row, error in zip(state.constants.q_points, frequencies, errors, strict=True)
        ],
        "harmonic_frequencies_gamma_cm1": harmonic.frequencies()[0],
        "n_imaginary_harmonic": int((harmonic.frequencies() < -5).sum()),
        "centroids": crystal.positions,
        "cell": crystal.cell.array,
        "masses": crystal.get_masses(),
        "seconds": {
            part: sum(row[f"seconds_{part}"] for row in state.history)
            for part in ("sampling", "forces", "minimisation")
        },
        **{key: value for key, value in fresh.summary().items() if key.startswith("pressure")},
        **{key: last[key] for key in ("volume_A3",) if key in last},
    }
