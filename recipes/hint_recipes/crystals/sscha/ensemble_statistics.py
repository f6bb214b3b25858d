"""Standard errors of ensemble averages whose configurations come in mirror pairs.

A configuration and its mirror image are one draw: what is even in the displacements is (nearly) the same on both.
Counted as independent, they make errors too small by up to a factor of sqrt(2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sscha.Ensemble import Ensemble

#: Blocks of the jackknife. The relative uncertainty of its error is 1 / sqrt(2 (blocks - 1)), 18 %.
BLOCKS = 16


def mean_and_error(values: np.ndarray, pairs: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float]:
    """Weighted mean and its standard error; configurations of one pair count as one draw.

    Parameters
    ----------
    values
        ``(n,)``.
    pairs
        ``(n,)`` numbers, equal for mirror images.
    weights
        ``(n,)`` statistical weights, not normalised; equal ones by default.

    Returns
    -------
    float, float
        The error is infinite when there is only one pair.
    """
    values = np.asarray(values, float)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, float)
    mean = float(values @ weights / weights.sum())
    group = np.unique(pairs, return_inverse=True)[1]
    count = int(group.max()) + 1
    if count < 2:
        return mean, np.inf
    residuals = np.bincount(group, weights * (values - mean))
    return mean, float(np.sqrt(count / (count - 1) * (residuals**2).sum()) / weights.sum())


def jackknife(
    ensemble: Ensemble, pairs: np.ndarray, estimate: Callable[[Ensemble], Any], blocks: int = BLOCKS
) -> np.ndarray:
    """Standard error of any estimate from an ensemble: delete-a-block jackknife over whole mirror pairs.

    Parameters
    ----------
    ensemble
        With energies and forces, at its present weights.
    pairs
        ``(n,)`` numbers, equal for mirror images.
    estimate
        Gives an array from an ensemble; it may change the ensemble that it is given (each time a new one).
    blocks
        At most this many blocks.

    Returns
    -------
    ndarray
        Of the shape of the estimate. Not a number where an estimate was not finite; infinite with a single pair.
    """
    group = np.unique(pairs, return_inverse=True)[1]
    count = min(blocks, int(group.max()) + 1)
    if count < 2:
        return np.full(np.shape(estimate(ensemble.split(group >= 0))), np.inf)
    left_out = group % count
    values = np.array([estimate(ensemble.split(left_out != block)) for block in range(count)])
    return np.sqrt((count - 1) / count * ((values - values.mean(0)) ** 2).sum(0))
