"""Intrinsic reaction coordinate: steepest descent in mass-weighted coordinates from a saddle, both ways."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from hint_plugins.structures.copies import moved
from hint_recipes.molecules.transition_states.stationary import hessian_of_free, minimise, snapshot
from hint_recipes.steps import WatchedCalculator

if TYPE_CHECKING:
    from hint_plugins.potential import Potential


@dataclass
class Branch:
    """One side of the reaction coordinate.

    Attributes
    ----------
    frames
        From the step after the saddle to the last step, with energies and forces.
    converged
        Whether the coordinate itself reached a minimum.
    end
        The minimum that the last step relaxes to.
    end_converged
        Whether that relaxation converged.
    """

    frames: list[Atoms]
    converged: bool
    end: Atoms
    end_converged: bool


def follow(
    saddle: Atoms,
    potential: Potential,
    *,
    steps: int = 100,
    step_length: float = 0.1,
    fmax: float = 0.05,
    end_fmax: float = 0.02,
    end_steps: int = 500,
    deadline: float | None = None,
) -> tuple[Branch, Branch]:
    """Both branches, each followed by a relaxation of its end.

    Parameters
    ----------
    saddle
        A first-order saddle point.
    potential
        Forces and, at the saddle, the Hessian.
    steps
        At most so many steps a branch.
    step_length
        amu^(1/2) A.
    fmax
        Force at which a branch has reached its minimum, eV/A.
    end_fmax, end_steps
        Relaxation of the ends.
    deadline
        Moment of ``time.monotonic()`` after which to give up.
    """
    from sella import IRC

    silent: Any = None  # declared as str there, but documented as None

    moving = moved(saddle)
    moving.info["role"] = "path"
    moving.set_masses(saddle.get_masses())
    moving.calc = WatchedCalculator(potential, moving, deadline)

    def hessian(atoms: Atoms) -> np.ndarray:
        return hessian_of_free(potential, atoms)  # Sella takes the first direction from all coordinates

    coordinate = IRC(moving, logfile=silent, dx=step_length, keep_going=True, hessian_function=hessian)
    branches = []
    for direction in ("forward", "reverse"):
        frames: list[Atoms] = []
        converged = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for reached in coordinate.irun(fmax=fmax, steps=steps, direction=direction):
                if np.allclose(moving.positions, saddle.positions, atol=1e-8):
                    continue
                frames.append(snapshot(moving))
                converged = bool(reached) or _at_minimum(frames, fmax)
                if converged or _rises(frames):
                    break
        end, end_converged = minimise(
            moving, potential, fmax=end_fmax, steps=end_steps, max_step=0.1, deadline=deadline
        )
        branches.append(Branch(frames, converged, end, end_converged))
    return branches[0], branches[1]


def _at_minimum(frames: list[Atoms], fmax: float) -> bool:
    """Whether the force is small again after it had grown on the way down from the saddle."""
    forces = [np.linalg.norm(frame.get_forces(), axis=1).max() for frame in frames]
    return max(forces) > 2 * fmax and forces[-1] < fmax


def _rises(frames: list[Atoms], tolerance: float = 1e-4) -> bool:
    """Whether the energy (eV) rose twice in a row: the bottom of the valley has been passed."""
    energies = [frame.get_potential_energy() for frame in frames[-3:]]
    return len(energies) == 3 and energies[2] > energies[1] + tolerance and energies[1] > energies[0] + tolerance
