"""The floor of the later stages of an SSCHA run, and what is recorded of a population."""

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


@pytest.mark.parametrize(("representation", "unit"), [("normal", "eV_A2"), ("root4", "A2")])
def test_gradients_are_recorded_with_their_errors(potential, representation, unit):
    settings = SschaSettings(configurations=10, max_populations=1, meaningful_factor=0.1, representation=representation)
    state = run(fresh(potential), EnsembleEngine(potential), settings, STAGES)
    for row in (state.history[-1], state.steps[0]):
        gradient, error = row[f"gradient_{unit}"], row[f"gradient_error_{unit}"]
        assert error > 0
        assert gradient / error == pytest.approx(row["gradient_over_error"])
    assert state.history[-1]["centroid_force_eV_A"] == pytest.approx(0, abs=1e-10)  # by symmetry
    assert "centroid_force_error_eV_A" in state.history[-1]


def test_gradient_is_the_distance_from_the_self_consistent_matrix():
    """A harmonic crystal and an auxiliary matrix 2 % too stiff: the first gradient is the difference, in eV/A^2."""
    from quartic_crystal import QuarticCrystal

    crystal = QuarticCrystal(k=0.5, g=0.0)
    model = Potential.load(crystal)
    harmonic, _ = start(hessian_from_potential(model, crystal.primitive, STAGES[0]))
    stiff = harmonic.replace(1.02 * harmonic.hessian)
    settings = SschaSettings(configurations=200, max_populations=1, meaningful_factor=0.5)
    state = run(State(stiff), EnsembleEngine(model), settings, STAGES)
    expected = 0.02 * np.linalg.norm(harmonic.hessian)  # Fourier transformation keeps the norm
    assert state.steps[0]["gradient_eV_A2"] == pytest.approx(expected, rel=0.05)
