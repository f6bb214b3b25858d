"""Errors that cover: fresh ensembles, mirror pairs, supercells of different size, what counts as converged."""

import numpy as np
import pytest
import scipy.stats
from ase.build import bulk
from helpers.double_well_crystal import DoubleWellCrystal
from helpers.quartic_crystal import QuarticCrystal

from hint_plugins.potential import Potential
from hint_plugins.settings import ConfigError
from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.force_constants.from_potential import force_constants_from_potential
from hint_recipes.crystals.sscha.ensemble_statistics import mean_and_error

pytest.importorskip("sscha")
pytestmark = pytest.mark.sscha

from hint_recipes.crystals.force_constants.cellconstructor import output_to, to_cellconstructor  # noqa: E402
from hint_recipes.crystals.phonons.dense_mesh import dense_mesh, harmonic_free_energy  # noqa: E402
from hint_recipes.crystals.sscha.ensemble import EnsembleEngine  # noqa: E402
from hint_recipes.crystals.sscha.ensemble_averages import free_energy  # noqa: E402
from hint_recipes.crystals.sscha.free_energy_hessian import free_energy_hessian  # noqa: E402
from hint_recipes.crystals.sscha.fresh_ensemble import fresh_ensemble, kept_fresh_ensemble  # noqa: E402
from hint_recipes.crystals.sscha.populations import draw, run, start  # noqa: E402
from hint_recipes.crystals.sscha.self_consistency import self_consistent  # noqa: E402
from hint_recipes.crystals.sscha.settings import SschaSettings  # noqa: E402
from hint_recipes.crystals.sscha.state import State  # noqa: E402

TEMPERATURE = 300.0


@pytest.fixture(scope="module")
def quartic():
    """A crystal with a known answer, its exact auxiliary matrix and free energy (eV per unit cell)."""
    crystal = QuarticCrystal(k=0.5, g=8.0)
    exact, energy = crystal.solve(TEMPERATURE)
    return crystal, exact, energy


def test_mirror_pairs_are_one_draw():
    """Twins say nothing new: the error is that of one of each."""
    values = np.random.default_rng(0).normal(size=50)
    mean, error = mean_and_error(np.repeat(values, 2), np.repeat(np.arange(50), 2))
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(50))
    assert mean_and_error(values[:2], np.zeros(2))[1] == np.inf
    weights = np.random.default_rng(1).uniform(0.1, 2, size=50)
    mean, _ = mean_and_error(values, np.arange(50), weights)
    assert mean == pytest.approx(np.average(values, weights=weights))


def test_free_energy_errors_cover(quartic):
    """Of 200 intervals 68 % hold the exact free energy; those of python-sscha, which counts twins twice, far fewer."""
    crystal, exact, energy = quartic
    engine = EnsembleEngine(Potential.load(crystal))
    dyn = to_cellconstructor(exact)
    ours, theirs = [], []
    with output_to(None):
        for seed in range(200):
            ensemble, pairs = engine.fill(draw(dyn, TEMPERATURE, 20, (seed,)))
            ensemble.update_weights(dyn, TEMPERATURE)
            value, error = free_energy(ensemble, pairs)
            naive = (
                float(np.real(ensemble.get_free_energy(True)[1])) * value / float(np.real(ensemble.get_free_energy()))
            )
            off = abs(value / exact.num_cells - energy) * exact.num_cells
            ours.append(off < error)
            theirs.append(off < naive)
    spread = np.sqrt(0.683 * 0.317 / 200)
    assert abs(np.mean(ours) - 0.683) < 3 * spread + 0.02  # ten pairs: Student's t covers 0.66
    assert np.mean(theirs) < 0.683 - 3 * spread


@pytest.mark.slow
def test_frequency_errors_cover(quartic):
    """Self-consistent frequencies of independent ensembles scatter about the exact ones as their errors say."""
    crystal, exact, _ = quartic
    engine = EnsembleEngine(Potential.load(crystal))
    deviations = []
    for seed in range(8):
        settings = SschaSettings(temperature=TEMPERATURE, seed=seed, relax_positions=False)
        with output_to(None):
            fresh = fresh_ensemble(exact, engine, settings, 60)
        # the exact modes are threefold: their mean is free of the order of sorted values
        mean = (fresh.frequencies - exact.frequencies())[1:].mean()
        assert np.isfinite(fresh.frequency_errors).all()
        assert fresh.deviation(exact.frequencies(), 60) < 5
        deviations.append((fresh.frequencies - exact.frequencies())[1:] / fresh.frequency_errors[1:])
        assert abs(mean) < 3 * fresh.frequency_errors[1:].mean()
    assert 0.6 < np.sqrt((np.array(deviations) ** 2).mean()) < 1.6


def test_minimised_free_energy_is_biased_and_fresh_is_not(quartic):
    """The value at the minimum of a small sample lies below that of a fresh ensemble of the same matrix."""
    crystal, _, energy = quartic
    potential = Potential.load(crystal)
    engine = EnsembleEngine(potential)
    first = start(force_constants_from_potential(potential, crystal.primitive, (2, 2, 2)))[0]
    minimised, fresh = [], []
    for seed in range(4):
        settings = SschaSettings(
            temperature=TEMPERATURE, configurations=20, max_populations=3, seed=seed, relax_positions=False, step=0.2
        )
        state = run(State(first), engine, settings, [(2, 2, 2)])
        minimised.append(state.history[-1]["free_energy_eV"])
        dyn = to_cellconstructor(state.constants)
        with output_to(None):
            ensemble, pairs = engine.fill(draw(dyn, TEMPERATURE, 400, (seed, 99)))
            ensemble.update_weights(dyn, TEMPERATURE)
            fresh.append(free_energy(ensemble, pairs)[0] / 8)
    assert np.mean(minimised) < np.mean(fresh)
    assert np.mean(fresh) > energy - 0.0005  # an upper bound, up to its statistical error


class TestConvergence:
    def run(self, quartic, **options):
        crystal, exact, _ = quartic
        small = {"temperature": TEMPERATURE, "configurations": 20, "max_populations": 2, "step": 0.2}
        settings = SschaSettings(**small | options)
        return run(State(start(exact)[0]), EnsembleEngine(Potential.load(crystal)), settings, [(2, 2, 2)])

    def test_small_populations_never_converge(self, quartic):
        state = self.run(quartic, configurations=4)
        assert not state.converged
        assert "4 configurations is too small" in state.stopped

    def test_the_effective_sample_keeps_its_ratio(self, quartic):
        """A first population far from the solution uses its own ratio and is never the last."""
        crystal, _, _ = quartic
        potential = Potential.load(QuarticCrystal(k=-0.3, g=12.0))
        first, changed = start(force_constants_from_potential(potential, crystal.primitive, (2, 2, 2)), floor=50.0)
        settings = SschaSettings(configurations=20, max_populations=1, min_populations=1)
        state = run(State(first, difficult=changed > 0), EnsembleEngine(potential), settings, [(2, 2, 2)])
        assert not state.converged
        assert state.stopped
        settings = SschaSettings(configurations=40, max_populations=8, step=0.2)
        state = run(State(first, difficult=changed > 0), EnsembleEngine(potential), settings, [(2, 2, 2)])
        assert state.converged
        assert state.history[-1]["kong_liu"] >= settings.kong_liu
        assert state.population >= settings.min_populations

    def test_populations_at_least(self, quartic):
        state = self.run(quartic, max_populations=1, meaningful_factor=0.5)
        assert not state.converged
        assert "at least 2 populations" in state.stopped
        assert self.run(quartic, max_populations=1, min_populations=1, meaningful_factor=0.5).converged


class TestDenseMesh:
    def test_single_mode(self):
        """Zero point, and the classical limit of a soft mode at high temperature."""
        from ase.units import invcm, kB

        assert harmonic_free_energy(np.array([100.0]), 0.0)[0] == pytest.approx(50 * invcm)
        soft = harmonic_free_energy(np.array([1.0]), 1000.0)[0]
        assert soft == pytest.approx(kB * 1000 * np.log(invcm / (kB * 1000)), rel=1e-4)

    @pytest.mark.parametrize("temperature", [0.0, 300.0])
    def test_supercells_agree_with_it(self, temperature):
        """Free energies of 2x2x2 and 4x4x4 cells of one harmonic crystal: most of their difference goes."""
        values = []
        for size in (2, 4):
            crystal = QuarticCrystal(k=0.5, g=0.0, multiples=(size,) * 3)
            constants, own = crystal.solve(temperature)
            mesh = dense_mesh(constants, temperature)
            assert mesh.usable
            assert mesh.uncertainty < 2e-4
            values.append((own, own + mesh.difference))
        (small, small_full), (large, large_full) = values
        assert abs(small_full - large_full) < 0.1 * abs(small - large)

    def test_imaginary_modes_are_counted(self):
        crystal = QuarticCrystal(k=0.5, g=0.0)
        constants, _ = crystal.solve(0.0)
        unstable = constants.replace(-constants.hessian)
        mesh = dense_mesh(unstable.replace(constants.hessian - 0.2 * np.eye(len(constants.hessian))), 0.0)
        assert mesh.num_imaginary > 0
        assert not mesh.usable


def test_one_crystal_in_two_cells(tmp_path, capsys):
    """Palladium as a primitive and as a cubic cell: the dense mesh takes more than half of their difference away."""
    from hint_recipes.crystals.inputs import read_candidates
    from hint_recipes.crystals.sscha.rank import rank_structures
    from hint_recipes.crystals.sscha.settings import RankSettings

    potential = Potential.load("emt")
    bulk("Pd", a=3.95).write(tmp_path / "primitive.extxyz")
    bulk("Pd", a=3.95, cubic=True).write(tmp_path / "cubic.extxyz")
    settings = RankSettings(
        temperature=300.0, configurations=40, max_populations=2, meaningful_factor=0.1, step=0.2, relax_cell=False,
        supercell_length=4.0,
    )  # fmt: skip
    cells = read_candidates([tmp_path / "primitive.extxyz", tmp_path / "cubic.extxyz"])
    rows = rank_structures(cells, potential, tmp_path, settings).summary["ranking"]
    assert "different numbers of atoms" in capsys.readouterr().err
    assert sorted(row["atoms_in_supercell"] for row in rows) == [8, 32]
    first, second = rows
    apart = abs(first["free_energy_supercell_eV_per_atom"] - second["free_energy_supercell_eV_per_atom"])
    assert apart > 3e-3
    assert abs(first["gibbs_eV_per_atom"] - second["gibbs_eV_per_atom"]) < 0.5 * apart


def test_supercells_of_one_length():
    from hint_recipes.crystals.force_constants.supercells import multiples_of_length

    assert multiples_of_length(bulk("Pd", a=4.0), 4.6) == (2, 2, 2)
    assert multiples_of_length(bulk("Pd", a=4.0, cubic=True), 4.6) == (2, 2, 2)
    assert multiples_of_length(bulk("Pd", a=4.0, cubic=True), 4.0) == (1, 1, 1)
    assert multiples_of_length(bulk("Mg", a=3.2, c=5.2), 10.0) == (4, 4, 2)


def test_free_energy_hessian_has_errors():
    """The quoted error of the lowest mode is what it scatters by from draw to draw; the translations are left out."""
    potential = Potential.load("emt")
    crystal = bulk("Cu", "hcp", a=2.56, c=4.18)  # where every atom is a centre of inversion, third derivatives vanish
    constants = start(force_constants_from_potential(potential, crystal, (2, 2, 1)))[0]
    engine = EnsembleEngine(potential)
    found = [free_energy_hessian(constants, engine, SschaSettings(temperature=600.0, seed=s), 100) for s in range(8)]
    lowest = np.array([h.lowest for h in found])
    assert (lowest > 0).all()
    # variance of 8 values over the mean of 8 jackknife variances of 8 blocks: 98 % of such ratios lie between these
    low, high = scipy.stats.f.ppf([0.01, 0.99], 7, 8 * 7)
    assert low < lowest[:, 0].var(ddof=1) / np.square(lowest[:, 1]).mean() < high
    square, error = lowest[0]
    summary = found[0].summary()
    assert summary["lowest_cm1"] == pytest.approx(np.sqrt(square))
    assert summary["lowest_cm1"] > 20
    assert summary["lowest_error_cm1"] == pytest.approx(error / (2 * summary["lowest_cm1"]), rel=0.2)
    assert np.abs(found[0].squares[0][:3]).max() < 1


class TestSelfConsistency:
    def found(self, factor, count, relax=False):
        """From ``factor`` times the exact matrix of a soft crystal, whose sample is drawn from that matrix."""
        crystal = DoubleWellCrystal((1, 1, 1), k=-0.5)
        curvature = crystal.curvature(np.zeros(3), crystal.self_consistent(100.0))
        exact = ForceConstants(crystal.primitive, (1, 1, 1), np.kron([[1, -1], [-1, 1]], curvature))
        settings = SschaSettings(temperature=100.0, relax_positions=relax)
        with output_to(None):
            dyn = to_cellconstructor(exact.replace(factor * exact.hessian))
            before = [matrix.copy() for matrix in dyn.dynmats]
            ensemble, _ = EnsembleEngine(Potential.load(crystal)).fill(draw(dyn, 100.0, count, (5,)))
            found = self_consistent(ensemble, dyn, settings)
        np.testing.assert_array_equal(dyn.dynmats, before)
        return found, exact, ensemble

    @pytest.mark.parametrize("factor", [0.8, 1.0, 1.3])
    def test_it_is_found_from_both_sides(self, factor):
        found, exact, ensemble = self.found(factor, 1000)
        drawn = np.sqrt(factor) * exact.frequencies().max()
        assert abs(found.frequencies().max() - exact.frequencies().max()) < 3.0
        assert factor == 1.0 or abs(drawn - exact.frequencies().max()) > 4.0
        # the ensemble is left at the weights of what was found: there the gradient is small
        own = to_cellconstructor(found)
        own.dynmats = list(np.array(ensemble.get_preconditioned_gradient()))
        own.Symmetrize()
        with output_to(None):
            first = self.found(factor, 1000)[2]
            dyn = to_cellconstructor(exact.replace(factor * exact.hessian))
            first.update_weights(dyn, 100.0)
            dyn.dynmats = list(np.array(first.get_preconditioned_gradient()))
            dyn.Symmetrize()
        assert np.linalg.norm(own.dynmats) <= 0.06 * np.linalg.norm(dyn.dynmats)

    def test_two_pairs_say_little_and_raise_nothing(self):
        found = self.found(1.0, 4, relax=True)[0]
        assert found is None or np.isfinite(found.frequencies()).all()


@pytest.mark.slow
def test_free_energy_hessian_does_not_depend_on_the_matrix_it_starts_from():
    """A soft mode with a known answer, from an auxiliary matrix that is 15 % too stiff: within the quoted error."""
    crystal = DoubleWellCrystal((1, 1, 1))
    exact = crystal.soft_mode_squared(TEMPERATURE)
    curvature = 1.15 * crystal.curvature(np.zeros(3), crystal.self_consistent(TEMPERATURE))
    stiff = ForceConstants(crystal.primitive, (1, 1, 1), np.kron([[1, -1], [-1, 1]], curvature))
    engine, found = EnsembleEngine(Potential.load(crystal)), []
    for seed in range(8):
        settings = SschaSettings(temperature=TEMPERATURE, relax_positions=False, seed=seed)
        found.append(free_energy_hessian(stiff, engine, settings, 1000).lowest)
    values, errors = np.array(found).T
    assert 0.5 < values.std(ddof=1) / errors.mean() < 1.6
    assert abs(values.mean() - exact) < 3 * errors.mean() / np.sqrt(len(values))
    assert errors.mean() / np.sqrt(len(values)) < 0.1 * stiff.frequencies().max() ** 2


def test_kept_averages_are_those_of_the_same_run(quartic, tmp_path):
    """Read back to the last digit for the same matrix and count, made again for another."""
    crystal, exact, _ = quartic
    engine = EnsembleEngine(Potential.load(crystal))
    settings = SschaSettings(temperature=TEMPERATURE, relax_positions=False)
    path = tmp_path / "fresh.npz"
    with output_to(None):
        first = kept_fresh_ensemble(path, exact, engine, settings, 4)
        stamp = path.stat().st_mtime_ns
        again = kept_fresh_ensemble(path, exact, engine, settings, 4)
        assert path.stat().st_mtime_ns == stamp
        assert again.summary() == first.summary()
        np.testing.assert_array_equal(again.frequency_errors, first.frequency_errors)
        assert kept_fresh_ensemble(path, exact, engine, settings, 6).configurations == 6
        path.write_bytes(b"rubbish")
        assert kept_fresh_ensemble(path, exact, engine, settings, 4).configurations == 4


def test_options_that_cannot_work():
    for options in ({"final_configurations": 3}, {"final_configurations": 2}, {"min_populations": 0}):
        with pytest.raises(ConfigError):
            SschaSettings(**options)
