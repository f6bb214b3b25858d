"""Minima and first-order saddle points with a potential."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.optimize import BFGS

from hint_plugins.structures.copies import bare
from hint_plugins.structures.frozen import free_components, with_zeros
from hint_recipes.failures import SearchFailure
from hint_recipes.steps import WatchedCalculator

if TYPE_CHECKING:
    from hint_plugins.potential import Potential


def snapshot(atoms: Atoms) -> Atoms:
    """A copy with energy and forces (those on frozen atoms included) and without the calculator they came from."""
    copy = bare(atoms)
    energy, forces = float(atoms.get_potential_energy()), np.array(atoms.get_forces(apply_constraint=False))
    copy.calc = SinglePointCalculator(copy, energy=energy, forces=forces)
    return copy


def minimise(
    atoms: Atoms,
    potential: Potential,
    *,
    fmax: float = 0.01,
    steps: int = 500,
    max_step: float = 0.2,
    deadline: float | None = None,
) -> tuple[Atoms, bool]:
    """Relax to a minimum (BFGS).

    Parameters
    ----------
    atoms
        Start; not changed.
    potential
        Energies and forces.
    fmax
        Largest force at the minimum, eV/A.
    steps
        At most so many.
    max_step
        Longest displacement of an atom in a step, A.
    deadline
        Moment of ``time.monotonic()`` after which to give up.

    Returns
    -------
    ase.Atoms, bool
        The end, with energy and forces, and whether it converged.

    Raises
    ------
    SearchFailure
        ``flew_apart`` for a step that is not finite or leads too far away, ``time_limit``, ``potential_failed``.
    """
    moving = bare(atoms)
    moving.calc = WatchedCalculator(potential, moving, deadline)
    optimizer = BFGS(moving, logfile=None, maxstep=max_step)
    try:
        converged = bool(optimizer.run(fmax=fmax, steps=steps))
    except np.linalg.LinAlgError as error:
        raise SearchFailure("flew_apart", f"no finite step could be computed: {error}") from error
    return snapshot(moving), converged


def hessian_of_free(potential: Potential, atoms: Atoms) -> np.ndarray:
    """(3N, 3N) in eV/A^2; rows and columns of frozen coordinates are zero, and cost nothing."""
    free = free_components(atoms)
    return potential.hessian(atoms) if free.all() else with_zeros(potential.hessian(atoms, free=True), free)


def find_saddle(
    guess: Atoms,
    potential: Potential,
    *,
    fmax: float = 0.01,
    steps: int = 200,
    internal: bool = True,
    deadline: float | None = None,
) -> tuple[Atoms, bool, int]:
    """First-order saddle point near a guess: partitioned rational function optimisation (Sella) with exact Hessians.

    Parameters
    ----------
    guess
        Start; not changed.
    potential
        Forces and Hessians.
    fmax
        Largest force at the saddle, eV/A.
    steps
        At most so many.
    internal
        Redundant internal coordinates; Cartesian ones are taken when they break down, and for crystals, slabs and
        structures with frozen atoms.
    deadline
        As in :func:`minimise`.

    Returns
    -------
    ase.Atoms, bool, int
        The end, with energy and forces, whether it converged, and the steps made.
    """
    from sella import Sella

    silent: Any = None  # declared as str there, but documented as None

    internal = internal and not (guess.pbc.any() or guess.constraints)

    def curvature(atoms: Atoms) -> np.ndarray:
        return hessian_of_free(potential, atoms)

    moving = bare(guess)
    moving.calc = WatchedCalculator(potential, moving, deadline)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            optimizer = Sella(
                moving, order=1, internal=internal, logfile=silent, hessian_function=curvature, diag_every_n=1
            )
            converged = bool(optimizer.run(fmax=fmax, steps=steps))
        except SearchFailure:
            raise
        except Exception:  # internal coordinates break down in many ways: linear angles, SVD, duplicates
            if not internal:
                raise
            return find_saddle(guess, potential, fmax=fmax, steps=steps, internal=False, deadline=deadline)
    return snapshot(moving), converged, optimizer.nsteps
