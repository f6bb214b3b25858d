"""Minima and first-order saddle points with a potential."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.optimize import BFGS

from hint_recipes.transition_states.failures import SearchFailure

if TYPE_CHECKING:
    from hint_plugins.potential import Potential

#: Atoms that move further than this (A) in one optimisation are on their way to nowhere.
FARTHEST = 10.0


def guard(atoms: Atoms, deadline: float | None = None) -> Callable[[], None]:
    """An observer that stops an optimisation that flies apart, becomes NaN or takes too long."""
    start = atoms.positions.copy()

    def look() -> None:
        if not np.isfinite(atoms.positions).all():
            raise SearchFailure("potential_failed", "coordinates became NaN")
        if np.abs(atoms.positions - start).max() > FARTHEST:
            raise SearchFailure("flew_apart", f"an atom moved more than {FARTHEST:g} A")
        check_deadline(deadline)

    return look


def check_deadline(deadline: float | None) -> None:
    """Raise when the moment ``deadline`` (``time.monotonic()``) has passed."""
    if deadline is not None and time.monotonic() > deadline:
        raise SearchFailure("time_limit")


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
        The end, with calculator, and whether it converged.
    """
    moving = atoms.copy()
    moving.calc = potential.calculator()
    optimizer = BFGS(moving, logfile=None, maxstep=max_step)
    optimizer.attach(guard(moving, deadline))
    return moving, bool(optimizer.run(fmax=fmax, steps=steps))


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
        Redundant internal coordinates; Cartesian ones are taken when they break down.
    deadline
        As in :func:`minimise`.

    Returns
    -------
    ase.Atoms, bool, int
        The end, with calculator, whether it converged, and the steps made.
    """
    from sella import Sella

    moving = guess.copy()
    moving.calc = potential.calculator()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            optimizer = Sella(
                moving, order=1, internal=internal, logfile=None, hessian_function=potential.hessian, diag_every_n=1
            )
            optimizer.attach(guard(moving, deadline))
            converged = bool(optimizer.run(fmax=fmax, steps=steps))
        except SearchFailure:
            raise
        except Exception:  # internal coordinates break down in many ways: linear angles, SVD, duplicates
            if not internal:
                raise
            return find_saddle(guess, potential, fmax=fmax, steps=steps, internal=False, deadline=deadline)
    return moving, converged, optimizer.nsteps
