"""One label: is it the derivative it claims to be?"""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixCartesian
from helpers.label_engines import QuarticEngine
from hypothesis import given, settings
from hypothesis import strategies as st

from hint_plugins.labelling import differences
from hint_plugins.labelling.ase_calculator import ASESurface
from hint_plugins.labelling.engine import EngineError, EngineSpec
from hint_plugins.labelling.make import make_label
from hint_plugins.labelling.record import LabelTask, attach, structure_key
from hint_plugins.labels.checks import check_label
from hint_plugins.labels.hessian_label import HessianLabel, LabelError
from hint_plugins.structures.charges import charge_and_multiplicity


def rattled(name: str, seed: int = 0, sigma: float = 0.05) -> Atoms:
    atoms = molecule(name)
    atoms.positions += np.random.default_rng(seed).normal(0, sigma, atoms.positions.shape)
    return atoms


@pytest.fixture(scope="module")
def xtb():
    pytest.importorskip("tblite")
    return EngineSpec("xtb", {"accuracy": 1e-4}).build()


@given(st.integers(2, 7), st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_all_kinds_agree_with_the_exact_hessian(n, seed):
    positions = np.random.default_rng(seed).normal(0, 0.3, (n, 3)) + np.arange(n)[:, None]
    atoms = Atoms("HCNOFSP"[:n], positions)
    engine = QuarticEngine()
    exact = engine.surface(atoms).exact()
    scale = np.abs(exact).max()
    for kind in ("full", "columns", "projections"):
        record = make_label(engine, atoms, LabelTask(kind, num_probes=3, seed=seed))
        copy = atoms.copy()
        attach(record, copy)
        label = HessianLabel.from_info(copy.info, n)
        z, hz = label.pairs(3, "rademacher", np.random.default_rng(1))
        np.testing.assert_allclose(hz, z @ exact, atol=1e-5 * scale)
        assert check_label(label, copy).kind == kind


@pytest.mark.parametrize("analytic", [False, True])
def test_frozen_atoms_leave_the_block_of_the_others(analytic):
    """Six gradients for each free atom; forces are those of all atoms, frozen ones included."""
    atoms = rattled("C2H4")
    free = atoms.copy()
    atoms.set_constraint([FixAtoms([0, 1, 2]), FixCartesian([3], (True, False, False))])
    engine = QuarticEngine(analytic=analytic)
    record = make_label(engine, atoms, LabelTask())
    exact = engine.surface(free).exact()
    assert record["provenance"]["gradients"] == (1 if analytic else 1 + 2 * 8)
    attach(record, atoms)
    label = HessianLabel.from_info(atoms.info, 6)
    index = list(range(10, 18))
    assert label.kind == "block"
    assert label.directions.tolist() == index
    np.testing.assert_allclose(label.products, exact[np.ix_(index, index)], atol=1e-5 * np.abs(exact).max())
    np.testing.assert_allclose(atoms.arrays["REF_forces"], engine.surface(free).evaluate(free.positions).forces)
    whole = make_label(engine, atoms, LabelTask(whole=True))
    np.testing.assert_allclose(np.reshape(whole["hessian"], (18, 18)), exact, atol=1e-5 * np.abs(exact).max())
    other = atoms.copy()
    other.set_constraint(FixAtoms([0]))
    keys = {structure_key(a, LabelTask(whole=w).kind_for(a)) for a in (atoms, other, free) for w in (False, True)}
    assert len(keys) == 3  # two blocks, and one whole Hessian whatever is frozen
    other.set_constraint(FixAtoms(range(6)))
    with pytest.raises(LabelError, match="all atoms are frozen"):
        make_label(engine, other, LabelTask())


def test_an_ase_calculator_gives_the_forces_on_frozen_atoms():
    slab = bulk("Cu", cubic=True)
    slab.rattle(0.05, seed=1)
    slab.set_constraint(FixAtoms([0, 1, 2]))
    record = make_label(EngineSpec("ase", {"calculator": "emt"}).build(), slab, LabelTask())
    assert np.abs(np.array(record["forces"])[:3]).min() > 1e-3
    assert len(record["hessian_block_indices"]) == 3


def test_analytic_hessian_is_used_and_costs_one_gradient():
    atoms = rattled("C2H4")
    engine = QuarticEngine(analytic=True)
    record = make_label(engine, atoms, LabelTask("full"))
    np.testing.assert_allclose(np.reshape(record["hessian"], (18, 18)), engine.surface(atoms).exact(), atol=1e-12)
    assert record["provenance"]["derivative"] == "analytic"
    assert record["provenance"]["gradients"] == 1


def test_cost_in_gradients():
    atoms = rattled("C2H4")
    for kind, m, gradients in (
        ("full", 1, 6 * 6 + 1),
        ("projections", 5, 11),
        ("columns", 4, 9),
        ("forces", 1, 1),
    ):
        record = make_label(QuarticEngine(), atoms, LabelTask(kind, num_probes=m))
        assert record["provenance"]["gradients"] == gradients, kind


def test_xtb_forces_are_the_gradient_of_the_energy(xtb):
    surface = xtb.surface(atoms := rattled("CH3OH"))
    forces = surface.evaluate(atoms.positions).forces
    direction = np.random.default_rng(3).normal(size=forces.shape)
    coarse, fine = (
        -np.subtract(*(surface.evaluate(atoms.positions + s * h * direction).energy for s in (1, -1))) / (2 * h)
        for h in (1e-3, 5e-4)
    )
    assert (4 * fine - coarse) / 3 == pytest.approx((forces * direction).sum(), rel=1e-6)


def test_xtb_hessian_against_richardson(xtb):
    atoms = rattled("H2CO")
    record = make_label(xtb, atoms, LabelTask("full"))
    surface = xtb.surface(atoms)
    surface.evaluate(atoms.positions)
    coarse, fine = (
        differences.products(lambda r: surface.evaluate(r).forces, atoms.positions, np.eye(12), h)
        for h in (0.004, 0.002)
    )
    best = (4 * fine - coarse) / 3
    best = 0.5 * (best + best.T)
    assert np.abs(np.reshape(record["hessian"], (12, 12)) - best).mean() < 5e-4
    assert record["provenance"]["asymmetry"] < 5e-3
    assert record["provenance"]["sum_rule"] < 1e-8


@pytest.mark.parametrize("kind", ["projections", "columns"])
def test_xtb_products_are_those_of_the_full_hessian(xtb, kind):
    atoms = rattled("CH3OH", seed=2)
    full = make_label(xtb, atoms, LabelTask("full"))
    other = make_label(xtb, atoms, LabelTask(kind, num_probes=4))
    hessian = np.reshape(full["hessian"], (18, 18))
    if kind == "projections":
        z = np.reshape(other["hessian_probes"], (4, 18))
        assert set(np.unique(z)) == {-1.0, 1.0}
    else:
        z = np.eye(18)[other["hessian_column_indices"]]
    found = np.reshape(other[f"hessian_{'products' if kind == 'projections' else 'columns'}"], (4, 18))
    np.testing.assert_allclose(found, z @ hessian, atol=5e-3)
    assert np.abs(found).max() > 10


def test_xtb_label_turns_with_the_molecule(xtb):
    atoms = rattled("H2O", seed=5)
    turned = atoms.copy()
    turned.rotate(77, (1, 2, 3))
    rotation = np.linalg.lstsq(atoms.positions, turned.positions, rcond=None)[0].T
    big = np.kron(np.eye(3), rotation)
    a, b = (np.reshape(make_label(xtb, x, LabelTask("full"))["hessian"], (9, 9)) for x in (atoms, turned))
    np.testing.assert_allclose(b, big @ a @ big.T, atol=5e-3)


@pytest.mark.parametrize(("voigt", "i", "j"), [(0, 0, 0), (3, 1, 2), (5, 0, 1)])
def test_xtb_stress_is_the_strain_derivative(voigt, i, j):
    pytest.importorskip("tblite")
    engine = EngineSpec("xtb", {"method": "GFN1-xTB", "accuracy": 1e-4}).build()
    atoms = bulk("Si")
    shear = np.array([[0.02, 0.03, 0.0], [0.03, -0.01, -0.02], [0.0, -0.02, 0.01]])
    atoms.set_cell(atoms.cell @ (np.eye(3) + shear), scale_atoms=True)
    stress = engine.surface(atoms).evaluate(atoms.positions).stress
    h, energies = 1e-3, []
    for s in (1, -1):
        strain = np.zeros((3, 3))
        strain[i, j] += s * h / 2
        strain[j, i] += s * h / 2
        strained = atoms.copy()
        strained.set_cell(atoms.cell @ (np.eye(3) + strain), scale_atoms=True)
        energies.append(engine.surface(strained).evaluate(strained.positions).energy)
    numerical = (energies[0] - energies[1]) / (2 * h * atoms.get_volume())
    # the lattice sums of the energy leave 1e-5 eV/A^3 of noise in the numerical derivative
    assert stress[voigt] == pytest.approx(numerical, abs=3e-5)
    assert abs(stress[voigt]) > 1e-3


def test_probes_are_fixed_by_seed_and_structure():
    atoms, other = rattled("H2O"), rattled("H2O", seed=1)
    probes = [
        make_label(QuarticEngine(), a, LabelTask("projections", num_probes=8, seed=s))["hessian_probes"]
        for a, s in ((atoms, 0), (atoms, 0), (atoms, 1), (other, 0))
    ]
    assert probes[0] == probes[1]
    assert probes[0] != probes[2]
    assert probes[0] != probes[3]


def test_key_depends_on_everything_that_matters_and_nothing_else():
    atoms = rattled("H2O")
    keys = {structure_key(atoms, "full"), structure_key(atoms, "projections")}
    for change in ("positions", "numbers", "charge", "pbc", "cell"):
        other = atoms.copy()
        if change == "charge":
            other.info["charge"] = 1
        elif change == "positions":
            other.positions[0, 0] = np.nextafter(other.positions[0, 0], 9)
        elif change == "numbers":
            other.numbers[0] = 16
        elif change == "pbc":
            other.pbc = True
        else:
            other.cell = np.eye(3)
        keys.add(structure_key(other, "full"))
    assert len(keys) == 7
    same = atoms.copy()
    same.info["name"] = "water"
    same.arrays["REF_forces"] = np.zeros((3, 3))
    assert structure_key(same, "full") in keys


def test_labels_of_another_level_are_removed():
    atoms = rattled("H2O")
    atoms.info |= {
        "REF_hessian": np.zeros(81),
        "REF_stress": np.ones(6),
        "label_method": "other",
        "name": "w",
    }
    attach(make_label(QuarticEngine(), atoms, LabelTask("projections")), atoms)
    assert "REF_hessian" not in atoms.info
    assert "REF_stress" not in atoms.info
    assert atoms.info["label_method"] == "quartic"
    assert atoms.info["name"] == "w"


@pytest.mark.parametrize(
    ("atoms", "reason"),
    [
        (Atoms(), "no atoms"),
        (Atoms("H2", [[0, 0, 0], [0, 0, np.nan]]), "not finite"),
        (Atoms("H2", [[0, 0, 0], [0, 0, 0.1]]), "0.100 A apart"),
        (Atoms("X"), "no element"),
    ],
)
def test_nonsense_is_refused(atoms, reason):
    with pytest.raises(EngineError, match=reason):
        make_label(QuarticEngine(), atoms, LabelTask())


def test_xtb_unknown_element_is_named(xtb):
    with pytest.raises(EngineError, match=r"(?i)cannot describe|failed"):
        make_label(xtb, Atoms("U"), LabelTask("forces"))


def test_spin_and_charge():
    assert charge_and_multiplicity(molecule("H2O")) == (0, 1)
    assert charge_and_multiplicity(molecule("CH3")) == (0, 2)
    ion = molecule("H2O")
    ion.info["charge"] = 1
    assert charge_and_multiplicity(ion) == (1, 2)
    ion.info["spin"] = 1
    with pytest.raises(EngineError, match="do not fit 9 electrons"):
        charge_and_multiplicity(ion)


def test_ase_engine_matches_the_calculator():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    record = make_label(EngineSpec("ase", {"calculator": "emt"}).build(), atoms, LabelTask("full"))
    atoms.calc = EMT()
    assert record["energy"] == atoms.get_potential_energy()
    np.testing.assert_array_equal(record["forces"], atoms.get_forces())
    np.testing.assert_array_equal(record["stress"], atoms.get_stress())
    assert record["provenance"]["sum_rule"] < 1e-8
    assert record["provenance"]["code"] == "ase"


class WithHessian(EMT):
    """EMT with the Hessian in one of the layouts in use."""

    def __init__(self, layout):
        super().__init__()
        self.layout = layout

    def get_hessian(self, atoms):
        n = len(atoms)
        hessian = make_label(EngineSpec("ase", {"calculator": "emt"}).build(), atoms, LabelTask("full"))["hessian"]
        straight = np.reshape(hessian, (n, 3, n, 3))
        return {
            "N3N3": straight,
            "NN33": straight.transpose(0, 2, 1, 3),
            "3N3N": straight.reshape(3 * n, 3 * n),
            "3NN3": straight.reshape(3 * n, n, 3),
        }[self.layout]


@pytest.mark.parametrize("layout", ["N3N3", "NN33", "3N3N", "3NN3"])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_hessian_of_a_calculator_in_any_layout(n, layout):
    atoms = bulk("Cu", cubic=True)[:n]
    atoms.rattle(0.1, seed=1)
    expected = make_label(EngineSpec("ase", {"calculator": "emt"}).build(), atoms, LabelTask("full"))["hessian"]
    surface = ASESurface(WithHessian(layout), atoms)
    np.testing.assert_array_equal(surface.hessian().ravel(), np.ravel(expected))


@pytest.mark.parametrize("options", [{"method": "GFN7"}, {"accuracy": -1}, {"colour": "red"}])
def test_wrong_options_of_xtb(options):
    pytest.importorskip("tblite")
    with pytest.raises(EngineError, match="does not accept"):
        EngineSpec("xtb", options).build()


@pytest.mark.parametrize("bad", [{"kind": "half"}, {"num_probes": 0}, {"step": -1.0}])
def test_wrong_tasks(bad):
    with pytest.raises(ValueError, match=r"unknown kind|at least 1|between 0"):
        LabelTask(**bad)


class Dragging:
    """A quartic surface that moves the structure which it was given, as an engine around a calculator may."""

    step = probe_step = 1e-3

    def provenance(self):
        return {"method": "dragging"}

    def surface(self, atoms):
        self.atoms, self.inner = atoms, QuarticEngine().surface(atoms.copy())
        return self

    def evaluate(self, positions):
        self.atoms.positions = positions
        return self.inner.evaluate(self.atoms.positions.copy())

    def hessian(self):
        return None


@pytest.mark.parametrize("kind", ["full", "columns", "projections"])
def test_engine_that_moves_its_structure_gives_the_same_label(kind):
    """With displacements from a place that moves along, second derivatives would be half as large."""
    atoms = molecule("H2O")
    task = LabelTask(kind, num_probes=2, analytic=False, step=1e-3)
    ours, theirs = make_label(QuarticEngine(), atoms, task), make_label(Dragging(), atoms, task)
    assert (atoms.positions == molecule("H2O").positions).all()
    for name in (n for n in ours if n.startswith("hessian")):
        np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-5, atol=1e-5)
