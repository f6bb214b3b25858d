"""Displace a stream of structures, one at a time or in pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from ase import Atoms

from hint_plugins.labelling.engine import EngineError, EngineSpec
from hint_plugins.labelling.make import make_label
from hint_plugins.labelling.record import LabelTask
from hint_plugins.selection.displacement import DisplacementError, gaussian, interpolate, normal_modes
from hint_plugins.selection.settings import DisplaceSettings


def displaced(
    structures: Iterable[tuple[int, Atoms]], settings: DisplaceSettings
) -> Iterator[tuple[int, list[Atoms] | Exception]]:
    """Displace each structure (``path``: each pair).

    Parameters
    ----------
    structures
        Stream of structures with their places in the file.
    settings
        Method, numbers and seed.

    Yields
    ------
    index, result
        Place of the (first) parent and its displaced structures, ``info["parent"]`` set; or the reason why not.
    """
    rng, count = np.random.default_rng(settings.seed), settings.count
    if settings.method == "path":
        yield from _paths(structures, count)
        return
    for index, atoms in structures:
        try:
            if settings.method == "gaussian":
                made = gaussian(atoms, settings.sigma, count, rng, keep_centre=settings.keep_centre)
            else:
                hessian = _hessian(atoms, settings.engine)
                made = normal_modes(atoms, hessian, settings.temperature, count, rng, quantum=not settings.classical)
        except (DisplacementError, EngineError) as error:
            yield index, error
            continue
        yield index, _tagged(made, index)


def _paths(structures: Iterable[tuple[int, Atoms]], count: int) -> Iterator[tuple[int, list[Atoms] | Exception]]:
    start: tuple[int, Atoms] | None = None
    for place, atoms in structures:
        if start is None:
            start = place, atoms
            continue
        index, first = start
        start = None
        try:
            images = _tagged(interpolate(first, atoms, count), index)
        except DisplacementError as error:
            yield index, error
            continue
        for image, x in zip(images, np.linspace(0, 1, count), strict=True):
            image.info["role"] = {0.0: "reactant", 1.0: "product"}.get(float(x), "path")
            image.info["coordinate"] = round(float(x), 4)
        yield index, images
    if start is not None:
        yield start[0], DisplacementError("the last structure has no partner: paths need start and end in turn")


def _tagged(made: list[Atoms], index: int) -> list[Atoms]:
    for atoms in made:
        atoms.info["parent"] = index
    return made


def _hessian(atoms: Atoms, engine: str) -> np.ndarray:
    stored = atoms.info.get("REF_hessian")
    if stored is None:
        stored = make_label(EngineSpec(engine).build(), atoms, LabelTask("full", whole=True))["hessian"]
    dim = 3 * len(atoms)
    if np.size(stored) != dim * dim:
        raise DisplacementError(f"REF_hessian has {np.size(stored)} numbers, {len(atoms)} atoms need {dim * dim}")
    return np.reshape(stored, (dim, dim))
