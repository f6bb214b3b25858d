"""The phonon study: one command, several sources, bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from pdh_study import DATA

from hint_plugins.errors import InputError
from hint_plugins.potential import PotentialError
from hint_plugins.settings import ConfigError
from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.force_constants.from_potential import force_constants_from_potential
from hint_recipes.crystals.inputs import read_crystal
from hint_recipes.crystals.phonons.harmonic import (
    compare,
    density_of_states,
    harmonic,
    read_force_constants,
    save_force_constants,
)
from hint_recipes.crystals.phonons.settings import PhononSettings
from hint_recipes.crystals.phonons.study import compute_phonons

pytest.importorskip("phonopy")


def pdh() -> Atoms:
    a = 4.085
    cell = np.array([[0, a, a], [a, 0, a], [a, a, 0]]) / 2
    return Atoms("PdH", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=cell, pbc=True)


def q2r_file(directory: Path) -> Path:
    """The shipped force constants with ``ibrav = 0`` and explicit vectors, which needs no CellConstructor."""
    lines = (DATA / "dfpt_222" / "pdh.fc").read_text().splitlines(keepends=True)
    fields = lines[0].split()
    fields[2] = "0"
    vectors = ["-0.5 0.0 0.5\n", "0.0 0.5 0.5\n", "-0.5 0.5 0.0\n"]
    path = directory / "explicit.fc"
    path.write_text("".join([" ".join(fields) + "\n", *vectors, *lines[1:]]))
    return path


@pytest.fixture(scope="module")
def potential():
    from hint_plugins.potential import Potential

    return Potential.load("emt")


def test_model_hessian_from_unit_cell_columns_is_the_whole_hessian(potential):
    crystal = bulk("Pd", a=3.9, cubic=True)
    constants = force_constants_from_potential(potential, crystal, (2, 1, 1))
    np.testing.assert_allclose(constants.hessian, potential.hessian(constants.supercell), atol=1e-7)


def test_free_energy_against_the_closed_formula(potential):
    """The harmonic oscillator sum over the same mesh, written out."""
    from ase.units import _c, _e, _hplanck, kB

    constants = (
        force_constants_from_potential(potential, bulk("Pd", a=3.9), (2, 2, 2)).symmetrized().acoustic_sum_rule()
    )
    result = harmonic(constants, mesh=(2, 2, 2), temperatures=[0.0, 300.0], points=5)
    energies = np.sort(constants.frequencies().ravel())[3:] * 100 * _c * _hplanck / _e
    beta = 1 / (kB * 300)
    cells = constants.num_cells
    assert result.thermal[0]["free_energy_eV"] == pytest.approx(energies.sum() / 2 / cells, rel=1e-5)
    exact = (energies / 2 + np.log(1 - np.exp(-beta * energies)) / beta).sum() / cells
    assert result.thermal[1]["free_energy_eV"] == pytest.approx(exact, rel=1e-4)
    assert [m["mesh"] for m in result.meshes] == [(1, 1, 1), (2, 2, 2)]


def test_density_of_states_counts_the_modes():
    frequencies = np.random.default_rng(0).uniform(50, 600, (20, 6))
    dos = density_of_states(frequencies, np.ones(20), 10.0)
    assert np.trapezoid(dos[:, 1], dos[:, 0]) == pytest.approx(6, rel=1e-4)


def test_bands_pass_through_the_commensurate_points(tmp_path):
    constants = read_force_constants(q2r_file(tmp_path), pdh()).acoustic_sum_rule()
    result = harmonic(constants, mesh=(2, 2, 2), temperatures=[0.0], points=11)
    gamma = result.bands.frequencies[0][0]
    np.testing.assert_allclose(gamma, constants.frequencies()[0], atol=1e-3)
    assert {label for _, label in result.bands.labels} >= {"G", "X", "L"}


def test_supercells_repeat_at_least_once():
    for name in ("supercell", "mesh"):
        with pytest.raises(ConfigError, match=f"--{name} '0 2 2': repetitions must be positive"):
            PhononSettings(**{name: (0, 2, 2)})


def test_command_compares_models_with_a_reference(tmp_path):
    crystal = bulk("Pd", a=3.9)
    crystal.write(tmp_path / "cell.extxyz")
    from hint_plugins.potential import Potential

    exact = force_constants_from_potential(Potential.load("emt"), crystal, (2, 2, 2))
    save_force_constants(exact, tmp_path, "reference")
    settings = PhononSettings(mesh=(2, 2, 2), t_max=300, t_step=150)
    for reference in ("reference.yaml", "reference.npz"):
        out = tmp_path / reference.replace(".", "-")
        summary = compute_phonons(crystal, ["emt", "lj"], out, settings, reference=tmp_path / reference).summary
        emt, lj = summary["sources"]["emt"], summary["sources"]["lj"]
        assert emt["difference"]["frequency_max_error_cm1"] < 1e-3
        assert lj["difference"]["frequency_mae_cm1"] > 1
        assert json.loads((out / "summary.json").read_text())["n_imaginary"] == 0
        for name in ("bands.png", "dos.png", "thermal.png", "bands.csv", "frequencies.csv", "phonopy-emt.yaml"):
            assert (out / name).stat().st_size > 100


def test_isotopes_scale_hydrogen_modes(tmp_path):
    pdh().write(tmp_path / "cell.extxyz")
    results = [
        compute_phonons(
            read_crystal(tmp_path / "cell.extxyz", m),
            None,
            tmp_path / f"out{len(m)}",
            PhononSettings(mesh=(2, 2, 2)),
            reference=q2r_file(tmp_path),
        ).summary["frequencies_gamma_cm1"][-1]
        for m in ([], ["H=2.014"])
    ]
    reduced = [1 / (1 / m + 1 / 106.42) for m in (1.008, 2.014)]
    assert results[0] / results[1] == pytest.approx(np.sqrt(reduced[1] / reduced[0]), rel=1e-5)


def test_bad_input(tmp_path):
    bulk("Pd").write(tmp_path / "cell.extxyz")
    cell = bulk("Pd")
    with pytest.raises(InputError, match="--model"):
        compute_phonons(cell, None, tmp_path)
    with pytest.raises(PotentialError, match="no such"):
        compute_phonons(cell, "nothing-here", tmp_path)
    with pytest.raises(ConfigError, match="relax: choose none, positions, cell"):
        PhononSettings(relax="maybe")
    with pytest.raises(InputError, match="cannot read"):
        read_crystal(tmp_path / "none.cif")
    with pytest.raises(InputError, match="mass"):
        read_crystal(tmp_path / "cell.extxyz", ["Pd=heavy"])
    Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.7]]).write(tmp_path / "molecule.xyz")
    with pytest.raises(InputError, match="periodic"):
        read_crystal(tmp_path / "molecule.xyz")
    with pytest.raises(InputError, match="periodic"):
        compute_phonons(Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.7]]), "emt", tmp_path)
    with pytest.raises(InputError, match="no force constants"):
        compute_phonons(cell, "emt", tmp_path, reference=q2r_file(tmp_path))
    with pytest.raises(InputError, match="supercell"):
        compute_phonons(pdh(), "emt", tmp_path, PhononSettings(supercell=(3, 3, 3)), reference=q2r_file(tmp_path))
    assert not (tmp_path / "summary.json").exists()


def test_result_is_replaced_only_when_asked(tmp_path):
    """A model may be a calculator, and several models are told apart."""
    settings = PhononSettings(mesh=(2, 2, 2), t_max=0)
    result = compute_phonons(bulk("Pd", a=3.9), EMT(), tmp_path / "out", settings)
    (name,) = result.summary["sources"]
    assert result.sources[name].num_imaginary == result.summary["n_imaginary"] == 0
    assert f"{name}: modes from" in result.report()
    text = compute_phonons(bulk("Pd", a=3.9), "emt", tmp_path / "text", settings).summary
    assert text["sources"]["emt"]["highest_cm1"] == result.summary["sources"][name]["highest_cm1"]
    with pytest.raises(InputError, match="earlier result"):
        compute_phonons(bulk("Pd", a=3.9), "emt", tmp_path / "out", settings)
    compute_phonons(bulk("Pd", a=3.9), "emt", tmp_path / "out", settings, overwrite=True)
    assert list(json.loads((tmp_path / "out" / "summary.json").read_text())["sources"]) == ["emt"]


def test_compare_refuses_another_crystal():
    a = ForceConstants(bulk("Pd"), (1, 1, 1), np.eye(3))
    with pytest.raises(InputError, match="supercells differ"):
        compare(a, ForceConstants(bulk("Pd"), (2, 1, 1), np.eye(6)))
    with pytest.raises(InputError, match="another crystal"):
        compare(a, ForceConstants(bulk("Cu"), (1, 1, 1), np.eye(3)))


@pytest.mark.sscha
def test_q2r_and_dynamical_matrices_agree():
    pytest.importorskip("cellconstructor")
    by_q = read_force_constants(DATA / "dfpt_222" / "dyn", pdh()).acoustic_sum_rule()
    by_r = read_force_constants(DATA / "dfpt_222" / "pdh.fc", pdh()).acoustic_sum_rule()
    np.testing.assert_allclose(by_q.frequencies(), by_r.frequencies(), atol=0.05)
    np.testing.assert_allclose(by_q.hessian, by_r.hessian, atol=1e-4)


def test_q2r_in_any_setting_of_the_cell(tmp_path):
    """The force between a pair of atoms does not depend on the cell vectors used to name them."""
    file = q2r_file(tmp_path)
    own, other = read_force_constants(file, pdh()), pdh()
    other.set_cell(np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 1]]) @ other.cell.array)
    moved = read_force_constants(file, other)
    back = ForceConstants.from_supercell(own.primitive, moved.supercell, moved.hessian)
    np.testing.assert_allclose(back.hessian, own.hessian, atol=1e-12)


def test_imaginary_modes_left_out_are_said(tmp_path):
    """Body-centred copper is unstable: how many modes the free energy lacks stands on terminal, table and picture."""
    settings = PhononSettings(supercell=(2, 2, 2), mesh=(4, 4, 4), t_max=300, t_step=300)
    result = compute_phonons(bulk("Cu", "bcc", a=2.87), "emt", tmp_path, settings)
    (source,) = result.summary["sources"].values()
    finest = source["free_energy"][-1]
    assert finest["num_imaginary"] > 0
    assert finest["num_modes"] == 4**3 * 3
    said = f"{finest['num_imaginary']} of 192 modes on the 4x4x4 mesh are imaginary and left out"
    assert said in result.report()
    header, row, *_ = (tmp_path / "thermal.csv").read_text().splitlines()
    assert dict(zip(header.split(","), row.split(","), strict=True))["imaginary_modes_left_out"] == str(
        finest["num_imaginary"]
    )


@pytest.mark.parametrize("width", [10.0, 2.0])
def test_densities_of_elements_add_up(width, tmp_path):
    """To the whole density, and each to three modes per atom."""
    constants = read_force_constants(q2r_file(tmp_path), pdh()).symmetrized().acoustic_sum_rule()
    result = harmonic(constants, mesh=(4, 4, 4), temperatures=[0.0], points=3, smearing=width)
    total = sum(result.dos_of_elements.values())
    np.testing.assert_allclose(total, result.dos[:, 1], atol=0.03 * result.dos[:, 1].max())
    for part in result.dos_of_elements.values():
        assert np.trapezoid(part, result.dos[:, 0]) == pytest.approx(3, rel=2e-3)
    assert set(result.dos_of_elements) == {"Pd", "H"}
