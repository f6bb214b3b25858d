"""Checkpoints of HINT runs in plain fairchem, and as potentials."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from fairchem.core import FAIRChemCalculator
from fairchem.core.units.mlip_unit import load_predict_unit
from fairchem.core.units.mlip_unit.api.inference import InferenceSettings
from helpers import fairchem_run
from helpers.fairchem_run import save, steps
from helpers.structures import crystals, molecules

from hint_fairchem.checks import inner_model
from hint_fairchem.export import export_checkpoint
from hint_fairchem.host import load_potential
from hint_plugins.diagnosis.derivatives import check_training
from hint_plugins.errors import InputError
from hint_plugins.potential import Potential
from hint_plugins.potential.backends.protocol import PotentialError

ALWAYS = ("hint.hessian_weight=0.5", "+hint.hessian_schedule=constant", "+hint.hessian_engine=reverse")
SETTINGS = InferenceSettings(compile=False, activation_checkpointing=False)


def trained(make_run, path, *overrides, **options):
    """A run of two steps with a Hessian loss, and its checkpoint."""
    run = make_run(*ALWAYS, *overrides, **options)
    steps(run, 2)
    return run, save(run, path)


def calculator(path, dataset="mol"):
    return FAIRChemCalculator(
        load_predict_unit(str(path), device="cpu", inference_settings=SETTINGS), task_name=dataset
    )


def own_prediction(run, atoms):
    """Energy and forces of the averaged model in memory, exact LayerNorms, energies of the elements and all."""
    from fairchem.core.datasets.atomic_data import AtomicData

    model = inner_model(run.unit.eval_unit.model).eval()
    data = AtomicData.from_ase(atoms, task_name="mol")
    out = model(data)
    energy = run.unit.tasks[0].element_references.undo_refs(data, out["energy"]["energy"])
    return float(energy), out["forces"]["forces"].detach().numpy()


@pytest.mark.parametrize("config", ["minimal.yaml", "direct.yaml"])
def test_exported_checkpoint_predicts_the_same_in_plain_fairchem(make_run, tmp_path, config):
    run, source = trained(make_run, tmp_path / "inference_ckpt.pt", config=config)
    done = export_checkpoint(source, tmp_path / "stock.pt")
    assert done.removed == ["hessian_loss"]
    assert done.remaining == []
    potential = Potential.load(tmp_path / "stock.pt", "cpu")
    stock = torch.load(tmp_path / "stock.pt", weights_only=False)
    assert "hint_" not in str(stock.tasks_config)
    for atoms in molecules(3):
        energy, forces = own_prediction(run, atoms)
        atoms.calc = calculator(tmp_path / "stock.pt")
        assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-6)
        np.testing.assert_allclose(atoms.get_forces(), forces, atol=1e-6)
        ours = potential.evaluate([atoms])
        assert ours.energies[0] == pytest.approx(energy, abs=1e-6)
        np.testing.assert_allclose(ours.forces[0], forces, atol=1e-6)


@pytest.mark.slow
def test_the_file_needs_nothing_of_ours(make_run, tmp_path):
    _, source = trained(make_run, tmp_path / "inference_ckpt.pt")
    export_checkpoint(source, tmp_path / "stock.pt")
    script = (
        "import sys; sys.modules['hint_fairchem'] = sys.modules['hint_plugins'] = None\n"
        "from fairchem.core.units.mlip_unit import load_predict_unit\n"
        f"unit = load_predict_unit({str(tmp_path / 'stock.pt')!r}, device='cpu')\n"
        "assert sorted(unit.tasks) == ['energy', 'forces', 'stress'], sorted(unit.tasks)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]


def test_bad_input(make_run, tmp_path):
    (tmp_path / "text.pt").write_text("no checkpoint")
    torch.save({"a": 1}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="no such file"):
        export_checkpoint(tmp_path / "none.pt", tmp_path / "out.pt")
    with pytest.raises(InputError, match="no checkpoint that torch can read"):
        export_checkpoint(tmp_path / "text.pt", tmp_path / "out.pt")
    with pytest.raises(InputError, match="holds a dict, not a fairchem"):
        export_checkpoint(tmp_path / "other.pt", tmp_path / "out.pt")
    with pytest.raises(InputError, match=r"holds no inference_ckpt\.pt"):
        export_checkpoint(tmp_path, tmp_path / "out.pt")
    with pytest.raises(InputError, match="exists"):
        export_checkpoint(tmp_path / "other.pt", tmp_path / "text.pt")
    assert not (tmp_path / "out.pt").exists()
    assert load_potential(str(tmp_path / "other.pt"), torch.device("cpu"), None) is None
    assert load_potential(str(tmp_path / "text.pt"), torch.device("cpu"), None) is None


def test_potential_in_double_precision(make_run, tmp_path):
    """Raw checkpoint of a HINT run: exact Hessians that are the differences of its forces."""
    _, source = trained(make_run, tmp_path / "inference_ckpt.pt", "normalizer.rmsd=1.7")
    potential = Potential.load(source, "cpu", "float64")
    atoms = molecules(1)[0]
    exact = potential.hessian(atoms)
    differences = potential.hessian(atoms, step=1e-4)
    assert np.abs(exact).max() > 1e-3
    np.testing.assert_allclose(exact, differences, atol=1e-6 * np.abs(exact).max())
    forces = potential.evaluate([atoms]).forces[0]
    step = 1e-4
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[1, 2] += sign * step
        forces[1, 2] += sign * potential.evaluate([moved]).energies[0] / (2 * step)
    assert abs(forces[1, 2]) < 1e-7
    with pytest.raises(PotentialError, match="has no data set 'omol'"):
        Potential.load(f"{source}#omol", "cpu")


def test_the_folder_of_a_checkpoint_is_a_potential(make_run, tmp_path):
    folder = tmp_path / "final"
    folder.mkdir()
    save(make_run(start=False), folder / "inference_ckpt.pt")
    atoms = molecules(1)
    expected = Potential.load(folder / "inference_ckpt.pt", "cpu", "float64").evaluate(atoms).energies[0]
    for spec in (folder, f"{folder}#mol"):
        found = Potential.load(spec, "cpu", "float64").evaluate(atoms).energies[0]
        assert found == pytest.approx(expected, rel=1e-12)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PotentialError, match="no reader knows"):
        Potential.load(str(tmp_path / "empty"), "cpu")


def test_doctor_tests_a_checkpoint_as_training_does(make_run, tmp_path):
    """eSCN-MD has torch's LayerNorm, which training makes exact."""
    potential = Potential.load(save(make_run(start=False), tmp_path / "toy.pt"), "cpu", "float64")
    report = check_training(potential)
    assert report["ok"], report
    assert len(report["made_exact"]) > 0
    assert any(type(module) is torch.nn.LayerNorm for module in potential.backend.model.modules())


def test_stress_of_crystals_beside_molecules(make_run, tmp_path):
    run = make_run(start=False)
    potential = Potential.load(save(run, tmp_path / "ckpt.pt"), "cpu", "float64")
    crystal = crystals(1)[0]
    found = potential.evaluate([molecules(1)[0], crystal], stress=True)
    assert np.isnan(found.stresses[0]).all()
    strain, energies = 1e-4, []
    for sign in (1, -1):
        moved = crystal.copy()
        moved.set_cell(crystal.cell * (1 + sign * strain), scale_atoms=True)
        energies.append(potential.evaluate([moved]).energies[0])
    pressure = (energies[0] - energies[1]) / (2 * strain) / crystal.get_volume()
    assert found.stresses[1][:3].sum() == pytest.approx(pressure, rel=1e-4, abs=1e-9)


def replaced(config):
    """minimal.yaml with AlphaNet: Hydra merges blocks, so the model block is written anew."""
    text = (config / "minimal.yaml").read_text()
    start = text.index("      backbone:")
    stop = text.index("    optimizer_fn:")
    block = "".join(
        f"      {line}\n"
        for line in (
            "backbone: {model: hint_fairchem.alphanet.AlphaNetBackbone, num_layers: 2, hidden_channels: 8,",
            "  main_chi1: 4, mp_chi1: 4, chi2: 2, frame_channels: 4, num_radial: 4, elements: [1, 6, 7, 8, 29]}",
            "heads: {efs: {module: hint_fairchem.alphanet.AlphaNetHead}}",
        )
    )
    return text[:start] + block + text[stop:]


def test_alphanet_trains_and_loads_in_the_hosts_calculator(make_run, tmp_path, monkeypatch):
    (tmp_path / "minimal.yaml").write_text(replaced(fairchem_run.CONFIGS))
    monkeypatch.setattr(fairchem_run, "CONFIGS", tmp_path)
    run, source = trained(make_run, tmp_path / "inference_ckpt.pt", small=False)
    assert max(run.hessian_losses) > 0
    done = export_checkpoint(source, tmp_path / "alphanet.pt")
    assert "hint_fairchem.alphanet.AlphaNetBackbone" in done.remaining
    for atoms in molecules(2):
        energy, forces = own_prediction(run, atoms)
        atoms.calc = calculator(tmp_path / "alphanet.pt")
        assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-6)
        np.testing.assert_allclose(atoms.get_forces(), forces, atol=1e-6)
    crystal = crystals(1)[0]
    crystal.calc = calculator(tmp_path / "alphanet.pt")
    potential = Potential.load(tmp_path / "alphanet.pt", "cpu", "float64")
    found = potential.evaluate([crystal], stress=True)
    np.testing.assert_allclose(crystal.get_stress(), found.stresses[0], atol=1e-6)
    hessian = potential.hessian(crystal)
    np.testing.assert_allclose(hessian, potential.hessian(crystal, step=1e-4), atol=1e-6 * np.abs(hessian).max())
