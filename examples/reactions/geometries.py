"""Structures of a reaction: end points, paths between them, and rattled copies of all these."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from hint_plugins.potential import Potential
from hint_plugins.runs.executors import executor_factory
from hint_plugins.runs.items import safe_name
from hint_plugins.runs.parallel import map_items
from hint_plugins.selection.displacement import gaussian
from hint_plugins.storage.store import read_structures, write_structures
from hint_recipes.failures import SearchFailure
from hint_recipes.molecules.paths.elastic_band import initial_path, relax_band
from hint_recipes.molecules.transition_states.reaction import Reaction
from hint_recipes.molecules.transition_states.stationary import minimise


def structures_of(
    reaction: Reaction, *, level: str, images: int, band_steps: int, samples: int, sigma: float, seed: int
) -> list[Atoms]:
    """All structures of one reaction; the same for the same seed, whatever other reactions there are.

    Parameters
    ----------
    reaction
        End points.
    level
        Potential that relaxes the end points and the elastic band.
    images
        Of the geodesic path, end points included.
    band_steps
        Steps that the path is relaxed as an elastic band, whose inner images come besides; 0 for none.
    samples
        Rattled copies of every structure.
    sigma
        Standard deviation of each coordinate of these, A.

    Returns
    -------
    list of Atoms
        ``info``: ``reaction``, ``role`` (reactant, product, path), ``kind`` (minimum, geodesic, band) and
        ``displaced`` (bool). A relaxation that fails leaves its structures out.
    """
    potential = Potential.load(level)
    found: list[tuple[Atoms, str, str]] = []
    path = initial_path(reaction.reactant, reaction.product, images, seed)
    found += [(atoms, str(atoms.info["role"]), "geodesic") for atoms in path]
    for role in ("reactant", "product"):
        try:
            relaxed, converged = minimise(reaction.frames[role], potential, fmax=0.05, steps=300)
        except SearchFailure:
            continue
        if converged:
            found.append((relaxed, role, "minimum"))
    if band_steps:
        band = [atoms.copy() for atoms in path]
        try:
            relax_band(band, potential, fmax=0.3, steps=band_steps)
            found += [(atoms, "path", "band") for atoms in band[1:-1]]
        except SearchFailure:
            pass
    rng = np.random.default_rng([seed, zlib.crc32(reaction.name.encode())])
    frames = []
    for atoms, role, kind in found:
        first = Atoms(atoms.numbers, atoms.positions)
        first.info = {"reaction": reaction.name, "role": role, "kind": kind, "displaced": False}
        frames.append(first)
        for moved in gaussian(first, sigma, samples, rng) if samples else ():
            moved.info["displaced"] = True
            frames.append(moved)
    return frames


def _work(reaction: Reaction, *, folder: Path, options: dict) -> int:
    return write_structures(folder / f"{safe_name(reaction.name)}.xyz", structures_of(reaction, **options))


def make_geometries(
    reactions: Sequence[Reaction],
    folder: Path,
    options: dict,
    workers: int,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, str]:
    """Write the structures of every reaction into a file of its own, unless it is there.

    Parameters
    ----------
    reactions
        The set.
    folder
        Of the files.
    options
        Of :func:`structures_of`.
    workers
        Processes.
    progress
        Told of every reaction, finished ones included.

    Returns
    -------
    dict
        Names of reactions that gave none, and why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    todo = [r for r in reactions if not (folder / f"{safe_name(r.name)}.xyz").is_file()]
    for _ in range(len(reactions) - len(todo)):
        progress()
    failed = {}
    function = functools.partial(_work, folder=folder, options=options)
    for index, outcome in map_items(function, todo, executor_factory("local", workers), workers):
        if isinstance(outcome, BaseException):
            failed[todo[index].name] = f"{type(outcome).__name__}: {outcome}"
        progress()
    return failed


def join(reactions: Sequence[Reaction], parts: dict[str, str], folder: Path, path: Path) -> int:
    """All structures in one file, their part of the data set in ``info["part"]``; returns how many."""

    def stream():
        for reaction in reactions:
            file = folder / f"{safe_name(reaction.name)}.xyz"
            for atoms in read_structures(file) if file.is_file() else ():
                atoms.info["part"] = parts[reaction.name]
                yield atoms

    return write_structures(path, stream())
