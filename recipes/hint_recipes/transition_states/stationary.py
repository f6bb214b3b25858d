"""Minima and first-order saddle points with a potential."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
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


def frozen(atoms: Atoms) -> Atoms:
    """A copy that keeps its energy and forces without the calculator they came from."""
    copy = atoms.copy()
    copy.calc = SinglePointCalculator(
        copy, energy=float(atoms.get_potential_energy()), forces=np.array(atoms.get_forces())
    )
    return copy


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
        The end, with energy and forces, and whether it converged.
    """
    moving = atoms.copy()
    moving.calc = potential.calculator()
    optimizer = BFGS(moving, logfile=None, maxstep=max_step)
    optimizer.attach(guard(moving, deadline))
    converged = bool(optimizer.run(fmax=fmax, steps=steps))
    return frozen(moving), converged


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
        The end, with energy and forces, whether it converged, and the steps made.
    """
    from sella import Sella

    silent: Any = None  # declared as str there, but documented as None

    moving = guess.copy()
    moving.calc = potential.calculator()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            optimizer = Sella(
                moving, order=1, internal=internal, logfile=silent, hessian_function=potential.hessian, diag_every_n=1
            )
            optimizer.attach(guard(moving, deadline))
            converged = bool(optimizer.run(fmax=fmax, steps=steps))
        except SearchFailure:
            raise
        except Exception:  # internal coordinates break down in many ways: linear angles, SVD, duplicates
            if not internal:
                raise
            return find_saddle(guess, potential, fmax=fmax, steps=steps, internal=False, deadline=deadline)
    return frozen(moving), converged, optimizer.nsteps
