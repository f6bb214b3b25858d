"""Free-energy correction from the model to a reference method by thermodynamic perturbation.

First order: the average energy difference on the model's ensemble. Full: Zwanzig's exponential average,
``dF = -kT ln <exp(-(V_ref - V_model) / kT)>``, which is classical and needs T > 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.units import kB

from hint_plugins.cli.common import InputError


@dataclass(frozen=True)
class Correction:
    """Free-energy correction and standard errors in eV a supercell; effective sample of the exponential average."""

    first_order: float
    first_order_error: float
    exponential: float | None
    exponential_error: float | None
    effective_sample: float | None


def perturbation(
    model: np.ndarray, reference: np.ndarray, temperature: float, *, seed: int = 0, resamples: int = 500
) -> Correction:
    """Correct a free energy with reference energies of some configurations of the model's ensemble.

    Parameters
    ----------
    model, reference
        ``(n,)`` energies of the same configurations, eV.
    temperature
        K; at 0 only the first order exists.
    seed, resamples
        Bootstrap for the error of the exponential average.

    Raises
    ------
    InputError
        If there are fewer than two configurations, or energies are not finite.
    """
    difference = np.asarray(reference, float) - np.asarray(model, float)
    if difference.ndim != 1 or len(difference) < 2:
        raise InputError("the free-energy correction needs at least two configurations")
    if not np.isfinite(difference).all():
        raise InputError(
            f"energy {int(np.argmin(np.isfinite(difference)))} for the free-energy correction is not finite"
        )
    first, error = float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))
    if temperature <= 0:
        return Correction(first, error, None, None, None)
    weights = np.exp(-(difference - difference.min()) / (kB * temperature))
    samples = np.random.default_rng(seed).integers(len(difference), size=(resamples, len(difference)))
    values = [_exponential(difference[row], temperature) for row in samples]
    return Correction(
        first,
        error,
        _exponential(difference, temperature),
        float(np.std(values, ddof=1)),
        float(weights.sum() ** 2 / (weights**2).sum()),
    )


def _exponential(difference: np.ndarray, temperature: float) -> float:
    from scipy.special import logsumexp

    thermal = kB * temperature
    return float(-thermal * (logsumexp(-difference / thermal) - np.log(len(difference))))
