"""Steps of optimisers and of dynamics, looked at before the potential is asked."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from hint_plugins.potential.ase import HintCalculator
from hint_recipes.failures import SearchFailure

if TYPE_CHECKING:
    from hint_plugins.potential import Potential

#: Atoms that move further than this (A) in one optimisation are on their way to nowhere.
FARTHEST = 10.0


def check_step(positions: np.ndarray, start: np.ndarray) -> None:
    """Raise ``flew_apart`` for positions (N, 3) that are not finite or further than :data:`FARTHEST` from ``start``.

    An optimiser that divides by a curvature of nearly zero gives, by its last bit, the one or the other.
    """
    if not np.isfinite(positions).all():
        raise SearchFailure("flew_apart", "the next step is not finite")
    if np.abs(positions - start).max(initial=0.0) > FARTHEST:
        raise SearchFailure("flew_apart", f"an atom moved more than {FARTHEST:g} A")


def check_deadline(deadline: float | None) -> None:
    """Raise when the moment ``deadline`` (``time.monotonic()``) has passed."""
    if deadline is not None and time.monotonic() > deadline:
        raise SearchFailure("time_limit")


class WatchedCalculator(HintCalculator):
    """A potential for one optimisation of one structure, which checks every step before it evaluates it.

    Parameters
    ----------
    potential
        The potential.
    start
        Where the optimisation starts.
    deadline
        Moment of ``time.monotonic()`` after which to give up.

    Raises
    ------
    SearchFailure
        From whatever asks for energy or forces: ``flew_apart``, ``time_limit``, or ``potential_failed`` when the
        numbers of the potential are not finite.
    """

    def __init__(self, potential: Potential, start: Atoms, deadline: float | None = None) -> None:
        super().__init__(potential)
        self.start, self.deadline = start.positions.copy(), deadline

    def calculate(self, atoms: Atoms | None = None, *arguments: Any, **options: Any) -> None:
        """As :class:`~hint_plugins.potential.ase.HintCalculator`, after the check."""
        if atoms is not None:
            check_step(atoms.positions, self.start)
        check_deadline(self.deadline)
        super().calculate(atoms, *arguments, **options)
        for name, value in self.results.items():
            if not np.isfinite(value).all():
                raise SearchFailure("potential_failed", f"the {name} of the potential is not finite")
