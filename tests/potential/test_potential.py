"""Potential: one behaviour whatever computes the energies."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from helpers.devices import DEVICES
from helpers.pairs import Pairs

from hint_plugins.curvature.engines import FiniteDifference
from hint_plugins.potential import Potential
from hint_plugins.potential.ase import HintCalculator
from hint_plugins.potential.backends import PotentialError
from hint_plugins.potential.backends.calculators import CalculatorBackend
from hint_plugins.potential.backends.energy_models import EnergyModelBackend


def mixed(seed: int = 0) -> list[Atoms]:
    """Molecules and crystals of many sizes, one atom and a strained low-symmetry cell among them."""
    rng = np.random.default_rng(seed)
    out = [molecule(name) for name in ("CH3OH", "H2O", "C6H6")]
    out += [Atoms("H", [[1.0, 2.0, 3.0]]), bulk("Cu"), bulk("Si") * (2, 1, 1)]
    slab = bulk("Cu", cubic=True)
    slab.pbc = (True, True, False)
    out.append(slab)
    for atoms in out:
        atoms.positions += 0.05 * rng.standard_normal(atoms.positions.shape)
        if atoms.pbc.all():
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.03 * rng.standard_normal((3, 3))), scale_atoms=True)
    return out


@pytest.fixture(params=DEVICES)
def pairs(request) -> Potential:
    return Potential.load(Pairs(), device=request.param, dtype="float64")


def test_batch_equals_one_by_one(pairs):
    structures = mixed()
    together = pairs.evaluate(structures, stress=True)
    hessians = pairs.hessians(structures)
    assert len(together) == len(structures)
    for k, atoms in enumerate(structures):
        alone = pairs.evaluate([atoms], stress=True)
        assert together.energies[k] == pytest.approx(alone.energies[0], abs=1e-12)
        np.testing.assert_allclose(together.forces[k], alone.forces[0], atol=1e-12)
        np.testing.assert_allclose(together.stresses[k], alone.stresses[0], atol=1e-12)
        np.testing.assert_allclose(hessians[k], pairs.hessian(atoms), atol=1e-11)


def test_forces_and_hessian_are_derivatives(pairs):
    h = 1e-4
    for atoms in mixed():
        n = len(atoms)
        displaced = []
        for column in range(3 * n):
            for sign in (1, -1):
                copy = atoms.copy()
                copy.positions.reshape(-1)[column] += sign * h
                displaced.append(copy)
        found = pairs.evaluate(displaced)
        numeric_forces = -(found.energies[::2] - found.energies[1::2]) / (2 * h)
        flat = np.array([f.reshape(-1) for f in found.forces])
        numeric_hessian = -(flat[::2] - flat[1::2]) / (2 * h)
        np.testing.assert_allclose(pairs.evaluate([atoms]).forces[0].reshape(-1), numeric_forces, atol=1e-7)
        hessian = pairs.hessian(atoms)
        np.testing.assert_allclose(hessian, numeric_hessian, atol=2e-6)
        np.testing.assert_allclose(hessian, hessian.T, atol=0)


def test_stress_is_derivative_of_strain(pairs):
    h = 1e-5
    voigt = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]
    for atoms in (a for a in mixed() if a.pbc.all()):
        stress = pairs.evaluate([atoms], stress=True).stresses[0]
        for k, (a, b) in enumerate(voigt):
            strained = []
            for sign in (1, -1):
                strain = np.zeros((3, 3))
                strain[a, b] += 0.5 * sign * h
                strain[b, a] += 0.5 * sign * h
                copy = atoms.copy()
                copy.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
                strained.append(copy)
            energies = pairs.evaluate(strained).energies
            assert stress[k] == pytest.approx((energies[0] - energies[1]) / (2 * h * atoms.get_volume()), abs=1e-8)


def test_molecule_has_no_stress(pairs):
    found = pairs.evaluate([molecule("H2O"), bulk("Cu")], stress=True)
    assert np.isnan(found.stresses[0]).all()
    assert np.isfinite(found.stresses[1]).all()
    assert np.isnan(pairs.evaluate([molecule("H2O")], stress=True).stresses).all()
    assert pairs.evaluate([molecule("H2O")]).stresses is None


@pytest.mark.parametrize("shape", [(27,), (4, 27), (9, 3), (4, 9, 3)])
def test_hvp_in_the_shape_of_its_vectors(pairs, shape):
    atoms = molecule("CH3CH2OH")
    vectors = np.random.default_rng(1).standard_normal(shape)
    products = pairs.hvp(atoms, vectors)
    assert products.shape == shape
    expected = vectors.reshape(-1, 27) @ pairs.hessian(atoms)
    np.testing.assert_allclose(products.reshape(-1, 27), expected, atol=1e-10)


def test_hvp_of_zero_and_of_nothing(pairs):
    atoms = molecule("H2O")
    assert not pairs.hvp(atoms, np.zeros(9)).any()
    assert pairs.hvp(atoms, np.zeros((0, 9))).shape == (0, 9)
    assert not Potential.load("emt").hvp(atoms, np.zeros(9)).any()
    with pytest.raises(ValueError, match=r"do not fit 3 atoms"):
        pairs.hvp(atoms, np.zeros(8))


def test_finite_difference_hessian_of_a_model_agrees(pairs):
    atoms = molecule("CH3OH")
    exact = pairs.hessian(atoms)
    np.testing.assert_allclose(pairs.hessian(atoms, step=1e-4), exact, atol=1e-6)


@pytest.mark.parametrize("engine", ["reverse", "replicate", "vmap"])
def test_exact_engines_give_the_same_hessians(pairs, engine):
    structures = mixed()
    for found, expected in zip(pairs.hessians(structures, engine=engine), pairs.hessians(structures), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-11)


def test_calculator_hessian_is_central_difference():
    """The same energies as model and as ASE calculator: Hessians agree up to step^2."""
    model = Potential.load(Pairs(), "cpu")
    numeric = Potential.load(HintCalculator(model))
    atoms = molecule("H2O")
    exact = model.hessian(atoms)
    errors = [np.abs(numeric.hessian(atoms, step=step) - exact).max() for step in (0.02, 0.01)]
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.02)
    assert not numeric.exact_hessian
    assert model.exact_hessian


def test_float32_follows_float64(pairs):
    single = Potential.load(Pairs(), pairs.device, torch.float32)
    assert single.dtype == torch.float32
    for atoms in mixed():
        np.testing.assert_allclose(single.hessian(atoms), pairs.hessian(atoms), atol=2e-4)


def test_a_model_handed_in_is_left_alone():
    model = Pairs().train()
    potential = Potential.load(model, "cpu", "float32")
    potential.evaluate([molecule("H2O")])
    assert model.training
    assert all(p.requires_grad and p.dtype == torch.float64 for p in model.parameters())


def test_counts():
    potential = Potential.load("emt")
    atoms = molecule("H2O")
    potential.evaluate([atoms, atoms])
    potential.hessian(atoms)
    potential.hvp(atoms, np.ones((3, 9)))
    assert (potential.calls.forces, potential.calls.hessians, potential.calls.products) == (2, 1, 3)


class TestLoading:
    @pytest.mark.parametrize(
        "spec",
        [EMT(), EMT, "emt", "EMT", "ase.calculators.emt:EMT", lambda: EMT(), CalculatorBackend(EMT, "mine")],
        ids=["instance", "class", "name", "capitals", "import", "function", "backend"],
    )
    def test_calculators(self, spec):
        atoms = molecule("H2O")
        reference = atoms.copy()
        reference.calc = EMT()
        found = Potential.load(spec).evaluate([atoms])
        assert found.energies[0] == pytest.approx(reference.get_potential_energy(), abs=1e-12)
        np.testing.assert_allclose(found.forces[0], reference.get_forces(), atol=1e-12)

    def test_potential_and_model(self):
        potential = Potential.load("lj")
        assert Potential.load(potential) is potential
        assert isinstance(Potential.load("helpers.pairs:make_pairs").backend, EnergyModelBackend)
        assert isinstance(Potential.load(Pairs).backend, EnergyModelBackend)

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("nowhere.model", "no such file"),
            ("emtt", "no such calculator"),
            ("nomodule:thing", "cannot import"),
            ("math:nothing", "cannot import"),
            ("tblite:PM6", "no method 'PM6'"),
            (3, "got int"),
            (lambda: 3, "got"),
        ],
    )
    def test_unknown(self, spec, message):
        with pytest.raises(PotentialError, match=message):
            Potential.load(spec)

    def test_alphanet_file(self, tmp_path):
        from hint_plugins.models.alphanet import AlphaNet, AlphaNetConfig, checkpoint

        torch.manual_seed(0)
        model = AlphaNet(AlphaNetConfig(num_layers=1, hidden_channels=8)).double()
        checkpoint.save(model, tmp_path / "net.pt")
        atoms = molecule("CH3OH")
        found = Potential.load(tmp_path / "net.pt", "cpu")
        assert found.dtype == torch.float64
        assert found.cutoff == model.config.cutoff
        expected = Potential.load(model, "cpu")
        assert found.evaluate([atoms]).energies[0] == pytest.approx(expected.evaluate([atoms]).energies[0], abs=1e-12)
        np.testing.assert_allclose(found.hessian(atoms), found.hessian(atoms, step=1e-4), atol=1e-5)

    def test_unknown_file_says_what_was_tried(self, tmp_path):
        file = tmp_path / "notes.model"
        file.write_text("not a model")
        with pytest.raises(PotentialError, match=r"no reader knows this file.*AlphaNet.*hint-plugins\[mace\]"):
            Potential.load(file)
        torch.save({"weights": torch.zeros(3)}, file)
        with pytest.raises(PotentialError, match=r"no reader knows"):
            Potential.load(file)

    def test_device_and_dtype(self):
        with pytest.raises(PotentialError, match="float64 or float32"):
            Potential.load(Pairs(), dtype="half")
        with pytest.raises(PotentialError, match="unknown device"):
            Potential.load(Pairs(), device="gpu9")
        if not torch.cuda.is_available():
            with pytest.raises(PotentialError, match="sees no GPU"):
                Potential.load(Pairs(), device="cuda")


class TestBadInput:
    @pytest.fixture(params=["model", "calculator"])
    def potential(self, request):
        return (
            Potential.load(Pairs(elements=(1, 6, 8, 29)), "cpu") if request.param == "model" else Potential.load("emt")
        )

    def test_unknown_element(self, potential):
        with pytest.raises(PotentialError, match=r"structure 1 \(H2OXe\).*does not know Xe \(atom 3\)"):
            potential.evaluate([molecule("H2O"), molecule("H2O") + Atoms("Xe", [[5, 5, 5]])])

    def test_overlapping_atoms(self, potential):
        atoms = molecule("H2O")
        atoms.positions[2] = atoms.positions[1]
        for method in (potential.evaluate, potential.hessians):
            with pytest.raises(PotentialError, match=r"structure 2 \(H2O\).*atoms 1 and 2"):
                method([molecule("H2O"), molecule("CH4"), atoms])

    def test_the_culprit_of_a_large_batch_is_found_in_few_calls(self):
        potential = Potential.load(Pairs(), "cpu")
        good, bad = molecule("H2O"), molecule("H2O")
        bad.positions[2] = bad.positions[1]
        potential.evaluate([good] * 200)
        calls, evaluate = [], potential.backend.evaluate

        def counted(structures, stress=False):
            calls.append(len(structures))
            return evaluate(structures, stress)

        potential.backend.evaluate = counted
        with pytest.raises(PotentialError, match=r"structure 77 \(H2O\).*atoms 1 and 2"):
            potential.evaluate([good] * 77 + [bad] + [good] * 100)
        assert len(calls) <= 2 * 8 + 2

    def test_not_finite(self, potential):
        atoms = molecule("H2O")
        atoms.positions[1, 0] = np.nan
        with pytest.raises(PotentialError, match=r"structure 0 \(H2O\): the position of atom 1 is not finite"):
            potential.evaluate([atoms])

    def test_no_volume(self, potential):
        atoms = Atoms("Cu", cell=[2.5, 2.5, 0.0], pbc=True)
        with pytest.raises(PotentialError, match=r"structure 0 \(Cu\).*no volume"):
            potential.evaluate([atoms])

    def test_no_atoms(self, potential):
        with pytest.raises(PotentialError, match="no atoms"):
            potential.evaluate([Atoms()])
        with pytest.raises(TypeError, match="structure 0"):
            potential.evaluate(["H2O"])

    def test_nothing_to_do(self, potential):
        assert len(potential.evaluate([])) == 0
        assert potential.hessians([]) == []

    def test_failing_calculator_is_named(self):
        class Failing(LennardJones):
            def calculate(self, *args, **kwargs):
                raise RuntimeError("no convergence")

        with pytest.raises(PotentialError, match=r"structure 0 \(H2O\): Failing failed: no convergence"):
            Potential.load(Failing()).evaluate([molecule("H2O")])

    def test_calculator_without_finite_result(self):
        class Wrong(LennardJones):
            def calculate(self, *args, **kwargs):
                super().calculate(*args, **kwargs)
                self.results["forces"] = np.full((3, 3), np.nan)

        with pytest.raises(PotentialError, match="not finite"):
            Potential.load(Wrong()).evaluate([molecule("H2O")])


class TestCalculator:
    def test_in_ase(self, pairs):
        from ase.optimize import BFGS

        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=0)
        atoms.calc = pairs.calculator()
        before = np.linalg.norm(atoms.get_forces())
        BFGS(atoms, logfile=None).run(fmax=1e-4, steps=100)
        assert np.linalg.norm(atoms.get_forces()) < 0.1 * before
        assert atoms.get_stress() == pytest.approx(pairs.evaluate([atoms], stress=True).stresses[0], abs=1e-12)

    def test_results_are_kept(self, pairs):
        atoms = molecule("H2O")
        atoms.calc = pairs.calculator()
        for _ in range(3):
            atoms.get_potential_energy()
            atoms.get_forces()
            atoms.calc.get_hessian(atoms)
        assert (pairs.calls.forces, pairs.calls.hessians) == (1, 1)
        atoms.positions[0, 0] += 0.1
        moved = atoms.calc.get_hessian(atoms)
        assert (pairs.calls.forces, pairs.calls.hessians) == (2, 2)
        np.testing.assert_allclose(moved, pairs.hessian(atoms), atol=1e-12)
        atoms.info["charge"] = 1
        atoms.get_potential_energy()
        assert pairs.calls.forces == 3

    def test_hessian_cannot_be_spoilt_through_the_cache(self, pairs):
        atoms = molecule("H2O")
        calculator = pairs.calculator()
        calculator.get_hessian(atoms)[:] = 0.0
        assert calculator.get_hessian(atoms).any()

    def test_stress_of_a_molecule(self, pairs):
        from ase.calculators.calculator import PropertyNotImplementedError

        atoms = molecule("H2O")
        atoms.calc = pairs.calculator()
        with pytest.raises(PropertyNotImplementedError):
            atoms.get_stress()


class TestTblite:
    @pytest.fixture
    def xtb(self):
        pytest.importorskip("tblite")
        return Potential.load("tblite:GFN2-xTB")

    def test_water(self, xtb):
        """Energy of GFN2-xTB water at ASE's geometry, as tblite's own documentation gives it."""
        atoms = molecule("H2O")
        assert xtb.evaluate([atoms]).energies[0] == pytest.approx(-137.96777625229421, abs=1e-6)
        hessian = xtb.hessian(atoms)
        probe = np.random.default_rng(0).standard_normal(9)
        np.testing.assert_allclose(xtb.hvp(atoms, probe), hessian @ probe, atol=0.05)
        assert np.abs(hessian.sum(axis=0)).max() < 1e-2 * np.abs(hessian).max()

    def test_charge_and_spin(self, xtb):
        atoms = molecule("H2O")
        neutral = xtb.evaluate([atoms]).energies[0]
        atoms.info["charge"] = -1
        assert xtb.evaluate([atoms]).energies[0] == pytest.approx(-131.50015843891816, abs=1e-4)
        atoms.info = {"spin": 3}
        assert xtb.evaluate([atoms]).energies[0] > neutral + 3.0
        atoms.info = {"spin": 2}
        with pytest.raises(PotentialError, match="multiplicity 2"):
            xtb.evaluate([atoms])


def test_direct_backend_keeps_its_asymmetry():
    """A backend whose products are not symmetric: seen raw, hidden on request."""
    backend = CalculatorBackend(EMT, "emt", step=0.05)
    potential = Potential(backend)
    assert isinstance(backend.engine, FiniteDifference)
    atoms = molecule("CH3OH")
    atoms.rattle(0.05, seed=0)
    raw = potential.hessians([atoms], symmetrise=False)[0]
    assert np.abs(raw - raw.T).max() > 1e-6
    np.testing.assert_allclose(potential.hessian(atoms), 0.5 * (raw + raw.T))


def test_a_model_of_nan_is_a_failed_structure():
    """Energies, forces, Hessians and products: each names the structure, none ends in a linear-algebra error."""
    structures = mixed()[:3]

    class Broken(Pairs):
        def forward(self, graph):
            oxygen = torch.zeros(graph.num_graphs, dtype=graph.positions.dtype)
            oxygen = oxygen.index_add(0, graph.batch_index, (graph.numbers == 8).to(oxygen))
            return super().forward(graph) * torch.where(oxygen > 0, torch.nan, 1.0)

    potential = Potential.load(Broken(), dtype="float64")
    reason = r"structure 1 \(H2O\): the potential's {} is not all finite numbers"
    ordered = [structures[2], structures[1]]
    with pytest.raises(PotentialError, match=reason.format("energy")):
        potential.evaluate(ordered)
    with pytest.raises(PotentialError, match=reason.format("Hessian")):
        potential.hessians(ordered)
    with pytest.raises(PotentialError, match=r"\(H2O\): the potential's Hessian products"):
        potential.hvp(structures[1], np.ones(9))
    assert np.isfinite(potential.evaluate([structures[2]]).energies).all()
