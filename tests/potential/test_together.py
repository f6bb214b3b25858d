"""Searches whose requests are joined give what each gives alone."""

import threading
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.optimize import BFGS
from helpers.devices import DEVICES
from helpers.pairs import Pairs

from hint_plugins.potential import Potential
from hint_plugins.potential.backends import PotentialError
from hint_plugins.potential.together import Together


@pytest.fixture(params=DEVICES)
def potential(request) -> Potential:
    return Potential.load(Pairs(elements=(1, 6, 8, 29)), request.param, "float64")


def relaxed(atoms: Atoms, potential: Potential) -> tuple[np.ndarray, int]:
    moving = atoms.copy()
    moving.calc = potential.calculator()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer = BFGS(moving, logfile=None)
        optimizer.run(fmax=0.02, steps=30)
    return moving.positions, optimizer.nsteps


MOLECULES = ["H2O", "CH3OH", "C2H6", "CH4", "C6H6", "H2", "CO2"]


@pytest.mark.parametrize("width", [1, 3, 50])
def test_relaxations_together(potential, width):
    structures = [molecule(name) for name in MOLECULES]
    expected = [relaxed(atoms, potential) for atoms in structures]
    steps = [number for _, number in expected]
    assert len(set(steps)) > 3
    one_by_one = potential.calls.forces
    together = Together(potential, width)
    filters = list(warnings.filters)
    found = {outcome.index: outcome for outcome in together.map(relaxed, structures)}
    assert list(warnings.filters) == filters
    assert sorted(found) == list(range(len(structures)))
    for index, (positions, number) in enumerate(expected):
        assert found[index].error is None
        assert found[index].value[1] == number
        np.testing.assert_allclose(found[index].value[0], positions, atol=1e-8)
        assert found[index].seconds > 0
    assert potential.calls.forces == 2 * one_by_one
    assert together.joined == together.rounds
    if width == 1:
        assert together.rounds == one_by_one
    if width == 50:
        assert together.rounds == max(steps) + 1


def test_all_requests_of_a_round_are_one_call_of_each_kind(potential):
    """Forces, stresses, Hessians and products; counted for each search and for the whole."""
    atoms, crystal = molecule("H2O"), bulk("Cu", a=3.7)
    vectors = np.random.default_rng(0).standard_normal((4, 9))

    def ask(item, asking):
        before = asking.calls.forces, asking.calls.hessians, asking.calls.products
        assert before == (0, 0, 0)
        if item == "stress":
            return asking.evaluate([crystal, crystal], stress=True).stresses
        if item == "hvp":
            return asking.hvp(atoms, vectors)
        if item == "hessian":
            return asking.hessian(atoms)
        assert asking.evaluate([]).forces == []
        return asking.evaluate(atoms).forces[0], asking.calls.forces

    together = Together(potential)
    items = ["forces", "stress", "hessian", "hvp", "forces", "hessian"]
    found = [o.value for o in sorted(together.map(ask, items), key=lambda o: o.index)]
    assert (together.rounds, together.joined) == (1, 4)
    calls = potential.calls.forces, potential.calls.hessians, potential.calls.products
    assert calls == (4, 2, 4)
    forces, count = found[0]
    assert count == 1
    np.testing.assert_allclose(forces, potential.evaluate(atoms).forces[0], atol=1e-12)
    np.testing.assert_allclose(found[4][0], forces, atol=1e-12)
    assert found[1].shape == (2, 6)
    np.testing.assert_allclose(found[1], potential.evaluate([crystal] * 2, stress=True).stresses, atol=1e-12)
    np.testing.assert_allclose(found[2], potential.hessian(atoms), atol=1e-11)
    np.testing.assert_allclose(found[5], found[2], atol=1e-11)
    np.testing.assert_allclose(found[3], vectors @ potential.hessian(atoms), atol=1e-10)


def test_an_error_reaches_the_search_whose_it_is(potential):
    gold = Atoms("Au2", [[0, 0, 0], [0, 0, 2.5]])

    def search(atoms, asking):
        for _ in range(3):
            energy = asking.evaluate([molecule("CH4"), atoms]).energies[1]
        return energy

    outcomes = {o.index: o for o in Together(potential).map(search, [molecule("H2O"), gold, molecule("H2")])}
    assert isinstance(outcomes[1].error, PotentialError)
    assert str(outcomes[1].error).startswith("structure 1 (Au2)")
    assert outcomes[0].value == pytest.approx(potential.evaluate(molecule("H2O")).energies[0], abs=1e-12)
    assert outcomes[2].error is None


def test_a_function_that_fails_and_one_that_asks_nothing(potential):
    def search(item, asking):
        if item == 1:
            raise ZeroDivisionError
        return item

    outcomes = sorted(Together(potential, 2).map(search, [0, 1, 2]), key=lambda o: o.index)
    assert [o.value for o in outcomes] == [0, None, 2]
    assert isinstance(outcomes[1].error, ZeroDivisionError)
    assert list(Together(potential).map(search, [])) == []
    with pytest.raises(ValueError, match="width must be at least 1"):
        Together(potential, 0)


def test_only_one_search_runs_at_a_time(potential):
    running, most = [], []

    def search(item, asking):
        for _ in range(4):
            running.append(item)
            most.append(len(running))
            np.linalg.eigvalsh(np.eye(60))
            running.remove(item)
            asking.evaluate(molecule("H2"))
        return item

    assert [o.value for o in Together(potential).map(search, range(5))] == list(range(5))
    assert set(most) == {1}


def test_threads_end_with_a_run_that_is_given_up(potential):
    ended = []

    def search(item, asking):
        try:
            while item or not ended:
                asking.evaluate(molecule("H2"))
                if item == 0:
                    return
        finally:
            ended.append(item)

    before = threading.active_count()
    outcomes = Together(potential).map(search, range(4))
    assert next(outcomes).index == 0
    outcomes.close()
    assert sorted(ended) == [0, 1, 2, 3]
    assert threading.active_count() == before
