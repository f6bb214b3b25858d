"""Free-energy correction from the model to a reference method by thermodynamic perturbation.

First order: the average energy difference on the model's ensemble. On the Gaussian ensemble of an SSCHA it is the
variational correction: added to the model's free energy it gives the bound that the same Gaussian has for the
reference. Exponential: Zwanzig's ``dF = -kT ln <exp(-(V_ref - V_model) / kT)>``, which is classical, needs T > 0, and
is trustworthy only where its effective sample is large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.units import kB

from hint_plugins.errors import InputError
from hint_recipes.crystals.sscha.ensemble_statistics import mean_and_error


@dataclass(frozen=True)
class Correction:
    """Free-energy correction and standard errors in eV a supercell; effective sample of the exponential average."""

    first_order: float
    first_order_error: float
    exponential: float | None
    exponential_error: float | None
    effective_sample: float | None


def perturbation(
    model: np.ndarray,
    reference: np.ndarray,
    temperature: float,
    *,
    pairs: np.ndarray | None = None,
    seed: int = 0,
    resamples: int = 500,
) -> Correction:
    """Correct a free energy with reference energies of some configurations of the model's ensemble.

    Parameters
    ----------
    model, reference
        ``(n,)`` energies of the same configurations, eV.
    temperature
        K; at 0 only the first order exists.
    pairs
        ``(n,)`` numbers; configurations with the same one are mirror images and count as one draw in the errors and in
        the effective sample. By default all are independent.
    seed, resamples
        Bootstrap for the error of the exponential average.

    Raises
    ------
    InputError
        If there are fewer than two independent configurations, or energies are not finite.
    """
    from scipy.special import logsumexp

    difference = np.asarray(reference, float) - np.asarray(model, float)
    if difference.ndim != 1 or len(difference) < 2:
        raise InputError("the free-energy correction needs at least two configurations")
    if not np.isfinite(difference).all():
        raise InputError(
            f"energy {int(np.argmin(np.isfinite(difference)))} for the free-energy correction is not finite"
        )
    group = np.unique(np.arange(len(difference)) if pairs is None else pairs, return_inverse=True)[1]
    sizes = np.bincount(group)
    count = len(sizes)
    if count < 2:
        raise InputError("the free-energy correction needs at least two mirror pairs of configurations")
    first, error = mean_and_error(difference, group)
    if temperature <= 0:
        return Correction(first, error, None, None, None)
    thermal = kB * temperature
    weights = np.full(count, -np.inf)  # logarithms, one a pair
    np.logaddexp.at(weights, group, -difference / thermal)
    chosen = np.random.default_rng(seed).integers(count, size=(resamples, count))
    values = -thermal * (logsumexp(weights[chosen], axis=1) - np.log(sizes[chosen].sum(axis=1)))
    return Correction(
        first,
        error,
        float(-thermal * (logsumexp(weights) - np.log(len(difference)))),
        float(np.std(values, ddof=1)),
        float(np.exp(2 * logsumexp(weights) - logsumexp(2 * weights))),
    )
