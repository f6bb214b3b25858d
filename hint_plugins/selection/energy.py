"""Choice by energy: structures are compared with their stoichiometric isomers only."""

from __future__ import annotations

import numpy as np

from hint_plugins.selection.survey import SelectionError, Survey


def relative_energies(found: Survey) -> np.ndarray:
    """Energy above the lowest structure of the same formula, eV.

    Raises
    ------
    SelectionError
        If a structure has no energy.
    """
    missing = np.flatnonzero(~np.isfinite(found.energies))
    if missing.size:
        raise SelectionError(
            f"{missing.size} structures have no REF_energy (the first is number {missing[0]}): "
            "label them cheaply first, for example with `hint label --kind forces`"
        )
    _, group = np.unique(np.array(found.formulas), return_inverse=True)
    lowest = np.full(group.max() + 1, np.inf)
    np.minimum.at(lowest, group, found.energies)
    return found.energies - lowest[group]


def by_energy(found: Survey, count: int, end: str) -> tuple[np.ndarray, np.ndarray]:
    """Take the ``count`` structures that lie highest or lowest above their isomers' minimum.

    For transition states the high end serves best (HINT: top 5-20 %).

    Parameters
    ----------
    found
        Survey with energies.
    count
        How many.
    end
        ``top`` or ``bottom``.

    Returns
    -------
    indices, scores
        (count,) ascending indices; (S,) relative energies in eV.
    """
    if end not in ("top", "bottom"):
        raise SelectionError(f"choose top or bottom, not {end!r}")
    scores = relative_energies(found)
    order = np.argsort(-scores if end == "top" else scores, kind="stable")
    return np.sort(order[:count]), scores
