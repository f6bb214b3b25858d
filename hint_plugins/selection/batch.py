"""Displace a stream of structures, one at a time or in pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from ase import Atoms

from hint_plugins.labelling.engine import EngineError, EngineSpec
from hint_plugins.labelling.make import make_label
from hint_plugins.labelling.record import LabelTask
from hint_plugins.selection.displacement import DisplacementError, gaussian, interpolate, normal_modes

METHODS = ("gaussian", "normal-modes", "path")


def displaced(
    structures: Iterable[Atoms],
    method: str,
    count: int,
    rng: np.random.Generator,
    *,
    sigma: float = 0.4,
    keep_centre: bool = True,
    temperature: float = 300.0,
    quantum: bool = True,
    engine: str = "xtb",
) -> Iterator[tuple[int, list[Atoms] | Exception]]:
    """Apply one of :data:`METHODS` to each structure (``path``: to each pair).

    Parameters
    ----------
    structures
        Stream.
    method, count, rng, sigma, keep_centre, temperature, quantum
        As in :mod:`hint_plugins.selection.displacement`.
    engine
        Label engine for Hessians of structures without ``REF_hessian``.

    Yields
    ------
    index, result
        Number of the (first) parent and its displaced structures, ``info["parent"]`` set; or the reason why not.
    """
    if method not in METHODS:
        raise DisplacementError(f"unknown method {method!r}: choose {', '.join(METHODS)}")
    if method == "path":
        yield from _paths(structures, count)
        return
    for index, atoms in enumerate(structures):
        try:
            if method == "gaussian":
                made = gaussian(atoms, sigma, count, rng, keep_centre=keep_centre)
            else:
                made = normal_modes(atoms, _hessian(atoms, engine), temperature, count, rng, quantum=quantum)
        except (DisplacementError, EngineError) as error:
            yield index, error
            continue
        yield index, _tagged(made, index)


def _paths(structures: Iterable[Atoms], count: int) -> Iterator[tuple[int, list[Atoms] | Exception]]:
    start = None
    index = -1
    for index, atoms in enumerate(structures):
        if start is None:
            start = atoms
            continue
        try:
            images = _tagged(interpolate(start, atoms, count), index - 1)
            for image, x in zip(images, np.linspace(0, 1, count), strict=True):
                image.info["role"] = {0.0: "reactant", 1.0: "product"}.get(float(x), "path")
                image.info["coordinate"] = round(float(x), 4)
            yield index - 1, images
        except DisplacementError as error:
            yield index - 1, error
        start = None
    if start is not None:
        yield index, DisplacementError("the last structure has no partner: paths need start and end in turn")


def _tagged(made: list[Atoms], index: int) -> list[Atoms]:
    for atoms in made:
        atoms.info["parent"] = index
    return made


def _hessian(atoms: Atoms, engine: str) -> np.ndarray:
    stored = atoms.info.get("REF_hessian")
    if stored is None:
        stored = make_label(EngineSpec(engine).build(), atoms, LabelTask("full"))["hessian"]
    dim = 3 * len(atoms)
    if np.size(stored) != dim * dim:
        raise DisplacementError(f"REF_hessian has {np.size(stored)} numbers, {len(atoms)} atoms need {dim * dim}")
    return np.reshape(stored, (dim, dim))
