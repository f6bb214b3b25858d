"""Put a selection together: score, take, and pick who gets a Hessian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hint_plugins.registries import registries, resolve
from hint_plugins.selection.density import SoapMap, local_density_weights
from hint_plugins.selection.energy import by_energy
from hint_plugins.selection.survey import SelectionError, Stream, Survey, draw, how_many, survey

#: A way to choose: survey, map (or None), number to take, source of randomness and the options of :func:`choose`
#: to the indices taken (ascending) and a score for every structure. Plugins add to this.
Selector = Callable[
    [Survey, "np.ndarray | None", int, np.random.Generator, dict[str, Any]], tuple[np.ndarray, np.ndarray]
]


def by_density(found, points, count, rng, options):
    """Draw with the weights of :func:`~hint_plugins.selection.density.local_density_weights`."""
    scores = local_density_weights(points, options["neighbours"])
    return draw(scores, count, rng), scores


def by_relative_energy(found, points, count, rng, options):
    """Take the highest or lowest above their isomers; see :func:`~hint_plugins.selection.energy.by_energy`."""
    return by_energy(found, count, options["end"])


def at_random(found, points, count, rng, options):
    """Draw with equal probabilities."""
    scores = np.full(len(found), 1.0 / len(found))
    return draw(scores, count, rng), scores


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
        A registered name (:attr:`hint_plugins.registries.Registries.selectors`).
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
    selectors = registries().selectors
    if method not in selectors:
        raise SelectionError(f"unknown method {method!r}: choose {', '.join(selectors)}")
    if not 0 <= hessian_fraction <= 1:
        raise SelectionError(f"the Hessian fraction must be between 0 and 1, got {hessian_fraction}")
    found = survey(stream(), rng)
    total = len(found)
    count = how_many(total, fraction, "the fraction")
    points = explained = None
    if method == "density" or with_map:
        soap_map = SoapMap.fit(found, components=components, r_cut=r_cut)
        points, explained = soap_map(stream()), soap_map.explained
    options = {"neighbours": neighbours, "end": end}
    selector: Selector = resolve(selectors[method])
    indices, scores = selector(found, points, count, rng, options)
    taken = np.zeros(total, dtype=bool)
    taken[indices] = True
    hessian = np.zeros(total, dtype=bool)
    if hessian_fraction > 0:
        some = how_many(count, hessian_fraction, "the Hessian fraction")
        hessian[rng.choice(indices, some, replace=False)] = True
    return Selection(taken, hessian, scores, found.formulas, points, explained)
