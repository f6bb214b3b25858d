"""What is kept of every population of an SSCHA run: energies, gradients, stress, minimisation steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from hint_recipes.crystals.sscha.ensemble_averages import free_energy, mean_force, stress_and_error
from hint_recipes.crystals.sscha.ensemble_statistics import jackknife
from hint_recipes.crystals.sscha.state import GPA, State


def record(state: State, minimiser: Any, pairs: np.ndarray, dropped: int, laps: dict[str, float]) -> None:
    """Append one row to ``history`` and the minimisation steps to ``steps``; energies per unit cell in eV.

    Free energy, stress and volume belong to one cell, in which the ensemble was drawn. Errors count mirror pairs as one
    draw, except those of the gradient, which are python-sscha's and serve its test of convergence.

    Parameters
    ----------
    state
        The run, still before this population.
    minimiser
        python-sscha's, after the minimisation.
    pairs
        ``(n,)`` number of the mirror pair of each configuration.
    dropped
        Configurations left out.
    laps
        Seconds spent on each part.
    """
    import cellconstructor as CC

    to_ev = CC.Units.RY_TO_EV
    ensemble = minimiser.ensemble
    cells = state.constants.num_cells
    energy, error = (value / cells for value in free_energy(ensemble, pairs))
    row: dict[str, Any] = {
        "stage": state.stage + 1,
        "supercell": "x".join(map(str, state.constants.multiples)),
        "population": state.population + 1,
        "free_energy_eV": energy,
        "free_energy_error_eV": error,
        **_gradient(minimiser, -1),
        "structure_gradient_over_error": _ratio(minimiser.__gw__[-1], minimiser.__gw_err__[-1]),
        **_centroid_force(ensemble, minimiser.dyn, pairs),
        "kong_liu": float(ensemble.get_effective_sample_size() / ensemble.N),
        "steps": len(minimiser.__gc__),
        "dropped": dropped,
        **{f"seconds_{k}": v for k, v in laps.items()},
    }
    if ensemble.has_stress:
        tensor, spread = stress_and_error(ensemble, pairs)
        row["pressure_GPa"] = float(np.trace(tensor) / 3 / GPA)
        row["pressure_error_GPa"] = float(np.linalg.norm(np.diag(spread)) / 3 / GPA)
        row["volume_A3"] = float(abs(np.linalg.det(minimiser.dyn.structure.unit_cell)))
    state.history.append(row)
    steps = zip(minimiser.__fe__, minimiser.__fe_err__, minimiser.__KL__, strict=True)
    for index, (value, uncertainty, sample) in enumerate(steps):
        gradient_known = index < len(minimiser.__gc__)
        state.steps.append(
            {
                "stage": state.stage + 1,
                "population": state.population + 1,
                "step": index,
                "free_energy_eV": float(np.real(value)) * to_ev,
                "error_eV": float(np.real(uncertainty)) * to_ev,
                "kong_liu": float(sample / ensemble.N),
                **(_gradient(minimiser, index) if gradient_known else {"gradient_over_error": None}),
            }
        )


def _gradient(minimiser: Any, index: int) -> dict[str, float]:
    """Gradient with respect to the auxiliary matrix after ``index`` steps, its error, and their ratio.

    Preconditioned (``normal`` representation) it is the distance from the self-consistent matrix, eV/A^2 (norm over
    the q points); the root representations use it without preconditioning, A^2.
    """
    import cellconstructor as CC

    value, error = float(minimiser.__gc__[index]), float(minimiser.__gc_err__[index])
    bohr = CC.Units.BOHR_TO_ANGSTROM
    unit, factor = ("eV_A2", CC.Units.RY_TO_EV / bohr**2) if minimiser.precond_dyn else ("A2", bohr**2)
    return {
        f"gradient_{unit}": float(value * factor),
        f"gradient_error_{unit}": float(error * factor),
        "gradient_over_error": _ratio(value, error),
    }


def _centroid_force(ensemble: Any, dyn: Any, pairs: np.ndarray) -> dict[str, float]:
    """Norm of the mean force on the centroids that symmetry leaves, and its statistical error, eV/A."""
    errors = jackknife(ensemble, pairs, lambda sample: mean_force(sample, dyn))
    return {
        "centroid_force_eV_A": float(np.linalg.norm(mean_force(ensemble, dyn))),
        "centroid_force_error_eV_A": float(np.linalg.norm(errors)),
    }


def _ratio(value: float, error: float) -> float:
    return float(value / error) if error else 0.0
