"""Displaced structures have the statistics and the geometry they should."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from helpers.label_engines import QuarticEngine
from scipy.constants import hbar, physical_constants

from hint_plugins.datasets import minireactions
from hint_plugins.selection.batch import displaced
from hint_plugins.selection.displacement import (
    DisplacementError,
    gaussian,
    interpolate,
    normal_modes,
    vibrational_space,
)
from hint_plugins.selection.settings import DisplaceSettings
from hint_plugins.storage.store import read_structures


def test_gaussian_statistics_and_centre():
    crystal = bulk("NaCl", "rocksalt", 5.6)
    made = gaussian(crystal, 0.4, 4000, np.random.default_rng(0), keep_centre=False)
    shifts = np.array([a.positions - crystal.positions for a in made])
    assert shifts.std() == pytest.approx(0.4, rel=0.02)
    assert abs(shifts.mean()) < 5 * 0.4 / np.sqrt(shifts.size)
    for atoms in gaussian(crystal, 0.4, 5, np.random.default_rng(0)):
        np.testing.assert_allclose((atoms.positions - crystal.positions).mean(axis=0), 0, atol=1e-14)
        np.testing.assert_array_equal(atoms.cell, crystal.cell)


def test_frozen_atoms_stay_in_their_places():
    from ase.build import fcc111
    from ase.constraints import FixAtoms, FixCartesian

    slab = fcc111("Cu", (2, 2, 3), vacuum=8)
    slab.set_constraint([FixAtoms(range(8)), FixCartesian([9], mask=(True, True, False))])
    (made,) = gaussian(slab, 0.2, 1, np.random.default_rng(0))
    shift = made.positions - slab.positions
    assert not shift[:8].any()
    assert not shift[9, :2].any()
    assert (shift[10:] != 0).all()
    assert shift[9, 2] != 0
    water = molecule("H2O")
    water.set_constraint(FixAtoms([0]))
    with pytest.raises(DisplacementError, match="free molecules"):
        normal_modes(water, np.eye(9), 300, 1, np.random.default_rng(0))


def diatomic(k):
    """Two hydrogen atoms on x with spring constant k in eV/A^2."""
    hessian = np.zeros((6, 6))
    hessian[np.ix_([0, 3], [0, 3])] = k * np.array([[1, -1], [-1, 1]])
    return Atoms("H2", [[0, 0, 0], [0.8, 0, 0]]), hessian


@pytest.mark.parametrize("quantum", [True, False])
def test_width_of_a_diatomic_is_the_textbook_one(quantum):
    atoms, hessian = diatomic(30.0)
    made = normal_modes(atoms, hessian, 500.0, 4000, np.random.default_rng(0), quantum=quantum, closest=0.0)
    lengths = np.array([a.get_distance(0, 1) for a in made]) - 0.8
    mass = atoms.get_masses()[0] / 2 * physical_constants["atomic mass constant"][0]
    joule = 30.0 * units._e / 1e-20
    omega = np.sqrt(joule / mass)
    kt = units._k * 500.0
    variance = hbar / (2 * mass * omega) / np.tanh(hbar * omega / (2 * kt)) if quantum else kt / joule
    assert lengths.std() == pytest.approx(np.sqrt(variance) * 1e10, rel=0.05)


def test_classical_energy_is_half_kt_a_mode():
    atoms = molecule("H2CO")
    rng = np.random.default_rng(0)
    hessian = QuarticEngine(stiffness=0.5).surface(atoms).exact()
    root = np.sqrt(np.repeat(atoms.get_masses(), 3))
    space = vibrational_space(atoms)
    assert space.shape == (12, 6)
    inner = space @ space.T
    shifted = (inner @ (hessian / np.outer(root, root)) @ inner) * np.outer(root, root)
    values, vectors = np.linalg.eigh(space.T @ (hessian / np.outer(root, root)) @ space)
    positive = (vectors * np.abs(values)) @ vectors.T
    stable = (space @ positive @ space.T) * np.outer(root, root)
    assert shifted.shape == stable.shape
    made = normal_modes(atoms, stable, 100.0, 3000, rng, quantum=False, softest_cm1=1e-3, closest=0.0)
    shifts = np.array([(a.positions - atoms.positions).ravel() for a in made])
    energy = 0.5 * np.einsum("ki,ij,kj->k", shifts, stable, shifts).mean()
    assert energy == pytest.approx(6 * units.kB * 100.0 / 2, rel=0.06)


def test_samples_neither_drift_nor_turn():
    atoms = molecule("CH3OH")
    hessian = np.eye(18) * 20
    masses = atoms.get_masses()
    r = atoms.positions - atoms.get_center_of_mass()
    for sample in normal_modes(atoms, hessian, 300, 5, np.random.default_rng(0)):
        shift = sample.positions - atoms.positions
        np.testing.assert_allclose(masses @ shift, 0, atol=1e-9)
        np.testing.assert_allclose((masses[:, None] * np.cross(r, shift)).sum(axis=0), 0, atol=1e-9)


def test_linear_molecules_lose_five_directions():
    assert vibrational_space(molecule("CO2")).shape == (9, 4)
    assert vibrational_space(molecule("H2O")).shape == (9, 3)
    assert vibrational_space(Atoms("H")).shape == (3, 0)


def test_atoms_never_collide():
    atoms, hessian = diatomic(30.0)
    for sample in normal_modes(atoms, hessian, 50_000.0, 200, np.random.default_rng(0)):
        assert sample.get_distance(0, 1) >= 0.75 * 0.8 - 1e-12


def test_path_keeps_ends_and_bonds():
    pytest.importorskip("geodesic_interpolate")
    reaction = minireactions.reactions()[0]
    path = interpolate(reaction.reactant, reaction.ts, 7)
    assert len(path) == 7
    for image, end in ((path[0], reaction.reactant), (path[-1], reaction.ts)):
        np.testing.assert_allclose(image.get_all_distances(), end.get_all_distances(), atol=1e-6)
    assert min(a.get_all_distances()[np.triu_indices(3, 1)].min() for a in path) > 0.8
    again = interpolate(reaction.reactant, reaction.ts, 7)
    np.testing.assert_array_equal(path[3].positions, again[3].positions)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: gaussian(molecule("H2O"), -1, 3, np.random.default_rng(0)), "must be positive"),
        (lambda: normal_modes(bulk("Cu"), np.eye(3), 300, 1, np.random.default_rng(0)), "for molecules"),
        (lambda: normal_modes(molecule("H2O"), np.eye(6), 300, 1, np.random.default_rng(0)), "finite"),
        (lambda: normal_modes(molecule("H2O"), np.eye(9), -5, 1, np.random.default_rng(0)), "temperature"),
        (lambda: interpolate(molecule("H2O"), molecule("H2"), 5), "same atoms"),
        (lambda: interpolate(molecule("H2O"), molecule("H2O"), 1), "at least 2"),
    ],
)
def test_wrong_input(call, reason):
    with pytest.raises(DisplacementError, match=reason):
        call()


def test_stream_of_displacements_names_what_failed():
    pytest.importorskip("geodesic_interpolate")
    frames = [molecule("HCN"), molecule("HCN"), molecule("H2O"), molecule("H2"), molecule("H2")]
    frames[1].positions += 0.1
    results = dict(displaced(enumerate(frames), DisplaceSettings(method="path", count=3)))
    assert [a.info["role"] for a in results[0]] == ["reactant", "path", "product"]
    assert "same atoms" in str(results[2])
    assert "no partner" in str(results[4])
    results = dict(displaced(enumerate(frames[:2]), DisplaceSettings(count=2, sigma=0.1)))
    assert [a.info["parent"] for made in results.values() for a in made] == [0, 0, 1, 1]


def test_mini_reactions():
    pytest.importorskip("geodesic_interpolate")
    found = minireactions.reactions()
    assert len(found) >= 15
    for reaction in found:
        assert (reaction.reactant.numbers == reaction.ts.numbers).all()
        assert (reaction.reactant.numbers == reaction.product.numbers).all()
        assert reaction.barrier > 0
    options = {"names": ["hydrogen isocyanide", "hydroxycarbene", "ketene"], "images": 3, "samples": 2}
    frames = list(minireactions.geometries(sampling="gaussian", molecules=1, **options))
    assert len(frames) == 3 * 5 * 3 + 21
    assert {a.info["split"] for a in frames} == {"train", "val", "test"}
    for name in {a.info["reaction"] for a in frames}:
        assert len({a.info["split"] for a in frames if a.info["reaction"] == name}) == 1
    again = list(minireactions.geometries(sampling="gaussian", molecules=1, **options))
    assert all((a.positions == b.positions).all() for a, b in zip(frames, again, strict=True))
    with pytest.raises(ValueError, match="no reaction is called"):
        next(minireactions.geometries(names=["cold fusion"]))


def test_mini_reactions_command(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tblite")
    words = ["minireactions", str(tmp_path), "--images", "2", "--samples", "0", "--reactions", "hydroxycarbene"]
    label = ["--", "--kind", "forces", "--workers", "1"]
    monkeypatch.setattr("sys.argv", [*words, *label])
    minireactions.main()
    parts = [path for part in ("train", "val", "test") if (path := tmp_path / f"{part}.xyz").exists()]
    frames = [a for path in parts for a in read_structures(path)]
    assert len(frames) == 3
    assert all("REF_forces" in a.arrays and "REF_hessian" not in a.info for a in frames)
    monkeypatch.setattr("sys.argv", [*words[:3], "3", *words[4:], *label])
    with pytest.raises(SystemExit):
        minireactions.main()
    assert "other options" in capsys.readouterr().err


def test_mini_reactions_are_stationary_points():
    pytest.importorskip("tblite")
    from hint_plugins.labelling.engine import EngineSpec
    from hint_plugins.labelling.make import make_label
    from hint_plugins.labelling.record import LabelTask

    engine = EngineSpec("xtb").build()
    for reaction in minireactions.reactions()[:4]:
        for atoms, negative in ((reaction.reactant, 0), (reaction.ts, 1), (reaction.product, 0)):
            record = make_label(engine, atoms, LabelTask("full"))
            assert np.abs(record["forces"]).max() < 0.02
            space = vibrational_space(atoms)
            root = np.sqrt(np.repeat(atoms.get_masses(), 3))
            n = len(root)
            weighted = np.reshape(record["hessian"], (n, n)) / np.outer(root, root)
            values = np.linalg.eigvalsh(space.T @ weighted @ space)
            assert (values < -0.05).sum() == negative, reaction.name
