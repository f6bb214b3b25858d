"""Initial paths (geodesic interpolation) and climbing-image elastic bands with all images in one batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.geometry import find_mic
from ase.mep import NEB
from ase.optimize.fire2 import FIRE2

from hint_plugins.structures.copies import moved
from hint_recipes.failures import SearchFailure
from hint_recipes.steps import check_step

if TYPE_CHECKING:
    from hint_plugins.potential import Potential


def geodesic_path(reactant: Atoms, product: Atoms, num_images: int = 17, seed: int = 0) -> list[Atoms]:
    """Shortest path in scaled interatomic distances (Zhu, Thompson, Martinez, J. Chem. Phys. 150, 164103 (2019)).

    Parameters
    ----------
    reactant, product
        End points, same atoms in the same order.
    num_images
        Structures on the path, end points included.
    seed
        The interpolation nudges its guesses at random; the same seed gives the same path.

    Returns
    -------
    list of ase.Atoms
        The path; the first structure is the reactant, the product is rotated onto it.
    """
    import logging

    from geodesic_interpolate.geodesic import Geodesic
    from geodesic_interpolate.interpolation import redistribute

    if num_images < 3:
        raise ValueError(f"a path needs at least 3 images, got {num_images}")
    logging.getLogger("geodesic_interpolate").setLevel(logging.WARNING)
    symbols = reactant.get_chemical_symbols()
    state = np.random.get_state()  # noqa: NPY002 (the library draws from NumPy's global generator)
    np.random.seed(seed)  # noqa: NPY002
    try:
        raw = redistribute(symbols, [reactant.positions, product.positions], num_images, tol=1e-2)
        smoother = Geodesic(symbols, raw, 1.7, threshold=3.0, friction=1e-2, log_level=logging.DEBUG)
        relax = smoother.sweep if len(symbols) > 35 else smoother.smooth
        relax(tol=2e-3, max_iter=15)
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return with_roles([moved(reactant, positions) for positions in smoother.path])


def initial_path(reactant: Atoms, product: Atoms, num_images: int = 17, seed: int = 0) -> list[Atoms]:
    """A path to start from: :func:`geodesic_path` for molecules whose atoms may all move.

    Crystals, slabs and molecules with frozen atoms must not be rotated. Their paths are interpolated in pair
    distances (IDPP; Smidstrup, Pedersen, Stokbro and Jonsson, J. Chem. Phys. 140, 214106 (2014)), each atom on the
    shortest way to its nearest image.
    """
    if not (reactant.pbc.any() or reactant.constraints):
        return geodesic_path(reactant, product, num_images, seed)
    way = find_mic(product.positions - reactant.positions, reactant.cell, reactant.pbc)[0]
    images = [moved(reactant, reactant.positions + f * way) for f in np.linspace(0, 1, num_images)]
    NEB(images, method="improvedtangent").interpolate(
        method="idpp", mic=bool(reactant.pbc.any()), apply_constraint=False
    )
    return with_roles([moved(image) for image in images])


def with_roles(images: list[Atoms]) -> list[Atoms]:
    """The images of a path, their ``info["role"]`` set: reactant, path ..., product."""
    for image, role in zip(images, ["reactant", *["path"] * (len(images) - 2), "product"], strict=True):
        image.info["role"] = role
    return images


def evaluate_images(potential: Potential, images: Sequence[Atoms]) -> np.ndarray:
    """Energies (eV) of the images, which also get them and their forces attached; one batched call.

    Raises
    ------
    SearchFailure
        ``potential_failed`` when they are not finite.
    """
    predictions = potential.evaluate(list(images))
    for k, (image, energy, forces) in enumerate(zip(images, predictions.energies, predictions.forces, strict=True)):
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise SearchFailure("potential_failed", f"energy or forces of image {k} are not finite")
        image.calc = SinglePointCalculator(image, energy=float(energy), forces=np.asarray(forces, dtype=float))
    return np.asarray(predictions.energies, dtype=float)


class BatchedNEB(NEB):
    """ASE's elastic band whose images are evaluated together by a :class:`~hint_plugins.potential.Potential`.

    An image that a step has thrown off its place is not evaluated (:func:`hint_recipes.steps.check_step`).
    """

    def __init__(self, images: list[Atoms], potential: Potential, **options: object) -> None:
        super().__init__(images, remove_rotation_and_translation=False, **options)
        self.potential = potential
        self.start = [image.positions.copy() for image in images]

    def get_forces(self) -> np.ndarray:
        for image, start in zip(self.images, self.start, strict=True):
            check_step(image.positions, start)
        stale = [
            image
            for image in self.images
            if image.calc is None or image.calc.check_state(image)  # moved since it was evaluated
        ]
        if stale:
            evaluate_images(self.potential, stale)
        return super().get_forces()


def relax_band(
    images: list[Atoms],
    potential: Potential,
    *,
    fmax: float = 0.3,
    steps: int = 100,
    spring: float = 1.0,
    climb_below: float = 1.0,
    optimizer: type = FIRE2,
    observer: Callable[[], None] | None = None,
) -> tuple[bool, int]:
    """Relax a band in place, with a climbing image from the moment the forces fall below ``climb_below``.

    Parameters
    ----------
    images
        The path; its ends stay.
    potential
        Evaluates all images in one call a step.
    fmax
        Converged when the largest band force is below this, eV/A.
    steps
        At most so many steps in all.
    spring
        Spring constant, eV/A^2.
    climb_below
        Largest band force (eV/A) at which the highest image starts to climb.
    optimizer
        An ASE optimiser class.
    observer
        Called after every step.

    Returns
    -------
    bool, int
        Whether it converged, and the steps made.

    Raises
    ------
    SearchFailure
        ``flew_apart`` for a step that is not finite or leads too far away, ``potential_failed``.
    """
    made = 0
    converged = False
    for climb, threshold in ((False, max(climb_below, fmax)), (True, fmax)):
        band = BatchedNEB(images, potential, k=spring, climb=climb, method="improvedtangent")
        relaxation = optimizer(band, logfile=None)
        if observer is not None:
            relaxation.attach(observer)
        converged = bool(relaxation.run(fmax=threshold, steps=steps - made))
        made += relaxation.nsteps
        if made >= steps:
            break
    return converged and climb, made


def without_repeats(images: Sequence[Atoms], tolerance: float = 1e-6) -> list[Atoms]:
    """The images that differ from their forerunner by more than ``tolerance`` (A)."""
    kept = list(images[:1])
    for image in images[1:]:
        if np.abs(image.positions - kept[-1].positions).max() > tolerance:
            kept.append(image)
    return kept


def path_length(images: Sequence[Atoms]) -> np.ndarray:
    """Mass-weighted arc length along the path, amu^(1/2) A, from 0."""
    roots = np.sqrt(images[0].get_masses())[:, None]
    steps = [np.linalg.norm(roots * (b.positions - a.positions)) for a, b in itertools.pairwise(images)]
    return np.concatenate([[0.0], np.cumsum(steps)])
