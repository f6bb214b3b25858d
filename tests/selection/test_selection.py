"""Which structures are chosen, and do the numbers mean what they say?"""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from hint_plugins.selection.choose import choose
from hint_plugins.selection.density import SoapMap, _exact, _faiss, local_density_weights
from hint_plugins.selection.energy import by_energy, relative_energies
from hint_plugins.selection.survey import SelectionError, draw, survey


def rattled(names, copies, seed=0):
    rng = np.random.default_rng(seed)
    frames = []
    for name in names:
        for _ in range(copies):
            atoms = molecule(name)
            atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
            atoms.info["REF_energy"] = float(rng.normal() - 10 * len(atoms))
            frames.append(atoms)
    return frames


@given(st.integers(2, 40), st.integers(1, 5), st.integers(1, 12), st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_local_density_is_equation_one(count, dim, k, seed):
    pytest.importorskip("sklearn")
    points = np.random.default_rng(seed).normal(size=(count, dim))
    squared = ((points[:, None] - points[None]) ** 2).sum(-1)
    np.fill_diagonal(squared, np.inf)
    expected = np.sort(squared, axis=1)[:, : min(k, count - 1)].mean(axis=1)
    np.testing.assert_allclose(local_density_weights(points, k), expected / expected.sum(), rtol=1e-9)


def test_outliers_weigh_more_and_duplicates_nothing():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(0, 0.1, (50, 3)), [[10, 0, 0]], np.full((12, 3), 5.0)])
    weights = local_density_weights(points, 10)
    assert weights.argmax() == 50
    np.testing.assert_array_equal(weights[51:], 0)
    np.testing.assert_allclose(local_density_weights(np.ones((4, 2))), 0.25)


def test_faiss_agrees_with_the_exact_neighbours():
    pytest.importorskip("faiss")
    points = np.random.default_rng(0).normal(size=(3000, 8)).astype(np.float32)
    a, b = _exact(points, 10).mean(1), _faiss(points, 10).mean(1)
    assert np.median(np.abs(a - b) / a) < 1e-3


def test_draw_follows_the_weights():
    rng = np.random.default_rng(0)
    weights = np.array([1.0, 2.0, 3.0, 4.0, 0.0])
    counts = np.zeros(5)
    trials = 20_000
    for _ in range(trials):
        counts[draw(weights, 1, rng)] += 1
    sigma = np.sqrt(trials * 0.1 * 0.9)
    np.testing.assert_allclose(counts, trials * weights / 10, atol=5 * sigma)
    assert draw(weights, 5, rng).tolist() == [0, 1, 2, 3, 4]
    assert 4 not in draw(weights, 4, rng)


@pytest.mark.parametrize("weights", [[1.0, np.nan], [1.0, -1.0]])
def test_wrong_weights(weights):
    with pytest.raises(SelectionError, match="finite and not negative"):
        draw(np.array(weights), 1, np.random.default_rng(0))


def test_energies_are_compared_within_isomers():
    frames = rattled(["CH3CHO", "CH2OCH2", "H2O"], 4)
    found = survey(frames, np.random.default_rng(0))
    relative = relative_energies(found)
    energies = np.array([a.info["REF_energy"] for a in frames])
    np.testing.assert_allclose(relative[:8], energies[:8] - energies[:8].min())
    np.testing.assert_allclose(relative[8:], energies[8:] - energies[8:].min())
    top, _ = by_energy(found, 3, "top")
    bottom, _ = by_energy(found, 3, "bottom")
    assert set(top) == set(np.argsort(-relative)[:3])
    assert relative[bottom].max() <= relative[top].min()


def test_missing_energies_are_named():
    frames = rattled(["H2O"], 3)
    del frames[1].info["REF_energy"]
    with pytest.raises(SelectionError, match=r"1 structures have no REF_energy \(the first is number 1\)"):
        relative_energies(survey(frames, np.random.default_rng(0)))


def test_soap_map_ignores_rotation_order_and_position():
    pytest.importorskip("dscribe")
    frames = rattled(["CH3OH", "H2CO", "C2H4"], 5)
    changed = []
    for atoms in frames:
        other = atoms[np.random.default_rng(1).permutation(len(atoms))]
        other.rotate(50, (1, 2, 3))
        other.translate((3, 4, 5))
        changed.append(other)
    soap_map = SoapMap.fit(survey(frames, np.random.default_rng(0)), components=6)
    scale = np.abs(soap_map(frames)).max()
    np.testing.assert_allclose(soap_map(changed), soap_map(frames), atol=1e-4 * scale)


def test_soap_map_of_crystals_and_many_elements():
    pytest.importorskip("dscribe")
    frames = [bulk(x) for x in ("Cu", "Al", "Ni", "Pd", "Ag", "Au", "Pt")] + [Atoms("H")]
    points = SoapMap.fit(survey(frames, np.random.default_rng(0)), components=4)(frames)
    assert points.shape == (8, 4)
    assert np.isfinite(points).all()


@pytest.mark.parametrize("method", ["density", "energy", "random"])
def test_choose(method):
    pytest.importorskip("dscribe")
    frames = rattled(["CH3OH", "H2CO", "C2H4"], 20)
    options = {"method": method, "fraction": 0.25, "hessian_fraction": 0.2}
    first = choose(lambda: iter(frames), rng=np.random.default_rng(5), **options)
    assert first.taken.sum() == 15
    assert first.hessian.sum() == 3
    assert not (first.hessian & ~first.taken).any()
    again = choose(lambda: iter(frames), rng=np.random.default_rng(5), **options)
    np.testing.assert_array_equal(first.taken, again.taken)
    np.testing.assert_array_equal(first.hessian, again.hessian)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"method": "magic"}, "unknown method"),
        ({"fraction": 0.0}, "above 0"),
        ({"hessian_fraction": 2.0}, "between 0 and 1"),
        ({"method": "energy", "end": "middle"}, "top or bottom"),
        ({"method": "density", "neighbours": 0}, "at least 1"),
    ],
)
def test_wrong_options(options, reason):
    pytest.importorskip("dscribe")
    with pytest.raises(SelectionError, match=reason):
        choose(lambda: iter(rattled(["H2O"], 4)), rng=np.random.default_rng(0), with_map=False, **options)


def test_nothing_to_choose_from():
    with pytest.raises(SelectionError, match="no structures"):
        choose(lambda: iter([]), rng=np.random.default_rng(0))


def test_survey_sample_is_uniform_and_bounded():
    counts = np.zeros(40)
    for seed in range(400):
        frames = (Atoms("H", [[0, 0, k]]) for k in range(40))
        found = survey(frames, np.random.default_rng(seed), sample_size=10)
        assert len(found.sample) == 10
        counts[[round(a.positions[0, 2]) for a in found.sample]] += 1
    np.testing.assert_allclose(counts, 100, atol=5 * np.sqrt(75))
