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

from hint_plugins.curvature.probes import draw_probes
from hint_plugins.labels.checks import check_label
from hint_plugins.labels.hessian_label import HessianLabel
from hint_plugins.labels.keys import Keys, adopt_labels
from hint_plugins.labels.series import EnergySeries
from hint_plugins.labels.stiffness import BondModel
from hint_plugins.labels.structure_check import check_structure
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


@pytest.fixture(scope="module")
def resting():
    """(name, atoms, forces, Hessian) of molecules at their GFN2-xTB minimum."""
    pytest.importorskip("tblite")
    from ase.optimize import BFGS

    potential = Potential.load("tblite:GFN2-xTB")
    out = []
    for name in ("CO", "HCN", "CO2", "H2O", "NH3", "CH3OH", "C2H4", "F2", "H2", "SiH4", "Li2", "NaCl"):
        atoms = molecule(name)
        atoms.calc = _gfn2()
        BFGS(atoms, logfile=None).run(fmax=1e-3, steps=200)
        atoms = Atoms(atoms.numbers, atoms.positions)
        found = potential.evaluate([atoms])
        out.append((name, atoms, found.forces[0], potential.hessians([atoms], symmetrise=False)[0]))
    return out


def _gfn2():
    from tblite.ase import TBLite

    return TBLite(method="GFN2-xTB", verbosity=0, accuracy=0.01)


class TestAtRest:
    """At a minimum forces say nothing about sign or unit: the bonds do."""

    def test_negative(self, resting):
        for name, atoms, forces, hessian in resting:
            for known in (forces, None):
                assert not reasons(hessian, atoms, known), name
                assert "sign is wrong" in reasons(-hessian, atoms, known), name

    @pytest.mark.parametrize("factor", [Bohr**2, Bohr**2 / Hartree, mol / kcal], ids=["eV/Bohr^2", "Ha/Bohr^2", "kcal"])
    def test_units(self, resting, factor):
        unit = {Bohr**2: "eV/Bohr^2", mol / kcal: "kcal/mol"}.get(factor, "Ha/Bohr^2")
        for name, atoms, forces, hessian in resting:
            if name not in ("Li2", "NaCl"):
                for known in (forces, None):
                    assert unit in reasons(factor * hessian, atoms, known), name

    @pytest.mark.parametrize("factor", [-1.0, mol / kcal], ids=["sign", "kcal"])
    def test_products_of_the_wrong_sign_or_unit(self, resting, factor):
        """All columns always tell; so do five random directions, unless they hardly move a bond, which is rare."""
        seen = []
        for name, atoms, forces, hessian in resting[:10]:
            if len(atoms) < 3:  # a few directions may be rigid motions of a diatomic
                continue
            columns = HessianLabel.columns(np.arange(len(hessian)), hessian.T)
            wrong = HessianLabel("columns", factor * columns.products, columns.directions)
            assert check_label(columns, atoms, forces).ok, name
            assert not check_label(wrong, atoms, forces).ok, name
            bonds = BondModel.of(atoms)
            for seed in range(40):
                z = draw_probes("rademacher", 5, len(hessian), np.random.default_rng(seed))
                label = HessianLabel.projections(z, z @ hessian.T, len(atoms))
                assert check_label(label, atoms, forces).ok, (name, seed)
                wrong = HessianLabel("projections", factor * label.products, z)
                seen.append(not check_label(wrong, atoms, forces).ok)
                # every bond alone gives E|M z|^2 = 4 k^2 per direction
                moved = np.square(bonds.times(z)).sum() / (5 * 4 * np.square(bonds.constants).sum())
                assert seen[-1] or moved < 0.25, (name, seed)
        assert np.mean(seen) >= 0.95


@quick
@given(case=cases, seed=st.integers(0, 99), law=st.sampled_from(["rademacher", "gaussian", "orthogonal", "columns"]))
def test_products_belong_to_their_directions(labels, case, seed, law):
    name, atoms, forces, hessian = labels[case]
    assume(len(atoms) > 2)
    rng = np.random.default_rng(seed)
    z = draw_probes(law, 5, len(hessian), rng)
    products = z @ hessian.T
    assert check_label(HessianLabel.projections(z, products, len(atoms)), atoms, forces).ok, name
    for wrong in (np.roll(products, 1, axis=0), draw_probes("rademacher", 5, len(hessian), rng) @ hessian.T):
        found = check_label(HessianLabel.projections(z, wrong, len(atoms)), atoms, None).reasons
        assert any("other directions" in reason for reason in found), (name, found)
    for size in (1 / np.sqrt(len(hessian)), 1e200**0.5, 0.0):
        if law != "gaussian" or size in (0.0, 1e100):
            found = check_label(HessianLabel.projections(size * z, size * products, len(atoms)), atoms, forces).reasons
            assert "|z|^2" in found[0]


def test_columns_of_other_indices(labels):
    for name, atoms, forces, hessian in labels:
        dim = len(hessian)
        index = np.arange(0, dim, 2)
        assert check_label(HessianLabel.columns(index, hessian[:, index].T), atoms, forces).ok, name
        shifted = HessianLabel.columns(index, hessian[:, (index + 1) % dim].T)
        assert "asymmetric in the columns" in "; ".join(check_label(shifted, atoms, forces).reasons), name


def test_a_rigid_direction_may_have_no_products():
    atoms = molecule("N2")
    z = np.tile([1.0, 1.0, -1.0], 2)[None]
    assert check_label(HessianLabel.projections(z, 0 * z, 2), atoms, np.zeros((2, 3))).ok
    z = np.array([[1.0, 1.0, 1.0, -1.0, -1.0, -1.0]])
    assert not check_label(HessianLabel.projections(z, 0 * z, 2), atoms, np.zeros((2, 3))).ok


def test_stretched_diatomics_are_genuine():
    """Soft, but right: 1.05 times the bond length of heavy halogens."""
    pytest.importorskip("tblite")
    potential = Potential.load("tblite:GFN2-xTB")
    for pair, length in (("I2", 2.7), ("Br2", 2.3), ("HI", 1.63)):
        for factor in (0.9, 1.0, 1.05, 1.1, 1.2):
            atoms = Atoms(pair, [[0, 0, 0], factor * length / 3 * np.array([1.0, 2.0, 2.0])])
            forces = potential.evaluate([atoms]).forces[0]
            hessian = potential.hessians([atoms], symmetrise=False)[0]
            for known in (forces, None):
                assert not reasons(hessian, atoms, known), (pair, factor)


def test_blame_goes_to_the_right_one(labels):
    """Forces of the wrong sign or unit are named as such, not as a wrong Hessian."""
    seen = 0
    for name, atoms, forces, hessian in labels:
        if len(atoms) < 3 or np.abs(forces).max() < 0.5:
            continue
        seen += 1
        assert "the forces have the wrong sign" in reasons(hessian, atoms, -forces), name
        assert "sign is wrong" in reasons(-hessian, atoms, forces), name
        assert "the forces are in Ha/Bohr" in reasons(hessian, atoms, forces * Bohr / Hartree), name
        assert "the forces are in kcal/mol/A" in reasons(hessian, atoms, forces * mol / kcal), name
        assert "the Hessian is in Ha/Bohr^2" in reasons(hessian * Bohr**2 / Hartree, atoms, forces), name
    assert seen > 5


def test_negative_crystal():
    atoms = label_with_emt(bulk("Cu", cubic=True))
    label = HessianLabel.from_info(atoms.info, 4)
    assert "sign is wrong" in reasons(-label.products, atoms, atoms.arrays["REF_forces"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a: a.set_cell(np.eye(3) * 1e-3), "repeats every 0.001 A"),
        (lambda a: a.set_cell(np.full((3, 3), np.nan)), "cell is not finite"),
        (lambda a: a.set_cell([[5, 0, 0], [5, 1e-9, 0], [0, 0, 5]]), "no volume"),
        (lambda a: a.set_positions(a.positions + 1e9), "from the origin"),
        (lambda a: a.set_positions(0 * a.positions), "atoms 0 and"),
        (lambda a: a.set_positions([[0, 0, 0.01], [2, 2, 2], [2, 0, 2], [0, 0, 3.59]]), "apart"),
    ],
)
def test_impossible_geometries_are_refused_at_once(change, reason):
    atoms = bulk("Cu", cubic=True)
    change(atoms)
    assert reason in check_structure(atoms)["reason"]


def test_thousands_of_atoms_at_one_place():
    assert "apart" in check_structure(Atoms("H20000", np.zeros((20000, 3))))["reason"]


class TestKeys:
    virials = np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]])

    def crystal(self, **info):
        atoms = bulk("Cu", cubic=True)
        atoms.info.update(info)
        return atoms

    def test_virials_become_the_stress(self):
        atoms = adopt_labels(self.crystal(REF_virials=self.virials.reshape(-1)))
        np.testing.assert_allclose(atoms.info["REF_stress"], -np.arange(1, 7) / atoms.get_volume())
        assert "REF_virials" not in atoms.info

    def test_other_names(self):
        atoms = self.crystal(dft_energy=-1.0, dft_hessian_columns=np.zeros(12), dft_hessian_column_indices=[0])
        atoms.arrays["dft_forces"] = np.zeros((4, 3))
        adopt_labels(atoms, Keys(energy="dft_energy", forces="dft_forces", hessian="dft_hessian"))
        assert {"REF_energy", "REF_hessian_columns", "REF_hessian_column_indices"} == set(atoms.info)
        assert "REF_forces" in atoms.arrays

    @pytest.mark.parametrize(
        ("atoms", "keys", "reason"),
        [
            (lambda c: c.crystal(REF_energy=1.0), Keys(energy="dft_energy"), "but not dft_energy"),
            (lambda c: c.crystal(REF_virials=np.arange(9.0)), Keys(), "not symmetric"),
            (lambda c: c.crystal(REF_virials="1 2"), Keys(), "six or nine"),
            (lambda c: c.crystal(REF_virials=c.virials, REF_stress=np.ones(6)), Keys(), "contradict"),
        ],
    )
    def test_refused(self, atoms, keys, reason):
        with pytest.raises(ValueError, match=reason):
            adopt_labels(atoms(self), keys)

    def test_virials_without_volume(self):
        atoms = molecule("H2O")
        atoms.info["REF_virials"] = self.virials
        with pytest.raises(ValueError, match="not periodic"):
            adopt_labels(atoms)


class TestEnergySeries:
    """Energies that do not belong to the forces are seen where a file holds neighbouring geometries."""

    def verdict(self, energies=1.0, forces=1.0):
        series = EnergySeries()
        for seed in range(6):
            atoms = molecule("CH3OH")
            atoms.rattle(0.05, seed=seed)
            atoms = label_with_emt(atoms, hessian=False)
            atoms.info["REF_energy"] *= energies
            atoms.arrays["REF_forces"] *= forces
            series.add(atoms)
        return series.verdict()

    def test_right(self):
        assert self.verdict() == ""

    @pytest.mark.parametrize(
        ("energies", "forces", "text"),
        [
            (1 / 27.2114, 1, "Hartree"),
            (23.0605, 1, "kcal/mol"),
            (1, -1, "wrong sign"),
            (1, Bohr / Hartree, "forces are in Ha/Bohr"),
        ],
    )
    def test_wrong(self, energies, forces, text):
        assert text in self.verdict(energies, forces)

    def test_all_electrons_in_hartree(self):
        """wB97X/6-31G(d)-like totals; other compositions, so that no two geometries are neighbours."""
        for factor, wrong in ((1.0, True), (27.2114, False)):
            series = EnergySeries()
            for name, energy in (("H2O", -76.35), ("CH4", -40.46), ("CO2", -188.5), ("C2H6", -79.75), ("HCN", -93.37)):
                atoms = molecule(name)
                atoms.info["REF_energy"] = factor * energy
                series.add(atoms)
            assert ("Hartree" in series.verdict()) == wrong
