"""Engines for the tests: a surface with a known Hessian, and ones that misbehave."""

import os
import signal
import time
from pathlib import Path

import numpy as np
from ase import Atoms

from hint_plugins.labelling.engine import EngineError, Evaluation


class QuarticEngine:
    """Pairs with E = k/4 (u - u0)^2 exp(-c u), u = d^2: translation and rotation invariant, short-ranged."""

    step = 1e-4
    probe_step = 1e-4

    def __init__(
        self, stiffness: float = 20.0, analytic: bool = False, delay: float = 0.0, begun: str | None = None
    ) -> None:
        self.stiffness, self.analytic, self.delay, self.begun = stiffness, analytic, delay, begun

    def provenance(self):
        return {"method": "quartic", "code": "tests", "version": "1", "stiffness": self.stiffness}

    def surface(self, atoms: Atoms) -> "QuarticSurface":
        return QuarticSurface(self, atoms)


class QuarticSurface:
    decay = 0.5

    def __init__(self, engine: QuarticEngine, atoms: Atoms) -> None:
        self.engine, self.atoms = engine, atoms
        self.u0 = (1.0 + 0.01 * np.add.outer(atoms.numbers, atoms.numbers)) ** 2

    def _pairs(self, positions):
        """Vectors, and value, first and second derivative of the pair energy by u."""
        vectors = positions[:, None] - positions[None]
        u, c = (vectors**2).sum(-1), self.decay
        g = u - self.u0
        scale = self.engine.stiffness / 4 * np.exp(-c * u) * (1 - np.eye(len(u)))
        return vectors, scale * g**2, scale * (2 * g - c * g**2), scale * (2 - 4 * c * g + c**2 * g**2)

    def evaluate(self, positions: np.ndarray) -> Evaluation:
        if self.engine.begun:
            Path(self.engine.begun).touch()
        time.sleep(self.engine.delay)
        vectors, value, first, _ = self._pairs(positions)
        return Evaluation(value.sum() / 2, -2 * (first[:, :, None] * vectors).sum(1))

    def exact(self) -> np.ndarray:
        vectors, _, first, second = self._pairs(self.atoms.positions)
        outer = vectors[..., :, None] * vectors[..., None, :]
        blocks = -(2 * first[..., None, None] * np.eye(3) + 4 * second[..., None, None] * outer)
        n = len(self.atoms)
        blocks[np.arange(n), np.arange(n)] = -blocks.sum(axis=1)
        return blocks.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)

    def hessian(self):
        return self.exact() if self.engine.analytic else None


class FussyEngine(QuarticEngine):
    """Refuses nitrogen, gives nonsense for fluorine, dies on chlorine."""

    def surface(self, atoms: Atoms) -> QuarticSurface:
        if 7 in atoms.numbers:
            raise EngineError("no parameters for N")
        if 17 in atoms.numbers:
            os.kill(os.getpid(), signal.SIGKILL)
        surface = QuarticSurface(self, atoms)
        if 9 in atoms.numbers:
            surface.u0 = surface.u0 * np.nan
        return surface
