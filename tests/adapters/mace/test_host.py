"""MACE model files as potentials, held to MACE's own calculator."""

import copy

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from helpers.devices import DEVICES, HAS_GPU
from helpers.pretend_gpu import pretend_gpu

mace = pytest.importorskip("mace")

from ase import Atoms  # noqa: E402
from helpers.mace import tiny_mace  # noqa: E402
from mace.calculators import MACECalculator  # noqa: E402

from hint_plugins.diagnosis.derivatives import check_potential, check_training  # noqa: E402
from hint_plugins.potential import Potential  # noqa: E402
from hint_plugins.potential.backends import PotentialError  # noqa: E402

pytestmark = pytest.mark.mace


@pytest.fixture(autouse=True)
def _default_dtype():
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="module", params=[True, False], ids=["ScaleShiftMACE", "MACE"])
def model_file(request, tmp_path_factory):
    file = tmp_path_factory.mktemp("mace") / "tiny.model"
    model = tiny_mace(scale_shift=request.param)
    model.atomic_energies_fn.atomic_energies.copy_(torch.arange(5.0))
    torch.save(model, file)
    return file


@pytest.fixture(scope="module")
def structures():
    rng = np.random.default_rng(0)
    crystal = bulk("Cu")
    crystal.set_cell(crystal.cell.array @ (np.eye(3) + 0.04 * rng.standard_normal((3, 3))), scale_atoms=True)
    mixed = bulk("NiO", "rocksalt", a=4.0) * (2, 1, 1)
    mixed.numbers[:] = [29, 8, 29, 8]
    out = [molecule("CH3OH"), crystal, molecule("H2O"), mixed, Atoms("N")]
    for atoms in out:
        atoms.positions += 0.05 * rng.standard_normal(atoms.positions.shape)
    mixed.positions += 7.3  # outside the cell
    return out


@pytest.mark.pretend_gpu_with(model_file=True)
@pytest.mark.parametrize("device", DEVICES)
def test_agrees_with_the_calculator_of_mace(model_file, structures, device):
    potential = Potential.load(model_file, device)
    assert potential.dtype == torch.float64
    assert potential.cutoff == 3.0
    found = potential.evaluate(structures, stress=True)
    hessians = potential.hessians(structures)
    reference = MACECalculator(model_paths=str(model_file), device=device, default_dtype="float64")
    for k, atoms in enumerate(structures):
        atoms = atoms.copy()
        atoms.calc = reference
        assert found.energies[k] == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
        np.testing.assert_allclose(found.forces[k], atoms.get_forces(), atol=1e-10)
        if atoms.pbc.all():
            np.testing.assert_allclose(found.stresses[k], atoms.get_stress(), atol=1e-12)
        shape = hessians[k].shape
        np.testing.assert_allclose(hessians[k], reference.get_hessian(atoms).reshape(shape), atol=1e-9)


def test_derivatives(model_file, structures):
    potential = Potential.load(model_file, "cpu")
    report = check_potential(potential, structures[:4])
    assert report["ok"], report
    assert report["stress_error"] is not None
    training = check_training(potential, structures[:1])
    assert training is not None
    assert training["ok"], training
    assert not any(p.requires_grad for p in potential.backend.model.parameters())


def test_batch_equals_one_by_one(model_file, structures):
    potential = Potential.load(model_file, "cpu")
    together = potential.hessians(structures)
    for atoms, hessian in zip(structures, together, strict=True):
        np.testing.assert_allclose(potential.hessian(atoms), hessian, atol=1e-11)


def test_float32(model_file, structures):
    double, single = (Potential.load(model_file, "cpu", dtype) for dtype in ("float64", "float32"))
    assert single.dtype == torch.float32
    np.testing.assert_allclose(
        single.evaluate(structures).energies, double.evaluate(structures).energies, rtol=1e-5, atol=1e-5
    )
    a, b = single.hessian(structures[0]), double.hessian(structures[0])
    assert np.abs(a - b).max() < 1e-4 * np.abs(b).max()


def test_torchscript_file(model_file, structures, tmp_path):
    from e3nn.util import jit

    model = torch.load(model_file, weights_only=False)
    if type(model).__name__ != "ScaleShiftMACE":
        pytest.skip("one kind is enough")
    file = tmp_path / "tiny_compiled.model"
    torch.jit.save(jit.compile(copy.deepcopy(model)), str(file))
    scripted, eager = Potential.load(file, "cpu"), Potential.load(model_file, "cpu")
    for a, b in zip(scripted.hessians(structures[1:3]), eager.hessians(structures[1:3]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU here")
def test_a_model_saved_on_a_gpu_opens_without_one(structures, tmp_path):
    """Also where e3nn's code in TorchScript holds tensors, which it reads to where they were."""
    model, file = tiny_mace(), tmp_path / "gpu.model"
    with pretend_gpu():
        torch.save(copy.deepcopy(model).to("cuda"), file)
    with pytest.raises((RuntimeError, NotImplementedError), match="CUDA"):
        torch.load(file, map_location="cpu", weights_only=False)
    torch.save(model, tmp_path / "cpu.model")
    found, expected = (Potential.load(tmp_path / f"{name}.model", "cpu") for name in ("gpu", "cpu"))
    np.testing.assert_array_equal(found.evaluate(structures).energies, expected.evaluate(structures).energies)


def test_unknown_element(model_file):
    with pytest.raises(PotentialError, match=r"structure 0 \(HAu\).*does not know Au .*it knows H, C, N, O, Cu"):
        Potential.load(model_file, "cpu").evaluate([Atoms("HAu", [[0, 0, 0], [0, 0, 1.5]])])


@pytest.fixture(scope="module")
def two_heads(tmp_path_factory):
    from e3nn import o3
    from mace import modules

    torch.manual_seed(1)
    torch.set_default_dtype(torch.float64)
    kind = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    model = modules.ScaleShiftMACE(
        r_max=3.0,
        num_bessel=4,
        num_polynomial_cutoff=5,
        max_ell=1,
        interaction_cls=kind,
        interaction_cls_first=kind,
        num_interactions=2,
        num_elements=2,
        hidden_irreps=o3.Irreps("4x0e"),
        MLP_irreps=o3.Irreps("4x0e"),
        gate=torch.nn.functional.silu,
        atomic_energies=np.array([[0.0, 1.0], [0.0, 2.0]]),
        avg_num_neighbors=4.0,
        atomic_numbers=[1, 8],
        correlation=2,
        heads=["dft", "xtb"],
        atomic_inter_scale=[1.0, 2.0],
        atomic_inter_shift=[0.0, 0.5],
    )
    file = tmp_path_factory.mktemp("heads") / "two.model"
    torch.save(model, file)
    return file


class TestHeads:
    def test_choice(self, two_heads):
        atoms = molecule("H2O")
        for head in ("dft", "xtb"):
            reference = MACECalculator(model_paths=str(two_heads), default_dtype="float64", head=head)
            copied = atoms.copy()
            copied.calc = reference
            found = Potential.load(f"{two_heads}#{head}", "cpu").evaluate([atoms])
            assert found.energies[0] == pytest.approx(copied.get_potential_energy(), abs=1e-12)

    def test_must_be_chosen(self, two_heads):
        with pytest.raises(PotentialError, match=r"several heads.*file#head: dft, xtb"):
            Potential.load(two_heads, "cpu")
        with pytest.raises(PotentialError, match=r"no head 'other': dft, xtb"):
            Potential.load(f"{two_heads}#other", "cpu")


class TestFiles:
    def test_checkpoint_is_told_from_model(self, model_file, tmp_path):
        model = torch.load(model_file, weights_only=False)
        file = tmp_path / "run_epoch-3.pt"
        torch.save({"model": model.state_dict(), "optimizer": {}, "lr_scheduler": {}}, file)
        with pytest.raises(PotentialError, match=r"checkpoint of a MACE training run.*\.model file"):
            Potential.load(file)

    def test_truncated(self, model_file, tmp_path):
        file = tmp_path / "half.model"
        file.write_bytes(model_file.read_bytes()[:5000])
        with pytest.raises(PotentialError, match="no reader knows"):
            Potential.load(file)

    def test_mace_absent(self, model_file, monkeypatch):
        import sys

        monkeypatch.setitem(sys.modules, "mace", None)
        with pytest.raises(PotentialError, match=r"mace-torch is not installed.*hint-plugins\[mace\]"):
            Potential.load(model_file)

    def test_another_library_s_file_is_left_to_others(self, tmp_path):
        from hint_mace.host import load_potential

        file = tmp_path / "other.pt"
        torch.save(torch.nn.Linear(2, 2), file)
        assert load_potential(str(file), torch.device("cpu"), None) is None
        file.write_text("text")
        assert load_potential(str(file), torch.device("cpu"), None) is None
