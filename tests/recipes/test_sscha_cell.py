"""The floor of the later stages of an SSCHA run."""

import numpy as np
import pytest
from ase.build import bulk

from hint_plugins.potential import Potential
from hint_recipes.force_constants import hessian_from_potential

pytest.importorskip("sscha")
pytestmark = pytest.mark.sscha

from hint_recipes import sscha  # noqa: E402
from hint_recipes.ensemble import EnsembleEngine  # noqa: E402
from hint_recipes.sscha import run, start  # noqa: E402
from hint_recipes.sscha_state import SschaSettings, State  # noqa: E402

STAGES = [(2, 2, 2)]


@pytest.fixture(scope="module")
def potential() -> Potential:
    return Potential.load("emt")


def fresh(potential: Potential, a: float = 3.9) -> State:
    return State(start(hessian_from_potential(potential, bulk("Pd", a=a), STAGES[0]))[0])


def test_later_stages_keep_the_floor(potential, monkeypatch, capsys):
    """Nothing is sampled: every population counts as converged."""

    def satisfied(state, engine, settings):
        state.population, state.converged = 1, True

    monkeypatch.setattr(sscha, "population", satisfied)
    stages = [(2, 2, 2), (3, 3, 3)]
    state = run(fresh(potential), EnsembleEngine(potential), SschaSettings(), stages, floor=100.0)
    assert state.stage == 1
    assert state.difficult
    assert np.sort(state.constants.frequencies().ravel())[3] > 100 - 1e-6
    assert "hint: stage 2: " in (out := capsys.readouterr().out)
    assert "starting modes were imaginary or below 100 cm^-1 and were made positive" in out
    state = run(fresh(potential), EnsembleEngine(potential), SschaSettings(), stages)
    assert not state.difficult
    assert capsys.readouterr().out == ""
