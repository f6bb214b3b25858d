"""How hot a molecule can get before the potential breaks it: molecular dynamics with a temperature ramp.

The protocol is that of Rodriguez, Smith and Mendoza-Cortes: Langevin dynamics, 0.5 fs, 5 K more every 5 ps, and
failure when a bond length, averaged over 50 steps, leaves [0.75, 1.5] times its equilibrium value. All molecules move
at once, with one call of the potential a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms, units

from hint_plugins.structures.copies import bare
from hint_recipes.failures import SearchFailure
from hint_recipes.molecules.stability.settings import RampSettings
from hint_recipes.molecules.transition_states.bonds import bond_matrix
from hint_recipes.steps import check_step

if TYPE_CHECKING:
    from hint_plugins.potential import Potential


@dataclass
class Walker:
    """One molecule on its way up.

    Attributes
    ----------
    atoms
        Positions (A) and velocities now.
    pairs
        (b, 2) bonded atoms.
    lengths
        (b,) their equilibrium distances, A.
    sums
        (b,) distances summed since the window began.
    random
        Its own generator, so that a run does not depend on the company.
    outcome
        Empty while it lives.
    """

    name: str
    atoms: Atoms
    pairs: np.ndarray
    lengths: np.ndarray
    sums: np.ndarray
    random: np.random.Generator
    outcome: dict[str, Any] = field(default_factory=dict)


class Ramp:
    """The dynamics of all molecules.

    A periodic structure, one with frozen atoms, or one without a bond to watch fails before the first step, with that
    reason.

    Parameters
    ----------
    structures
        Equilibrium structures, with ``info["name"]`` or not; bonds and their lengths are read off here.
    potential
        Evaluates all living molecules in one call a step.
    settings
        The ramp.
    """

    def __init__(self, structures: Sequence[Atoms], potential: Potential, settings: RampSettings | None = None) -> None:
        self.potential, self.settings = potential, settings or RampSettings()
        self.step = 0
        self.walkers = [self._walker(index, atoms) for index, atoms in enumerate(structures)]
        self._forces: dict[int, np.ndarray] = {}
        for index, walker in enumerate(self.walkers):
            if walker.atoms.pbc.any():
                self._end(index, "periodic", detail="the ramp is for molecules")
            elif walker.atoms.constraints:
                self._end(index, "constrained", detail="atoms are frozen or constrained, but the ramp moves every atom")
            elif not len(walker.pairs):
                self._end(index, "no_bond", detail="there is no bond to watch")

    def _walker(self, index: int, atoms: Atoms) -> Walker:
        name = str(atoms.info.get("name", f"{atoms.get_chemical_formula()}-{index}"))
        pairs = np.argwhere(np.triu(bond_matrix(atoms)))
        moving = bare(atoms)
        random = np.random.default_rng([self.settings.seed, index])
        masses = moving.get_masses()[:, None]
        kT = units.kB * self.settings.start_temperature
        moving.set_velocities(random.normal(size=(len(atoms), 3)) * np.sqrt(kT / masses))
        lengths = _distances(moving.positions, pairs)
        return Walker(name, moving, pairs, lengths, np.zeros(len(pairs)), random)

    @property
    def living(self) -> list[int]:
        """Indices of the molecules that have not failed."""
        return [k for k, walker in enumerate(self.walkers) if not walker.outcome]

    def advance(self, num_steps: int) -> None:
        """Make so many steps (fewer when every molecule has failed or the ramp is over)."""
        s = self.settings
        dt = s.timestep * units.fs
        keep = np.exp(-s.friction / units.fs * dt)
        for _ in range(num_steps):
            living = self.living
            if not living or self.step >= s.num_steps:
                break
            if missing := [k for k in living if k not in self._forces]:
                self._evaluate(missing)
            kT = units.kB * s.temperature(self.step)
            living = self.living
            for k in living:  # BAOAB splitting (Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34)
                walker = self.walkers[k]
                before = walker.atoms.positions.copy()
                masses = walker.atoms.get_masses()[:, None]
                velocities = walker.atoms.get_velocities() + 0.5 * dt * self._forces[k] / masses
                walker.atoms.positions += 0.5 * dt * velocities
                kick = walker.random.normal(size=velocities.shape)
                velocities = keep * velocities + np.sqrt((1 - keep**2) * kT / masses) * kick
                walker.atoms.positions += 0.5 * dt * velocities
                try:
                    check_step(walker.atoms.positions, before)
                except SearchFailure as failure:
                    self._end(k, failure.reason, detail=failure.detail)
                    walker.atoms.positions = before
                    continue
                walker.atoms.set_velocities(velocities)
            if living := self.living:
                self._evaluate(living)
            for k in self.living:
                walker = self.walkers[k]
                velocities = walker.atoms.get_velocities()
                velocities += 0.5 * dt * self._forces[k] / walker.atoms.get_masses()[:, None]
                walker.atoms.set_velocities(velocities)
                walker.sums += _distances(walker.atoms.positions, walker.pairs)
            self.step += 1
            if self.step % s.window == 0:
                self._judge()
        if self.step >= s.num_steps:
            for k in self.living:
                self._end(k, "survived")

    def _evaluate(self, chosen: list[int]) -> None:
        """Forces of the chosen molecules; those that the potential cannot evaluate fail."""
        try:
            found = self.potential.evaluate([self.walkers[k].atoms for k in chosen]).forces
        except Exception as error:  # potentials fail in their own ways; find out on which molecule
            if len(chosen) == 1:
                self._end(chosen[0], "potential_failed", detail=f"{type(error).__name__}: {error}"[:300])
                return
            for k in chosen:
                self._evaluate([k])
            return
        for k, forces in zip(chosen, found, strict=True):
            self._forces[k] = np.asarray(forces, dtype=float)
            if not np.isfinite(self._forces[k]).all():
                self._end(k, "potential_failed", detail="forces are not finite")

    def _judge(self) -> None:
        s = self.settings
        for k in self.living:
            walker = self.walkers[k]
            ratios = walker.sums / s.window / walker.lengths
            walker.sums[:] = 0.0
            worst = int(np.argmax(np.maximum(ratios / s.longest, s.shortest / np.maximum(ratios, 1e-12))))
            if not s.shortest <= ratios[worst] <= s.longest:
                i, j = (int(a) for a in walker.pairs[worst])
                symbols = walker.atoms.get_chemical_symbols()
                self._end(k, "bond_broken", bond=f"{symbols[i]}{i}-{symbols[j]}{j}", ratio=float(ratios[worst]))

    def _end(self, k: int, outcome: str, **details: Any) -> None:
        last = max(self.step - 1, 0)
        self.walkers[k].outcome = {
            "name": self.walkers[k].name,
            "survived": outcome == "survived",
            "reason": None if outcome == "survived" else outcome,
            "time_ps": self.step * self.settings.timestep / 1000,
            "temperature_K": self.settings.temperature(last),
            "bond": None,
            "ratio": None,
            "detail": None,
        } | details

    def run(self, every: int = 1000, checkpoint: Callable[[Ramp], None] = lambda ramp: None) -> list[dict[str, Any]]:
        """Go to the end; ``checkpoint`` is called every so many steps.

        Returns
        -------
        list of dict
            Per molecule ``name``, ``survived``, ``reason`` (``bond_broken``, ``flew_apart``, ``potential_failed``,
            ``no_bond``, ``periodic``, ``constrained``, None), ``time_ps``, ``temperature_K`` of the bath at the end,
            ``bond``, ``ratio`` (length over equilibrium length), ``detail``.
        """
        while self.living:
            self.advance(every)
            checkpoint(self)
        return [walker.outcome for walker in self.walkers]

    def state(self) -> dict[str, Any]:
        """Everything needed to go on, as plain data."""
        return {
            "step": self.step,
            "walkers": [
                {
                    "positions": w.atoms.positions.tolist(),
                    "velocities": w.atoms.get_velocities().tolist(),
                    "sums": w.sums.tolist(),
                    "random": w.random.bit_generator.state,
                    "outcome": w.outcome,
                }
                for w in self.walkers
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.step = int(state["step"])
        for walker, saved in zip(self.walkers, state["walkers"], strict=True):
            walker.atoms.positions = saved["positions"]
            walker.atoms.set_velocities(np.array(saved["velocities"]))
            walker.sums = np.array(saved["sums"])
            walker.random.bit_generator.state = saved["random"]
            walker.outcome = saved["outcome"]
        self._forces = {}


def _distances(positions: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    return np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1)
