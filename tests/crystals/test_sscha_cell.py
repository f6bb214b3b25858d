"""The cell of a variable-cell SSCHA run, the floor of its later stages, and what is recorded of a population."""

import numpy as np
import pytest
from ase.build import bulk

from hint_plugins.errors import InputError
from hint_plugins.potential import Potential
from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.force_constants.from_potential import force_constants_from_potential

pytest.importorskip("sscha")
pytestmark = pytest.mark.sscha

from hint_recipes.crystals.sscha import cell as sscha_cell  # noqa: E402
from hint_recipes.crystals.sscha import populations as sscha  # noqa: E402
from hint_recipes.crystals.sscha.cell import MAX_STRAIN, choose_cell, move, static_start  # noqa: E402
from hint_recipes.crystals.sscha.ensemble import EnsembleEngine  # noqa: E402
from hint_recipes.crystals.sscha.populations import run, start  # noqa: E402
from hint_recipes.crystals.sscha.settings import SschaSettings  # noqa: E402
from hint_recipes.crystals.sscha.state import GPA, State, fingerprint  # noqa: E402

STAGES = [(2, 2, 2)]


@pytest.fixture(scope="module")
def potential() -> Potential:
    return Potential.load("emt")


def settings_of(**more) -> SschaSettings:
    """Palladium at 50 GPa with a bulk modulus three times too small."""
    return SschaSettings(
        **{
            "temperature": 300,
            "configurations": 20,
            "max_populations": 10,
            "meaningful_factor": 0.05,
            "relax_cell": True,
            "pressure": 50,
            "bulk_modulus": 60,
            **more,
        }
    )


def fresh(potential: Potential, a: float = 3.9) -> State:
    return State(start(force_constants_from_potential(potential, bulk("Pd", a=a), STAGES[0]))[0])


def idle(a: float = 3.9) -> State:
    """A state whose force constants do not matter."""
    return State(ForceConstants(bulk("Pd", a=a), (1, 1, 1), np.zeros((3, 3))))


def numbers(state: State) -> list[dict]:
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in state.history]


def test_cell_finds_the_pressure_with_a_wrong_bulk_modulus(potential):
    """It overshot and oscillated for ever while every population began with the step of the first."""
    state = run(fresh(potential), EnsembleEngine(potential), settings_of(), STAGES)
    assert state.converged
    last = state.history[-1]
    assert last["pressure_GPa"] == pytest.approx(50, abs=0.5)
    assert last["volume_A3"] == pytest.approx(12.274, abs=0.03)
    edges = np.cbrt([row["volume_A3"] for row in state.history])
    assert np.abs(edges[1:] / edges[:-1] - 1).max() < MAX_STRAIN + 1e-9
    assert state.constants.primitive.get_volume() == pytest.approx(last["volume_A3"], rel=1e-9)


def test_free_energy_pressure_and_volume_belong_to_one_cell(potential):
    """Stopped far from the target: a run in the fixed cell of the state finds the recorded numbers."""
    state = run(fresh(potential), EnsembleEngine(potential), settings_of(max_populations=1), STAGES)
    last = state.history[-1]
    assert not state.converged
    assert state.next_cell is not None
    assert state.constants.primitive.get_volume() == pytest.approx(last["volume_A3"], rel=1e-9)
    assert abs(np.linalg.det(state.next_cell)) < 0.98 * last["volume_A3"]
    still = settings_of(relax_cell=False, stress=True, max_populations=1, seed=3)
    again = run(State(state.constants), EnsembleEngine(potential), still, STAGES).history[-1]
    assert again["volume_A3"] == pytest.approx(last["volume_A3"], rel=1e-9)
    assert again["pressure_GPa"] == pytest.approx(last["pressure_GPa"], abs=1)
    assert again["free_energy_eV"] == pytest.approx(last["free_energy_eV"], abs=0.001)


def test_resumed_cell_relaxation_equals_an_unbroken_one(potential, tmp_path):
    """Stopped after every population: the optimiser's memory and the chosen cell are in the checkpoint."""
    mark = fingerprint(settings_of())
    whole = run(fresh(potential), EnsembleEngine(potential), settings_of(max_populations=3), STAGES)
    parts = fresh(potential)
    for count in (1, 2, 3):
        settings = settings_of(max_populations=count)
        path = tmp_path / "checkpoint.npz"
        run(parts, EnsembleEngine(potential), settings, STAGES, checkpoint=path, fingerprint=mark)
        parts = State.load(path, mark)
    assert numbers(parts) == numbers(whole)
    assert parts.next_cell == whole.next_cell
    assert parts.cell_optimiser == whole.cell_optimiser
    np.testing.assert_array_equal(parts.constants.hessian, whole.constants.hessian)
    np.testing.assert_array_equal(parts.constants.primitive.cell.array, whole.constants.primitive.cell.array)


@pytest.mark.parametrize("guess", [5.0, 60.0, 2000.0])
def test_steps_adapt_to_the_stiffness(guess):
    """A cubic crystal with ``P = -B (V/V0 - 1)``, B = 180 GPa, without noise; the target is 20 GPa."""
    state, pressures = idle(), []
    volume = state.constants.primitive.get_volume()
    for _ in range(15):
        pressures.append(-180 * (state.constants.primitive.get_volume() / volume - 1))
        stress = pressures[-1] * GPA * np.eye(3)
        if choose_cell(state, stress, 0.05 * GPA * np.eye(3), settings_of(pressure=20, bulk_modulus=guess)):
            break
        move(state)
    assert pressures[-1] == pytest.approx(20, abs=0.1)


@pytest.mark.parametrize("fixed", [False, True])
def test_no_step_strains_more_than_the_limit(fixed):
    """Absurd stresses and a bulk modulus of next to nothing."""
    random, state = np.random.default_rng(0), idle()
    settings = settings_of(bulk_modulus=0.01, fix_volume=fixed)
    for _ in range(20):
        before = state.constants.primitive.cell.array
        stress = random.normal(scale=1000 * GPA, size=(3, 3))
        assert not choose_cell(state, stress + stress.T, np.zeros((3, 3)), settings)
        move(state)
        after = state.constants.primitive.cell.array
        strain = np.linalg.solve(before, after) - np.eye(3)
        assert np.abs(strain).max() < MAX_STRAIN * (1.1 if fixed else 1 + 1e-9)
        if fixed:
            assert np.linalg.det(after) == pytest.approx(np.linalg.det(before), rel=1e-9)


def test_cell_rests_within_the_error():
    state = idle()
    stress = np.diag([50.3, 50.1, 49.8]) * GPA
    assert choose_cell(state, stress, 0.4 * GPA * np.eye(3), settings_of())
    assert state.next_cell is None
    move(state)
    assert state.constants.primitive.get_volume() == pytest.approx(3.9**3 / 4)


def test_start_is_relaxed_statically(potential, monkeypatch, capsys):
    crystal = bulk("Pd", a=3.9)
    crystal.set_masses([110.0])
    for settings in (settings_of(), settings_of(relax_positions=False)):
        relaxed = static_start(potential, crystal, settings)
        stress = np.asarray(potential.evaluate([relaxed], stress=True).stresses[0])
        np.testing.assert_allclose(stress.ravel()[:1], -50 * GPA, rtol=1e-3)
        assert relaxed.get_masses() == pytest.approx([110.0])
    assert static_start(potential, crystal, settings_of(relax_cell=False)) is crystal
    assert static_start(potential, crystal, settings_of(fix_volume=True)) is crystal
    assert capsys.readouterr().out == ""

    def fails(*_, **__):
        raise InputError("did not converge")

    monkeypatch.setattr(sscha_cell, "relax", fails)
    assert static_start(potential, crystal, settings_of()) is crystal
    assert "starts from the cell as given" in capsys.readouterr().out


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
    from helpers.quartic_crystal import QuarticCrystal

    crystal = QuarticCrystal(k=0.5, g=0.0)
    model = Potential.load(crystal)
    harmonic, _ = start(force_constants_from_potential(model, crystal.primitive, STAGES[0]))
    stiff = harmonic.replace(1.02 * harmonic.hessian)
    settings = SschaSettings(configurations=200, max_populations=1, meaningful_factor=0.5)
    state = run(State(stiff), EnsembleEngine(model), settings, STAGES)
    expected = 0.02 * np.linalg.norm(harmonic.hessian)  # Fourier transformation keeps the norm
    assert state.steps[0]["gradient_eV_A2"] == pytest.approx(expected, rel=0.05)
