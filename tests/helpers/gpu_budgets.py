"""What a potential is asked for on a pretend GPU, and how its cost and its numbers are held to a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import molecule

from helpers.pretend_counts import Counts, Totals
from hint_plugins.potential import Potential

NAMES = ("H2O", "NH3", "CH4", "H2O2", "N2H4", "CO2", "HCN", "H2CO")


def molecules() -> list[Atoms]:
    """Eight small molecules of H, C, N and O, away from their minima."""
    rng = np.random.default_rng(0)
    out = [molecule(name) for name in NAMES]
    for atoms in out:
        atoms.positions += 0.05 * rng.standard_normal(atoms.positions.shape)
    return out


def _evaluated(potential: Potential, structures: list[Atoms]) -> list[np.ndarray]:
    found = potential.evaluate(structures)
    return [found.energies, *found.forces]


def _engine(name: str) -> Callable[[Potential], list[np.ndarray]]:
    return lambda potential: [potential.hessian(molecules()[0], engine=name)]


#: Calls by name; each gives arrays.
CALLS: dict[str, Callable[[Potential], list[np.ndarray]]] = {
    "evaluate 1": lambda potential: _evaluated(potential, molecules()[:1]),
    "evaluate 8": lambda potential: _evaluated(potential, molecules()),
    "hvp": lambda potential: [potential.hvp(molecules()[0], np.ones((3, 9)))],
    "hessian": lambda potential: [potential.hessian(molecules()[0])],
    "hessians of 8": lambda potential: potential.hessians(molecules()),
    **{f"hessian, {name}": _engine(name) for name in ("reverse", "replicate", "vmap", "finite_difference")},
}


def hold_to(limit: Totals, counts: Counts, model: Any, name: str) -> None:
    """Make the call ``name`` of a model on the CPU and on the pretend GPU: equal numbers, and a cost within ``limit``.

    Raises
    ------
    AssertionError
        Naming the places that wait or copy.
    """
    expected = CALLS[name](Potential.load(model, "cpu", "float64"))
    potential = Potential.load(model, "cuda", "float64")
    CALLS[name](potential)  # batches are of one structure until memory has been measured
    found: list[np.ndarray] = []
    counts.waits.clear()
    counts.copies.clear()
    cost = counts.cost(lambda: found.extend(CALLS[name](potential)))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
    assert cost.launches <= limit.launches, cost
    assert cost.waits <= limit.waits, (cost, counts.waits)
    assert cost.copies <= limit.copies, (cost, counts.copies)
