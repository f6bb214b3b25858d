"""The PdH study end to end, with a model whose answers are known: the harmonic reference itself."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pdh_study
import pytest
from pdh_study import REFERENCES, StudySettings, palladium_hydride, run_pdh

from hint_plugins.errors import HintError
from hint_recipes.crystals.finetune.data import read_labelled
from hint_recipes.crystals.phonons.harmonic import read_force_constants
from hint_recipes.crystals.superconductivity.electron_phonon import read_mode_couplings

pytestmark = pytest.mark.sscha
pytest.importorskip("sscha")


@pytest.mark.slow
@pytest.mark.parametrize("route", ["projected", "matdyn"])
def test_harmonic_model_gives_the_harmonic_answers(tmp_path, route):
    if route == "matdyn" and not shutil.which("matdyn.x"):
        pytest.skip("needs Quantum ESPRESSO")
    size = StudySettings(configurations=20, max_populations=2, route=route)
    options = {"model": "helpers.harmonic_pdh:HarmonicPdH", "isotopes": ("H", "D")}
    summary = run_pdh(tmp_path, size, **options)
    light, heavy = (summary["sscha"][name] for name in ("H", "D"))
    for result in (light, heavy):
        assert result["converged"]
        np.testing.assert_allclose(
            sorted(result["frequencies_gamma_cm1"])[3:], sorted(result["harmonic_frequencies_gamma_cm1"])[3:], atol=0.1
        )
    assert light["free_energy_supercell"] == pytest.approx(
        0.08776, abs=5e-4
    )  # zero-point energies of the reference, eV a cell
    assert heavy["free_energy_supercell"] == pytest.approx(0.06880, abs=5e-4)
    sources = summary["tc"]["sources"]
    for name in ("PdH", "PdD"):
        harmonic, sscha = sources[f"{name} harmonic"], sources[f"{name} SSCHA"]
        assert sscha["lambda"] == pytest.approx(harmonic["lambda"], rel=0.02)
        assert sscha["omega_log_K"] == pytest.approx(harmonic["omega_log_K"], rel=0.01)
    tc = [sources[f"{name} SSCHA"]["tc_eliashberg_K"]["0.125"] for name in ("PdH", "PdD")]
    assert tc[0] > tc[1] > 1  # harmonic phonons: the normal isotope effect
    for name in ("isotopes.csv", "bands.png", "tc.png", "tc/gap.png"):
        assert (tmp_path / name).stat().st_size > 100
    stamp = (tmp_path / "sscha-H" / "summary.json").stat().st_mtime_ns
    again = run_pdh(tmp_path, size, **options)
    assert (tmp_path / "sscha-H" / "summary.json").stat().st_mtime_ns == stamp
    assert again["sscha"]["H"]["free_energy"] == light["free_energy"]
    assert json.loads((tmp_path / "summary.json").read_text())["tc"]["unstable"] == {}


@pytest.mark.parametrize("wrong", [{"isotopes": ("He",)}, {"kpoints": 7}, {"route": "direct"}])
def test_wrong_choices_are_named(tmp_path, wrong):
    isotopes = wrong.pop("isotopes", ("H",))
    with pytest.raises(HintError, match="choose"):
        run_pdh(tmp_path, StudySettings(**wrong), isotopes=isotopes)
    assert not list(tmp_path.iterdir())


def test_script_says_its_options_and_its_refusals(tmp_path):
    """The script as it is run: help with units and defaults, and one sentence for what does not fit."""
    words = [sys.executable, str(Path(pdh_study.__file__))]
    shown = subprocess.run([*words, "--help"], capture_output=True, text=True, check=True).stdout
    assert "Largest number of SSCHA populations" in shown
    refused = subprocess.run([*words, "--out", tmp_path / "a", "--kpoints", "5"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr.strip() == "hint: no data at 5 k points an axis: choose among 6, 12"
    assert not list(tmp_path.iterdir())


def test_constants_of_the_study():
    crystal = palladium_hydride()
    assert crystal.get_volume() == pytest.approx(4.085**3 / 4)
    for reference in REFERENCES.values():
        cells = [atoms for file in (reference.cells, reference.held_out) for atoms in read_labelled(file)]
        for atoms in cells:
            above = atoms.get_potential_energy() - reference.cell_energy * len(atoms) / 2
            assert 0 < above < 20
            np.testing.assert_allclose(atoms.get_forces().sum(0), 0, atol=1e-3)
        _, harmonic = read_mode_couplings(reference.coupling / "elph_dir", reference.coupling / "dyn", 3)
        other = read_force_constants(reference.hessian, crystal)
        np.testing.assert_allclose(harmonic.frequencies(), other.frequencies(), atol=0.1)
    assert pytest.approx(-254.51677642 * 13.605693, abs=1e-3) == REFERENCES[6].cell_energy
