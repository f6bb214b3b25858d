"""What a converged SSCHA run is worth: free energy, stress and forces from configurations that it has not seen.

The free energy at the minimum of one sample is biased low, since the minimisation also fits the noise of that sample.
On a fresh ensemble of the converged auxiliary matrix the average is unbiased: an upper bound of the true free energy
(Gibbs and Bogoliubov), with an error that can be trusted.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hint_plugins.runs.files import replacing
from hint_plugins.runs.items import digest
from hint_recipes.crystals.force_constants.cellconstructor import to_cellconstructor
from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.sscha.ensemble_averages import free_energy, mean_force, stress_and_error
from hint_recipes.crystals.sscha.ensemble_statistics import jackknife
from hint_recipes.crystals.sscha.populations import draw
from hint_recipes.crystals.sscha.self_consistency import self_consistent
from hint_recipes.crystals.sscha.settings import SschaSettings
from hint_recipes.crystals.sscha.state import GPA

if TYPE_CHECKING:
    from sscha.Ensemble import Ensemble

    from hint_recipes.crystals.sscha.ensemble import EnsembleEngine

#: A run is doubtful when a frequency from the fresh ensemble differs by more than this many standard errors.
MAX_DEVIATION = 5.0


@dataclass(frozen=True)
class FreshEnsemble:
    """Averages over a fresh ensemble, with standard errors; energies per unit cell.

    Attributes
    ----------
    configurations, dropped
        Used, and left out.
    free_energy, free_energy_error
        eV.
    frequencies, frequency_errors
        ``(num_q, 3n)`` of the auxiliary matrix that is self-consistent on the fresh ensemble, cm^-1; the errors are
        those of as many configurations. Not a number where a resampled ensemble gave no positive definite matrix.
    centroid_force, centroid_force_error
        Norm of the mean force on the centroids that symmetry leaves, eV/A.
    stress, stress_error
        ``(3, 3)``, eV/A^3, positive under compression; None where stresses were not asked for.
    """

    configurations: int
    dropped: int
    free_energy: float
    free_energy_error: float
    frequencies: np.ndarray
    frequency_errors: np.ndarray
    centroid_force: float
    centroid_force_error: float
    stress: np.ndarray | None = None
    stress_error: np.ndarray | None = None

    def errors_for(self, effective_configurations: float) -> np.ndarray:
        """``(num_q, 3n)`` errors (cm^-1) of a matrix that was minimised on another number of configurations."""
        return self.frequency_errors * np.sqrt(self.configurations / effective_configurations)

    def deviation(self, frequencies: np.ndarray, effective_configurations: float) -> float:
        """Largest difference to ``frequencies`` (cm^-1) of a run, in standard errors of the difference."""
        spread = np.hypot(self.frequency_errors, self.errors_for(effective_configurations))
        known = np.isfinite(spread) & (spread > 1e-6)
        return float((np.abs(self.frequencies - frequencies)[known] / spread[known]).max(initial=0.0))

    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` holds."""
        values: dict[str, Any] = {
            "configurations": self.configurations,
            "dropped": self.dropped,
            "free_energy": self.free_energy,
            "free_energy_error": self.free_energy_error,
            "centroid_force_eV_A": self.centroid_force,
            "centroid_force_error_eV_A": self.centroid_force_error,
        }
        if self.stress is not None and self.stress_error is not None:
            values |= {
                "stress_GPa": self.stress / GPA,
                "stress_error_GPa": self.stress_error / GPA,
                "pressure_GPa": float(np.trace(self.stress) / 3 / GPA),
                "pressure_error_GPa": float(np.linalg.norm(np.diag(self.stress_error)) / 3 / GPA),
            }
        return values


def fresh_ensemble(
    constants: ForceConstants, engine: EnsembleEngine, settings: SschaSettings, count: int
) -> FreshEnsemble:
    """Draw ``count`` configurations of ``constants``, evaluate them and average.

    Parameters
    ----------
    constants
        Auxiliary force constants of a finished run.
    engine, settings
        Of the run.
    count
        Configurations (even: mirror pairs).
    """
    dyn = to_cellconstructor(constants)
    dyn.Symmetrize()
    stress = settings.stress or settings.relax_cell
    drawn = draw(dyn, settings.temperature, count, (settings.seed, 3 * 10**6))
    ensemble, pairs = engine.fill(drawn, stress=stress, label="fresh ensemble")
    ensemble.update_weights(dyn, settings.temperature)
    energy, error = free_energy(ensemble, pairs)
    cells = constants.num_cells

    def frequencies(sample: Ensemble) -> np.ndarray:
        own = self_consistent(sample, dyn, settings)
        return np.full((cells, 3 * len(constants.primitive)), np.nan) if own is None else own.frequencies()

    force = mean_force(ensemble, dyn)
    tensor, tensor_error = stress_and_error(ensemble, pairs) if stress else (None, None)
    return FreshEnsemble(
        configurations=len(pairs),
        dropped=count - len(pairs),
        free_energy=energy / cells,
        free_energy_error=error / cells,
        frequencies=frequencies(ensemble.split(np.ones(len(pairs), bool))),
        frequency_errors=jackknife(ensemble, pairs, frequencies),
        centroid_force=float(np.linalg.norm(force)),
        centroid_force_error=float(np.linalg.norm(jackknife(ensemble, pairs, lambda sample: mean_force(sample, dyn)))),
        stress=tensor,
        stress_error=tensor_error,
    )


def kept_fresh_ensemble(
    path: Path, constants: ForceConstants, engine: EnsembleEngine, settings: SschaSettings, count: int
) -> FreshEnsemble:
    """:func:`fresh_ensemble`, or what an earlier call with the same arguments left in ``path``; kept there."""
    key = digest(
        constants.primitive,
        hashlib.sha256(np.ascontiguousarray(constants.hessian).tobytes()).hexdigest(),
        {"count": count, "temperature": settings.temperature, "seed": settings.seed, "stress": settings.stress},
    )
    try:
        with np.load(path) as content:
            if str(content["key"]) == key:
                values = {name: content[name] for name in content.files if name != "key"}
                return FreshEnsemble(**{name: v if v.ndim else v.item() for name, v in values.items()})
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        pass  # none, or a damaged one: made again
    found = fresh_ensemble(constants, engine, settings, count)
    with replacing(path) as temporary:
        np.savez(temporary, key=key, **{name: value for name, value in vars(found).items() if value is not None})
    return found
