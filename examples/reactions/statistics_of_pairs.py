"""Mean, spread and paired tests of two trainings on the same reactions and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

#: Resamplings of the tests.
RESAMPLES = 9999


def mean_and_spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and standard deviation (n - 1); None where there are too few values."""
    numbers = np.asarray(values, dtype=float)
    if not numbers.size:
        return None, None
    return float(numbers.mean()), float(numbers.std(ddof=1)) if numbers.size > 1 else None


def shown(values: Sequence[float]) -> str:
    """``mean ± spread`` in three digits."""
    mean, spread = mean_and_spread(values)
    if mean is None:
        return "–"
    return f"{mean:.3g}" + (f" ± {spread:.2g}" if spread is not None else "")


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> dict[str, Any]:
    """Exact McNemar test of paired successes.

    Returns
    -------
    dict
        ``only_first``, ``only_second``: pairs of which one alone succeeded; ``p``, two-sided, None without such pairs.
    """
    pairs = list(zip(first, second, strict=True))
    only_first, only_second = (sum(bool(a) and not b for a, b in some) for some in (pairs, [p[::-1] for p in pairs]))
    discordant = only_first + only_second
    p = float(stats.binomtest(only_first, discordant).pvalue) if discordant else None
    return {"only_first": only_first, "only_second": only_second, "p": p}


def paired(first: Sequence[float], second: Sequence[float], seed: int = 0) -> dict[str, float | None]:
    """Difference of two paired samples, one pair a reaction.

    Parameters
    ----------
    first, second
        Values of the same reactions in the same order; finite.
    seed
        Of the resampling.

    Returns
    -------
    dict
        ``difference``: mean of ``second - first``; ``low``, ``high``: its 95 % interval (BCa bootstrap over reactions);
        ``p``: two-sided, from random exchange within the pairs. Interval and p are None below two reactions, and the
        interval also where all differences are equal.
    """
    a, b = (np.asarray(values, dtype=float) for values in (first, second))
    if a.shape != b.shape:
        raise ValueError(f"{len(a)} and {len(b)} values are no pairs")
    delta = b - a
    found: dict[str, float | None] = {"difference": float(delta.mean()) if len(delta) else None}
    found |= dict.fromkeys(("low", "high", "p"))
    if len(delta) < 2:
        return found
    rng = np.random.default_rng(seed)
    signs = stats.permutation_test(
        (a, b),
        lambda x, y, axis: np.mean(y - x, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=rng,
    )
    found["p"] = float(signs.pvalue)
    if np.ptp(delta) > 0:
        interval = stats.bootstrap((delta,), np.mean, n_resamples=RESAMPLES, rng=rng).confidence_interval
        found |= {"low": float(interval.low), "high": float(interval.high)}
    return found


def by_reaction(rows: Sequence[dict[str, Any]], key: str) -> dict[str, float]:
    """Mean absolute value of ``key`` over the structures and seeds of each reaction that have one."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        if row.get(key) not in (None, ""):
            groups.setdefault(str(row["reaction"]), []).append(abs(float(row[key])))
    return {name: float(np.mean(values)) for name, values in groups.items()}
