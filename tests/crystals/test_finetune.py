"""The hydride recipe: training set, trainer command, checks; the trainer itself at the smallest size."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from hint_plugins.errors import InputError
from hint_plugins.labels.checks import check_label
from hint_plugins.labels.hessian_label import HessianLabel
from hint_plugins.potential import Potential
from hint_recipes.crystals.finetune.check import check
from hint_recipes.crystals.finetune.data import build, displaced_cells, read_labelled
from hint_recipes.crystals.finetune.held_out import harmonic_errors, held_out
from hint_recipes.crystals.finetune.line_scan import line_scan, soft_mode
from hint_recipes.crystals.finetune.settings import FinetuneSettings
from hint_recipes.crystals.finetune.study import finetune_hydride
from hint_recipes.crystals.finetune.trainer import SETTINGS, trainer_command
from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.force_constants.from_potential import force_constants_from_potential
from hint_recipes.crystals.phonons.harmonic import save_force_constants

pytest.importorskip("phonopy")


def labelled(atoms: Atoms) -> Atoms:
    atoms = atoms.copy()
    atoms.calc = EMT()
    values = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
    atoms.calc = SinglePointCalculator(atoms, **values)
    return atoms


@pytest.fixture(scope="module")
def crystal() -> Atoms:
    return bulk("Pd", a=3.95, cubic=True)


@pytest.fixture(scope="module")
def constants(crystal) -> ForceConstants:
    return force_constants_from_potential(Potential.load("emt"), crystal, (1, 1, 2))


@pytest.fixture(scope="module")
def cells(crystal) -> list[Atoms]:
    return [labelled(atoms) for atoms in displaced_cells(crystal, 8, sigma=0.1, seed=1)]


@pytest.fixture(scope="module")
def energy(crystal) -> float:
    return labelled(crystal).get_potential_energy()


def test_training_set(constants, cells, energy):
    data = build(constants, cells, cell_energy=energy, valid_fraction=0.25, copies=3)
    assert len(data.train) == 3 + 6
    assert len(data.valid) == 2 + 1
    supercell = data.train[0]
    assert supercell.info["REF_energy"] == pytest.approx(labelled(constants.supercell).get_potential_energy(), abs=1e-9)
    report = check_label(HessianLabel.full(supercell.info["REF_hessian"]), supercell)
    assert report.ok, report.reasons
    assert report.sum_rule < 1e-10
    assert all("REF_stress" in atoms.info for atoms in data.train[3:])
    plain = build(constants, cells, cell_energy=energy, hessians=False, valid_fraction=0.25)
    assert not any("REF_hessian" in atoms.info for atoms in plain.train + plain.valid)


def test_high_cells_are_left_out_and_named(constants, cells, energy):
    above = sorted(atoms.get_potential_energy() - energy for atoms in cells)
    data = build(constants, cells, cell_energy=energy, max_energy=above[4])
    assert len(data.skipped) == 3
    assert "above the undisplaced cell" in data.skipped[0]
    with pytest.raises(InputError, match="remain"):
        build(constants, cells, cell_energy=energy, max_energy=-4.0)
    with pytest.raises(InputError, match="--cell-energy"):
        build(constants, cells, cell_energy=energy + 100)


def test_files_keep_every_digit_of_the_hessian(tmp_path, constants, cells, energy):
    from hint_recipes.crystals.finetune.data import write as write_data

    data = build(constants, cells, cell_energy=energy)
    train, _ = write_data(data, tmp_path)
    back = read(train, "0")
    np.testing.assert_allclose(
        np.asarray(back.info["REF_hessian"]).reshape(constants.hessian.shape),
        constants.acoustic_sum_rule().hessian,
        atol=1e-7,
    )


def test_command_line():
    words = trainer_command(Path("train.xyz"), Path("valid.xyz"), name="m", epochs=10, seed=3)
    assert "--plugins=hint" in words
    assert "--hessian_ramp_end=5.0" in words
    assert "--seed=3" in words
    plain = trainer_command(Path("train.xyz"), Path("valid.xyz"), name="m", epochs=10, seed=3, hessians=False)
    assert not any("hint" in w or "hessian" in w for w in plain)
    tuned = trainer_command(
        Path("t"), Path("v"), name="m", epochs=1, seed=0, foundation=Path("/a/b.model"), options={"lr": "0.1"}
    )
    assert "--foundation_model=/a/b.model" in tuned
    assert "--lr=0.1" in tuned
    assert not any(w.startswith("--hidden_irreps") for w in tuned)


def test_checks_of_a_perfect_model(tmp_path, constants, crystal, energy):
    potential = Potential.load("emt")
    test = [labelled(a) for a in displaced_cells(constants.supercell, 2, sigma=0.05)]
    result = check({"emt": potential}, constants, tmp_path, cell_energy=energy, test=test)
    model = result["models"]["emt"]
    assert model["hessian_mae"] < 1e-6
    assert model["frequency_max_error_cm1"] < 1e-3
    assert model["held_out"]["forces_mae"] < 1e-9
    assert model["held_out"]["energy_mae_per_atom"] < 1e-9
    assert result["harmonic_held_out"]["forces_mae"] > 1e-3
    assert (tmp_path / "line_scan.png").exists()
    assert (tmp_path / "bands.png").exists()


def test_labelled_line_scan(tmp_path, constants, energy):
    potential = Potential.load("emt")
    check({"emt": potential}, constants, tmp_path, cell_energy=energy)
    scan = read(tmp_path / "line_scan.extxyz", ":")
    assert len(scan) == 9
    assert scan[0].info["amplitude_A"] == -scan[-1].info["amplitude_A"] == -0.6
    scan = [labelled(atoms) for atoms in scan]
    result = check({"emt": potential}, constants, tmp_path, cell_energy=energy, scan=scan)
    assert result["models"]["emt"]["line_scan_mae"] < 1e-8
    assert result["line_scan_reference"][0]["energy"] > 0.1
    assert result["line_scan_reference"][4]["energy"] == pytest.approx(0, abs=1e-8)
    del scan[0].info["amplitude_A"]
    with pytest.raises(InputError, match=r"line_scan\.extxyz"):
        check({"emt": potential}, constants, tmp_path, cell_energy=energy, scan=scan)


def test_line_scan_is_harmonic_for_small_displacements(constants):
    pattern, soft = soft_mode(constants)
    ruled = constants.acoustic_sum_rule()
    assert soft == pytest.approx(np.sort(ruled.frequencies().ravel())[3], abs=1e-4)
    assert np.linalg.norm(pattern, axis=1).max() == pytest.approx(1)
    energies = line_scan(Potential.load("emt"), constants, pattern, np.array([-0.01, 0.01]))
    quadratic = 0.5e-4 * pattern.ravel() @ ruled.hessian @ pattern.ravel()
    assert energies.mean() == pytest.approx(quadratic, rel=0.01)


def test_harmonic_errors_vanish_for_harmonic_data(constants):
    supercell = constants.supercell
    moved = supercell.copy()
    shift = np.random.default_rng(0).normal(scale=0.05, size=supercell.positions.shape)
    moved.positions += shift
    forces = -(constants.acoustic_sum_rule().hessian @ shift.ravel()).reshape(-1, 3)
    moved.calc = SinglePointCalculator(moved, energy=0.0, forces=forces)
    assert harmonic_errors(constants, [moved])["forces_mae"] < 1e-12


def test_energy_offset_is_removed(constants, energy):
    test = [labelled(a) for a in displaced_cells(constants.supercell, 2, sigma=0.05)]
    shifted = held_out(Potential.load("emt"), test, zero=0.5)
    assert shifted["energy_mae_per_atom"] == pytest.approx(0.5, abs=1e-9)


def test_prepared_only(tmp_path, crystal, constants, cells, energy):
    inputs = write_inputs(tmp_path, crystal, constants, cells)
    settings = FinetuneSettings(compare_without=True)
    result = finetune_hydride(
        **inputs, directory=tmp_path / "out", settings=settings, cell_energy=energy, prepare_only=True
    )
    assert result.summary["n_train"] == 8
    for name in ("hint", "plain"):
        command = json.loads((tmp_path / "out" / name / "command.json").read_text())["command"]
        assert command[0] == "mace_run_train"
        assert ("--plugins=hint" in command) is (name == "hint")


def write_inputs(directory: Path, crystal: Atoms, constants: ForceConstants, cells: list[Atoms]) -> dict[str, Path]:
    write(directory / "cell.extxyz", crystal)
    write(directory / "cells.extxyz", cells)
    save_force_constants(constants, directory, "reference")
    return {
        "cell": directory / "cell.extxyz",
        "cells": directory / "cells.extxyz",
        "hessian": directory / "reference.npz",
    }


def test_a_training_with_other_options_is_kept(tmp_path, crystal, constants, cells, energy, monkeypatch):
    inputs = write_inputs(tmp_path, crystal, constants, cells)
    out = tmp_path / "out"
    out.mkdir()
    options = {**inputs, "directory": out, "cell_energy": energy, "prepare_only": True}
    seven = FinetuneSettings(epochs=7)
    finetune_hydride(**options)
    finetune_hydride(**options, settings=seven)
    (out / "hint" / "checkpoints").mkdir()
    (out / "hint" / "checkpoints" / "hint_epoch-0.pt").write_text("")
    finetune_hydride(**options, settings=seven)
    for change in ({"epochs": 8}, {"epochs": 7, "max_energy": 0.1}):
        with pytest.raises(InputError, match="other data or options"):
            finetune_hydride(**options, settings=FinetuneSettings(**change))
    with pytest.raises(InputError, match="no such file"):
        finetune_hydride(**options, foundation=tmp_path / "none.model")
    monkeypatch.setattr("hint_recipes.crystals.finetune.study.training_device", lambda device: "mps")
    finetune_hydride(**options, settings=seven)  # on another machine
    assert "--device=mps" in json.loads((out / "hint" / "command.json").read_text())["command"]


def test_foundation_of_alphanet():
    words = trainer_command(
        Path("t"), Path("v"), name="m", epochs=1, seed=0, foundation=Path("a.model"), options={"model": "AlphaNet"}
    )
    assert f"--alphanet_checkpoint={Path('a.model').resolve()}" in words
    assert "--model=AlphaNet" in words
    assert f"--r_max={SETTINGS['r_max']}" in words  # a training of this command has this cutoff
    assert not any(word.startswith("--foundation") for word in words)


def test_bad_structures(tmp_path, crystal):
    write(tmp_path / "bare.extxyz", crystal)
    with pytest.raises(InputError, match="structure 0 has no energy"):
        read_labelled(tmp_path / "bare.extxyz")
    with pytest.raises(InputError, match="cannot read"):
        read_labelled(tmp_path / "none.extxyz")


@pytest.mark.mace
@pytest.mark.slow
def test_command_trains_and_checks(tmp_path, crystal, constants, cells, energy):
    pytest.importorskip("mace")
    inputs = write_inputs(tmp_path, crystal, constants, cells)
    write(tmp_path / "test.extxyz", [labelled(a) for a in displaced_cells(constants.supercell, 2, sigma=0.05)])
    words = [
        "finetune-hydride", inputs["cell"], "--hessian", inputs["hessian"], "--cells", inputs["cells"],
        "--cell-energy", energy, "--test", tmp_path / "test.extxyz", "--out", tmp_path / "out", "--epochs", 1,
        "--option", "hidden_irreps=4x0e", "--option", "r_max=3.5", "--option", "hessian_selftest=False",
        "--option", "correlation=2", "--option", "MLP_irreps=4x0e", "--option", "radial_MLP=[8]",
        "--option", "hessian_engine=reverse",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", "from hint_plugins.cli.main import main; main()", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["models"]["hint"]["hessian_mae"] > 0
    assert np.isfinite(summary["models"]["hint"]["held_out"]["forces_mae"])
    assert "Hessian label" in (tmp_path / "out" / "hint" / "hint.out").read_text()


@pytest.mark.parametrize(("epochs", "interval"), [(1, 1), (5, 1), (9, 1), (10, 1), (50, 5), (500, 10)])
def test_short_trainings_are_evaluated_too(epochs, interval):
    """With MACE's interval of ten a training of nine epochs ends with the model of epoch 0."""
    words = trainer_command(Path("train.xyz"), Path("valid.xyz"), name="m", epochs=epochs, seed=0)
    assert f"--eval_interval={interval}" in words


def test_the_cell_brings_its_own_energy_and_stress(crystal, constants, cells, energy, tmp_path):
    from hint_recipes.crystals.finetune.data import cell_label

    write(tmp_path / "bare.extxyz", crystal)
    write(tmp_path / "labelled.extxyz", labelled(crystal))
    own, stress = cell_label(tmp_path / "labelled.extxyz")
    assert own == pytest.approx(energy)
    np.testing.assert_allclose(stress, labelled(crystal).get_stress(voigt=False), atol=1e-10)
    assert cell_label(tmp_path / "bare.extxyz", -3.0) == (-3.0, None)
    with pytest.raises(InputError, match="give --cell-energy"):
        cell_label(tmp_path / "bare.extxyz")
    with pytest.raises(InputError, match="leave one out"):
        cell_label(tmp_path / "labelled.extxyz", energy + 1)
    data = build(constants, cells, cell_energy=own, cell_stress=stress)
    np.testing.assert_allclose(data.train[0].info["REF_stress"], stress.ravel())


def test_pressure_and_stress_errors(crystal, constants, cells, energy, tmp_path):
    """EMT against its own labels is right; against labels that are 1 GPa off it is 1 GPa off."""
    from ase.units import GPa

    potential = Potential.load("emt")
    stress = labelled(crystal).get_stress(voigt=False)
    shifted = stress - np.eye(3) * GPa
    test = [labelled(crystal.repeat((1, 1, 2)))]
    found = check({"m": potential}, constants, tmp_path, cell_energy=energy, cell_stress=shifted, test=test)["models"][
        "m"
    ]
    assert found["pressure_error_GPa"] == pytest.approx(-1.0, abs=1e-6)
    assert found["pressure_GPa"] == pytest.approx(-np.trace(stress) / 3 / GPa, rel=1e-6)
    assert found["held_out"]["stress_mae_GPa"] == pytest.approx(0, abs=1e-6)
    from hint_recipes.crystals.finetune.study import describe

    assert "pressure of the undisplaced cell off by -1.00 GPa" in describe(found)
