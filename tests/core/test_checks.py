"""Bad Hessian labels are caught; good ones never are. On GFN2-xTB Hessians, at and away from minima."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.units import Bohr, Hartree, kcal, mol
from helpers.structures import label_with_emt
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from hint_plugins.labels.checks import check_label, check_structure
from hint_plugins.labels.hessian_label import HessianLabel
from hint_plugins.potential import Potential

NAMES = ("H2", "F2", "Li2", "NaCl", "CO", "HCN", "CO2", "H2O", "NH3", "H2CO", "SiH4", "CH3OH", "CH3SH", "C2H4", "HCOOH")


@pytest.fixture(scope="module")
def labels():
    """(name, atoms, forces, Hessian): every molecule at ASE's geometry and displaced by 0.05 A."""
    pytest.importorskip("tblite")
    potential = Potential.load("tblite:GFN2-xTB")
    rng = np.random.default_rng(0)
    out = []
    for name in NAMES:
        for amplitude in (0.0, 0.05):
            atoms = molecule(name)
            atoms.positions += amplitude * rng.standard_normal(atoms.positions.shape)
            forces = potential.evaluate([atoms]).forces[0]
            out.append((name, atoms, forces, potential.hessians([atoms], symmetrise=False)[0]))
    return out


cases = st.integers(0, 2 * len(NAMES) - 1)
quick = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


def reasons(hessian: np.ndarray, atoms: Atoms, forces: np.ndarray | None) -> str:
    return "; ".join(check_label(HessianLabel.full(hessian), atoms, forces).reasons)


def test_good_ones_pass(labels):
    for name, atoms, forces, hessian in labels:
        for known in (forces, None):
            report = check_label(HessianLabel.full(hessian), atoms, known)
            assert report.ok, (name, report)
            assert report.rotation < 1e-3
            assert report.asymmetry < 1e-3


@quick
@given(case=cases, seed=st.integers(0, 99), kind=st.sampled_from(["projections", "columns"]))
def test_good_products_pass(labels, case, seed, kind):
    name, atoms, forces, hessian = labels[case]
    rng = np.random.default_rng(seed)
    dim = len(hessian)
    if kind == "projections":
        z = rng.choice([-1.0, 1.0], (3, dim))
        label = HessianLabel.projections(z, z @ hessian, len(atoms))
    else:
        index = rng.choice(dim, 2, replace=False)
        label = HessianLabel.columns(index, hessian[index])
    for known in (forces, None):
        report = check_label(label, atoms, known)
        assert report.ok, (name, report)
    assert check_label(label, atoms, forces).rotation < 5e-3


@quick
@given(case=cases, seed=st.integers(0, 999), noise=st.floats(0.0, 3e-3), symmetric=st.booleans())
def test_noise_of_a_real_label_passes(labels, case, seed, noise, symmetric):
    """Up to 0.3 % of max|H| on every number, several times what float32 density-functional labels carry."""
    name, atoms, forces, hessian = labels[case]
    assume(len(atoms) > 2)
    noisy = hessian + noise * np.abs(hessian).max() * np.random.default_rng(seed).uniform(-1, 1, hessian.shape)
    noisy = 0.5 * (noisy + noisy.T) if symmetric else noisy
    assert not reasons(noisy, atoms, forces), name


@quick
@given(case=cases, data=st.data())
def test_exchanged_atoms(labels, case, data):
    name, atoms, forces, hessian = labels[case]
    n = len(atoms)
    assume(n > 2)
    order = np.array(data.draw(st.permutations(range(n))))
    blocks = hessian.reshape(n, 3, n, 3)[order][:, :, order].reshape(3 * n, 3 * n)
    assume(np.abs(blocks - hessian).max() > 0.05 * np.abs(hessian).max())  # else the order does not matter
    assert "rotation" in reasons(blocks, atoms, forces), (name, order)
    z = np.random.default_rng(0).choice([-1.0, 1.0], (3, 3 * n))
    assert not check_label(HessianLabel.projections(z, z @ blocks, n), atoms, forces).ok, (name, order)


@quick
@given(case=cases, turn=st.integers(0, 999))
def test_another_orientation(labels, case, turn):
    name, atoms, forces, hessian = labels[case]
    assume(len(atoms) > 1)
    rotation = Rotation.random(random_state=turn)
    assume(0.5 < rotation.magnitude() < np.pi - 0.1)
    big = np.kron(np.eye(len(atoms)), rotation.as_matrix())
    turned = big @ hessian @ big.T
    assume(np.abs(turned - hessian).max() > 0.2 * np.abs(hessian).max())
    assert "rotation" in reasons(turned, atoms, forces), name


@pytest.mark.parametrize("factor", [Bohr**2 / Hartree, 2 * Bohr**2 / Hartree, mol / kcal], ids=["Ha", "Ry", "kcal"])
def test_wrong_units(labels, factor):
    """Found from the forces away from a minimum, and from the stiffness of a bond between non-metals anywhere."""
    for name, atoms, forces, hessian in labels:
        if factor < 1 and np.abs(forces).max() > 0.5 and len(atoms) > 2:
            assert "or unit" in reasons(hessian * factor, atoms, forces), name
        if name not in ("Li2", "NaCl", "F2", "H2", "SiH4"):
            assert "too s" in reasons(hessian * factor, atoms, None), name
    water = next(entry for entry in labels if entry[0] == "H2O")
    assert ("Ha/Bohr" if factor < 1 else "kcal/mol") in reasons(water[3] * factor, water[1], None)


def test_other_layouts(labels):
    for name, atoms, forces, hessian in labels:
        n = len(atoms)
        blocks = hessian.reshape(n, 3, n, 3).swapaxes(1, 2)
        if n > 2:
            assert reasons(blocks.reshape(-1), atoms, forces), name


@quick
@given(case=cases, where=st.integers(0, 10_000), value=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_not_finite(labels, case, where, value):
    _, atoms, forces, hessian = labels[case]
    bad = hessian.copy().reshape(-1)
    bad[where % bad.size] = value
    assert "1 of" in reasons(bad, atoms, forces)
    assert "not finite" in reasons(bad, atoms, forces)


def test_half_a_matrix_and_zeros(labels):
    for _, atoms, forces, hessian in labels:
        assert "asymmetric" in reasons(np.triu(hessian), atoms, forces)
        assert "zero" in reasons(np.zeros_like(hessian), atoms, forces)


def test_missing_self_terms(labels):
    for name, atoms, forces, hessian in labels:
        n = len(atoms)
        blocks = hessian.copy().reshape(n, 3, n, 3)
        blocks[np.arange(n), :, np.arange(n)] = 0.0
        assert "translation" in reasons(blocks, atoms, forces), name


def test_crystals():
    """Crystals have no rotational sum rule; symmetry, translation and finite numbers are still checked."""
    for seed in range(3):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=seed)
        atoms = label_with_emt(atoms, stress=True)
        label = HessianLabel.from_info(atoms.info, 4)
        report = check_label(label, atoms, atoms.arrays["REF_forces"])
        assert report.ok
        assert report.rotation is None
        assert not check_label(HessianLabel.full(np.triu(label.products)), atoms).ok


def test_one_atom():
    assert check_label(HessianLabel.full(np.zeros((3, 3))), Atoms("H")).ok
    assert not check_label(HessianLabel.full(np.eye(3)), Atoms("H")).ok


class TestStructure:
    def test_good(self, labels):
        _, atoms, forces, hessian = labels[-1]
        atoms = atoms.copy()
        atoms.info["REF_energy"] = -1.0
        atoms.arrays["REF_forces"] = forces
        HessianLabel.full(hessian).to_info(atoms.info)
        row = check_structure(atoms)
        assert (row["reason"], row["kind"], row["num_atoms"]) == ("", "full", len(atoms))
        assert row["rotation"] < 1e-3

    @pytest.mark.parametrize(
        ("spoil", "reason"),
        [
            (lambda a: a.info.update(REF_hessian=np.zeros(80)), "9N^2 = 81"),
            (lambda a: a.info.update(REF_energy=np.nan), "REF_energy is not one finite number"),
            (lambda a: a.arrays["REF_forces"].fill(np.inf), "REF_forces is not (3, 3) finite"),
            (lambda a: a.positions.__setitem__((0, 0), np.nan), "atom 0 is not finite"),
            (lambda a: a.positions.__setitem__(1, a.positions[0]), "atoms 0 and 1"),
            (lambda a: a.info.update(REF_hessian_columns=np.zeros(9)) or a.info.pop("REF_hessian"), "is missing"),
        ],
    )
    def test_bad(self, spoil, reason):
        atoms = label_with_emt(molecule("H2O"))
        assert check_structure(atoms)["reason"] == ""
        spoil(atoms)
        assert reason in check_structure(atoms)["reason"]

    def test_unlabelled(self):
        row = check_structure(molecule("H2O"))
        assert (row["reason"], row["kind"]) == ("", "")
