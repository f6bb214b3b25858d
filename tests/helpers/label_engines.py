"""Engines for the tests: a surface with a known Hessian, and ones that misbehave."""

import os
import signal
import time

import numpy as np
from ase import Atoms

from hint_plugins.labelling.engine import EngineError, Evaluation


class QuarticEngine:
    """E = sum over pairs of a (d^2 - d0^2)^2 / 4: polynomial, translation and rotation invariant."""

    step = 1e-3
    probe_step = 1e-3

    def __init__(self, stiffness: float = 2.0, analytic: bool = False, delay: float = 0.0) -> None:
        self.stiffness, self.analytic, self.delay = stiffness, analytic, delay

    def provenance(self):
        return {"method": "quartic", "code": "tests", "version": "1", "stiffness": self.stiffness}

    def surface(self, atoms: Atoms) -> "QuarticSurface":
        return QuarticSurface(self, atoms)


class QuarticSurface:
    def __init__(self, engine: QuarticEngine, atoms: Atoms) -> None:
        self.engine, self.atoms = engine, atoms
        self.d0 = 1.0 + 0.01 * np.add.outer(atoms.numbers, atoms.numbers)

    def _pairs(self, positions):
        vectors = positions[:, None] - positions[None]
        return vectors, (vectors**2).sum(-1) - self.d0**2

    def evaluate(self, positions: np.ndarray) -> Evaluation:
        time.sleep(self.engine.delay)
        vectors, excess = self._pairs(positions)
        np.fill_diagonal(excess, 0.0)
        energy = self.engine.stiffness * (excess**2).sum() / 8
        forces = -self.engine.stiffness * (excess[:, :, None] * vectors).sum(1)
        return Evaluation(energy, forces)

    def exact(self) -> np.ndarray:
        vectors, excess = self._pairs(self.atoms.positions)
        np.fill_diagonal(excess, 0.0)
        k = self.engine.stiffness
        blocks = -k * (excess[..., None, None] * np.eye(3) + 2 * vectors[..., :, None] * vectors[..., None, :])
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
            surface.d0 = surface.d0 * np.nan
        return surface
