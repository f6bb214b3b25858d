"""The temperature ramp: its physics, its verdicts, and that it can be interrupted."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.constraints import FixAtoms

from hint_plugins.potential import Potential
from hint_recipes.molecules.stability.ramp import Ramp
from hint_recipes.molecules.stability.settings import RampSettings

CO = molecule("CO")


class Springs(Calculator):
    """Harmonic bonds between neighbours in the list."""

    implemented_properties = ("energy", "forces")

    def __init__(self, k: float = 30.0, length: float = 1.15) -> None:
        super().__init__()
        self.k, self.length = k, length

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        bonds = np.diff(atoms.positions, axis=0)
        lengths = np.linalg.norm(bonds, axis=1)
        pull = (self.k * (lengths - self.length) / lengths)[:, None] * bonds
        forces = np.zeros_like(atoms.positions)
        forces[:-1] += pull
        forces[1:] -= pull
        self.results = {"energy": float(0.5 * self.k * ((lengths - self.length) ** 2).sum()), "forces": forces}


def springs(**options: float) -> Potential:
    return Potential.load(Springs(**options))


def test_temperature_of_the_bath_is_reached() -> None:
    """Mean kinetic temperature of 10 molecules over 0.4 ps within five standard errors of 300 K."""
    settings = RampSettings(
        start_temperature=300, temperature_step=100, max_temperature=300, interval=100, friction=0.05, timestep=1.0
    )
    ramp = Ramp([CO] * 10, springs(length=CO.get_distance(0, 1)), settings)
    samples = []
    ramp.advance(200)
    for _ in range(20):
        ramp.advance(20)
        samples += [walker.atoms.get_kinetic_energy() / (0.5 * 6 * units.kB) for walker in ramp.walkers]
    error = 300 * np.sqrt(2 / 6 / len(samples)) * 2  # correlation of neighbouring samples: a factor of two
    assert np.mean(samples) == pytest.approx(300, abs=5 * error)


def test_ramp_schedule() -> None:
    settings = RampSettings(timestep=0.5, interval=5.0, temperature_step=5.0, max_temperature=100.0)
    assert settings.steps_per_temperature == 10_000
    assert settings.temperature(9_999) == 0.0
    assert settings.temperature(10_000) == 5.0
    assert settings.num_steps == 21 * 10_000


FAST = {"temperature_step": 500.0, "interval": 0.01, "max_temperature": 1000.0, "window": 10}


def test_stiff_molecule_survives_and_wrong_one_breaks() -> None:
    settings = RampSettings(**FAST)
    good = Ramp([CO], springs(length=CO.get_distance(0, 1)), settings).run()[0]
    assert good["survived"]
    assert good["temperature_K"] == 1000.0
    bad = Ramp([CO], springs(k=8.0, length=2.5), settings).run()[0]  # pulls the bond to twice its length
    assert not bad["survived"]
    assert bad["reason"] == "bond_broken"
    assert bad["bond"] in ("O0-C1", "C0-O1")
    assert bad["ratio"] > 1.5


def test_failure_of_the_potential_hits_one_molecule() -> None:
    class Picky(Springs):
        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            if "N" in atoms.symbols:
                raise RuntimeError("no nitrogen here")
            super().calculate(atoms, properties, system_changes)

    potential = Potential.load(Picky(length=CO.get_distance(0, 1)))
    first, second = Ramp([molecule("N2"), CO], potential, RampSettings(**FAST)).run()
    assert first["reason"] == "potential_failed"
    assert "no nitrogen" in first["detail"]
    assert second["survived"]


def test_interrupted_run_is_the_same_run() -> None:
    settings = RampSettings(**FAST)
    potential = springs(length=CO.get_distance(0, 1))
    whole = Ramp([CO, CO], potential, settings)
    whole.advance(45)
    part = Ramp([CO, CO], potential, settings)
    part.advance(20)
    state = json.loads(json.dumps(part.state()))
    resumed = Ramp([CO, CO], potential, settings)
    resumed.restore(state)
    resumed.advance(25)
    for a, b in zip(whole.walkers, resumed.walkers, strict=True):
        assert a.atoms.positions == pytest.approx(b.atoms.positions, abs=1e-10)


def test_company_does_not_matter() -> None:
    settings = RampSettings(**FAST)
    potential = springs(length=CO.get_distance(0, 1))
    alone, together = Ramp([CO], potential, settings), Ramp([CO, molecule("N2")], potential, settings)
    for ramp in (alone, together):
        ramp.advance(20)
    assert np.array_equal(alone.walkers[0].atoms.positions, together.walkers[0].atoms.positions)


def test_a_step_to_nowhere_is_not_evaluated() -> None:
    """Forces that are finite but absurd throw the atoms away; the other molecule goes on."""

    class Kick(Springs):
        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            assert np.abs(atoms.positions).max() < 1e3
            if "N" in atoms.symbols:
                self.results["forces"] = np.full((2, 3), 1e9)

    potential = Potential.load(Kick(length=CO.get_distance(0, 1)))
    first, second = Ramp([molecule("N2"), CO], potential, RampSettings(**FAST)).run()
    assert first["reason"] == "flew_apart"
    assert second["survived"]


def test_what_is_left_of_a_structure() -> None:
    """Charge and masses stay with the walker, the labels of the start do not; frozen atoms are refused."""
    charged, frozen = CO.copy(), CO.copy()
    charged.info |= {"charge": 1, "REF_energy": -3.0}
    charged.set_masses([16, 13])
    frozen.set_constraint(FixAtoms([0]))
    ramp = Ramp([charged, frozen], springs(), RampSettings(**FAST))
    first, second = (walker.atoms for walker in ramp.walkers)
    assert first.info == {"charge": 1}
    assert first.get_masses().tolist() == [16, 13]
    assert ramp.walkers[1].outcome["reason"] == "constrained"
    assert np.array_equal(second.positions, CO.positions)


def test_bad_input() -> None:
    others = [Atoms("He"), Atoms("CO", CO.positions, cell=[5, 5, 5], pbc=True)]
    found = Ramp(
        [CO, *others], springs(length=CO.get_distance(0, 1)), RampSettings(max_temperature=310, interval=0.01)
    ).run()
    assert [row["reason"] for row in found] == [None, "no_bond", "periodic"]
    assert [row["time_ps"] > 0 for row in found] == [True, False, False]
    with pytest.raises(ValueError, match="shortest"):
        RampSettings(shortest=1.2)
    with pytest.raises(ValueError, match="timestep"):
        RampSettings(timestep=0.0)
