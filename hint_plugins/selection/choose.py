"""Put a selection together: score, take, and pick who gets a Hessian."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hint_plugins.selection.density import SoapMap, local_density_weights
from hint_plugins.selection.energy import by_energy
from hint_plugins.selection.survey import SelectionError, Stream, draw, how_many, survey

METHODS = ("density", "energy", "random")


@dataclass
class Selection:
    """Result of :func:`choose`; arrays have one entry a structure.

    Attributes
    ----------
    taken, hessian
        (S,) bool: chosen for energy and forces; and for a Hessian.
    scores
        (S,) probability of the first draw (density, random) or relative energy in eV (energy).
    formulas
        Hill formulas.
    points
        (S, d) coordinates of the map, or None.
    explained
        Part of the SOAP variance in the map, or None.
    """

    taken: np.ndarray
    hessian: np.ndarray
    scores: np.ndarray
    formulas: list[str]
    points: np.ndarray | None
    explained: float | None


def choose(
    stream: Stream,
    *,
    method: str = "density",
    fraction: float = 0.1,
    hessian_fraction: float = 1.0,
    end: str = "top",
    neighbours: int = 10,
    components: int = 32,
    r_cut: float = 5.0,
    with_map: bool = True,
    rng: np.random.Generator,
) -> Selection:
    """Choose structures from a stream that is walked through twice.

    Parameters
    ----------
    stream
        Opens the structures.
    method
        One of :data:`METHODS`.
    fraction
        Part to take.
    hessian_fraction
        Part of the taken, drawn at random, for Hessians; 0 for none.
    end
        For ``energy``: ``top`` or ``bottom``.
    neighbours, components, r_cut
        Of :func:`~hint_plugins.selection.density.local_density_weights` and the SOAP map.
    with_map
        Compute the map for ``energy`` and ``random``, too.
    rng
        Source of randomness.

    Raises
    ------
    SelectionError
        Wrong option, no structures, missing energies or libraries.
    """
    if method not in METHODS:
        raise SelectionError(f"unknown method {method!r}: choose {', '.join(METHODS)}")
    if not 0 <= hessian_fraction <= 1:
        raise SelectionError(f"the Hessian fraction must be between 0 and 1, got {hessian_fraction}")
    found = survey(stream(), rng)
    total = len(found)
    count = how_many(total, fraction, "the fraction")
    points = explained = None
    if method == "density" or with_map:
        soap_map = SoapMap.fit(found, components=components, r_cut=r_cut)
        points, explained = soap_map(stream()), soap_map.explained
    if method == "energy":
        indices, scores = by_energy(found, count, end)
    else:
        scores = np.full(total, 1.0 / total)
        if method == "density":
            assert points is not None
            scores = local_density_weights(points, neighbours)
        indices = draw(scores, count, rng)
    taken = np.zeros(total, dtype=bool)
    taken[indices] = True
    hessian = np.zeros(total, dtype=bool)
    if hessian_fraction > 0:
        some = how_many(count, hessian_fraction, "the Hessian fraction")
        hessian[rng.choice(indices, some, replace=False)] = True
    return Selection(taken, hessian, scores, found.formulas, points, explained)
