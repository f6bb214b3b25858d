"""Reference force constants: every file gives the frequencies of the Hessian that it was written from."""

import lzma
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from helpers.q2r import springs, write_q2r
from pdh_study import DATA

from hint_plugins.datasets.q2r import dipole_blocks
from hint_plugins.errors import InputError
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.settings import ConfigError
from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.phonons.harmonic import read_force_constants

phonopy = pytest.importorskip("phonopy")
GRID = (2, 2, 2)
BORN = np.array([1.09, -1.09])[:, None, None] * np.eye(3)


def nacl():
    return bulk("NaCl", "rocksalt", a=5.6)


def short_ranged():
    return springs(nacl(), GRID, 0.8, 2.9)


def phonopy_kbr(path, primitive_matrix, **nac):
    """Conventional cell, compact force constants of the primitive cell, Born charges."""
    cell = bulk("KBr", "rocksalt", a=6.6, cubic=True)
    phonon = phonopy.Phonopy(
        phonopy.structure.atoms.PhonopyAtoms(
            symbols=cell.get_chemical_symbols(), cell=cell.cell.array, positions=cell.positions
        ),
        np.eye(3),
        primitive_matrix=primitive_matrix,
    )
    hessian = springs(cell, (1, 1, 1), 0.4, 3.4)
    blocks = hessian.reshape(8, 3, 8, 3).swapaxes(1, 2)
    phonon.force_constants = np.ascontiguousarray(blocks[phonon.primitive.p2s_map])
    if nac:
        phonon.nac_params = nac
    phonon.save(path, settings={"force_constants": True})
    return cell, ForceConstants(cell, (1, 1, 1), hessian).frequencies()


FCC = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2


@pytest.mark.parametrize("suffix", [".yaml", ".yaml.xz"])
def test_a_conventional_cell_with_a_primitive_matrix(tmp_path, suffix):
    cell, expected = phonopy_kbr(tmp_path / "a.yaml", FCC)
    if suffix != ".yaml":
        (tmp_path / f"a{suffix}").write_bytes(lzma.compress((tmp_path / "a.yaml").read_bytes()))
    found = read_force_constants(tmp_path / f"a{suffix}", cell).frequencies()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    with pytest.raises(InputError, match="conventional supercell the conventional cell"):
        read_force_constants(tmp_path / f"a{suffix}", bulk("KBr", "rocksalt", a=6.6))


def test_born_charges_are_taken_and_mentioned(tmp_path, capsys):
    born = 1.13 * np.array([1, -1])[:, None, None] * np.eye(3)
    cell, expected = phonopy_kbr(tmp_path / "a.yaml", FCC, born=born, dielectric=2.4 * np.eye(3), factor=14.4)
    found = read_force_constants(tmp_path / "a.yaml", cell)
    np.testing.assert_allclose(found.frequencies(), expected, atol=1e-4)
    assert "K +1.13, Br -1.13 e and dielectric constant 2.40" in capsys.readouterr().err
    signs = np.where(cell.symbols == "K", 1.13, -1.13)
    np.testing.assert_allclose(found.tensors.born, signs[:, None, None] * np.eye(3), atol=1e-12)


def test_polar_crystals_of_q2r(tmp_path, capsys):
    """The file holds short-ranged springs; with the dipoles the optical modes at the zone boundary move by 40 cm^-1."""
    cell, short = nacl(), short_ranged()
    path = write_q2r(tmp_path / "nacl.fc", cell, GRID, short, born=BORN, dielectric=2.43 * np.eye(3))
    alat = np.linalg.norm(cell.cell[0])
    dipoles = ForceConstants(cell, GRID, np.zeros_like(short))
    from ase.units import Bohr, Rydberg

    blocks = dipole_blocks(cell.positions / alat, cell.cell.array / alat, BORN, 2.43 * np.eye(3), GRID, alat / Bohr)
    columns = [np.roll(blocks, shift, (0, 1, 2)).reshape(48, 6) for shift in np.ndindex(*GRID)]
    expected = dipoles.replace(short + np.concatenate(columns, 1) * Rydberg / Bohr**2).frequencies()
    found = read_force_constants(path, cell)
    np.testing.assert_allclose(found.frequencies(), expected, atol=1e-3)
    assert np.abs(expected - dipoles.replace(short).frequencies()).max() > 20
    assert "Na +1.09, Cl -1.09 e" in capsys.readouterr().err
    np.testing.assert_allclose(found.tensors.born, BORN, atol=1e-12)


def test_isotopes_of_q2r(tmp_path, capsys):
    cell, short = nacl(), short_ranged()
    heavy = [45.98, 35.453]
    path = write_q2r(tmp_path / "heavy.fc", cell, GRID, short, masses=heavy)
    found = read_force_constants(path, cell, file_masses=True)
    np.testing.assert_allclose(found.primitive.get_masses(), heavy, rtol=1e-6)
    other = nacl()
    other.set_masses(heavy)
    expected = ForceConstants(other, GRID, short).frequencies()
    np.testing.assert_allclose(found.frequencies(), expected, atol=1e-3)
    kept = read_force_constants(path, cell)
    np.testing.assert_array_equal(kept.primitive.get_masses(), cell.get_masses())
    assert "--mass Na=45.98" in capsys.readouterr().err
    assert kept.frequencies().max() > 1.1 * found.frequencies().max()


def test_labels_of_species_in_q2r(tmp_path):
    cell = bulk("MgO", "rocksalt", a=4.2)
    hessian = springs(cell, GRID, 0.8, 2.2)
    path = write_q2r(tmp_path / "x.fc", cell, GRID, hessian, labels=["Mg1", "O_s"])
    found = read_force_constants(path, cell).frequencies()
    np.testing.assert_allclose(found, ForceConstants(cell, GRID, hessian).frequencies(), atol=1e-3)


@pytest.mark.sscha
@pytest.mark.parametrize("labels", [("Pd1 ", "D   "), ("PD  ", "H_a "), ("Pd-x", "h   ")])
def test_labels_of_species_in_dynamical_matrices(tmp_path, labels):
    pytest.importorskip("cellconstructor")
    a = 4.085
    cell = bulk("PdH", "rocksalt", a=a)
    plain = read_force_constants(DATA / "dfpt_222" / "dyn", cell, file_masses=True)
    for file in (DATA / "dfpt_222").glob("dyn*"):
        text = file.read_text().replace("'Pd  '", f"'{labels[0]}'").replace("'H   '", f"'{labels[1]}'")
        (tmp_path / file.name).write_text(text)
    found = read_force_constants(tmp_path / "dyn", cell, file_masses=True)
    np.testing.assert_allclose(found.frequencies(), plain.frequencies(), atol=1e-6)


def test_what_cannot_be_read(tmp_path):
    cell = nacl()
    for name, content in (("a.yaml", b""), ("a.fc", b""), ("a.npz", b""), ("b.npz", b"PK\x03\x04"), ("b.fc", b"\xff")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            read_force_constants(tmp_path / name, cell)
    for name in ("none.yaml", "none.fc", "none.npz"):
        with pytest.raises(InputError, match="none"):
            read_force_constants(tmp_path / name, cell)
    np.savez(tmp_path / "c.npz", hessian=np.array([{"a": 1}], dtype=object), multiples=GRID)
    with pytest.raises(InputError, match=r"c\.npz"):
        read_force_constants(tmp_path / "c.npz", cell)


def test_sizes_are_bounded(tmp_path, monkeypatch):
    from hint_recipes.crystals.force_constants import files as force_constant_files

    np.savez_compressed(tmp_path / "a.npz", hessian=np.zeros((600, 600)))
    monkeypatch.setattr(force_constant_files, "MAX_BYTES", 2**20)
    with pytest.raises(InputError, match="when unpacked"):
        read_force_constants(tmp_path / "a.npz", nacl())


@pytest.mark.sscha
def test_an_index_of_too_many_files(tmp_path):
    pytest.importorskip("cellconstructor")
    (tmp_path / "dyn0").write_text("2 2 2\n900000000000\n")
    with pytest.raises(InputError, match="dynamical matrices missing"):
        read_force_constants(tmp_path / "dyn", nacl())


@pytest.mark.parametrize("name", ["cell.extxyz", "POSCAR"])
def test_deuterium_in_a_structure_file(tmp_path, name):
    from ase.io import write

    from hint_recipes.crystals.inputs import read_crystal

    write(tmp_path / name, bulk("PdH", "rocksalt", a=4.085))
    text = (tmp_path / name).read_text()
    (tmp_path / name).write_text(text.replace("H ", "D ").replace(" H", " D"))
    crystal = read_crystal(tmp_path / name)
    assert crystal.get_chemical_formula() == "HPd"
    np.testing.assert_allclose(crystal.get_masses(), [106.42, 2.014101778])
    (tmp_path / "cell.gen").write_text("2 S\nPd D\n1 1 0 0 0\n2 2 2 2 2\n0 0 0\n4 0 0\n0 4 0\n0 0 4\n")
    with pytest.raises(InputError, match=r"write H in the file and give --mass H=2\.014"):
        read_crystal(tmp_path / "cell.gen")


@pytest.mark.parametrize("form", [["2x2x2"], ["2", "2", "2"], ["2,2,2"]])
def test_one_form_of_repetitions(tmp_path, form, monkeypatch):
    """``--supercell``, ``--stage`` and ``--mesh`` take ``2x2x2`` and ``2 2 2``; so does a configuration file."""
    import yaml
    from typer.testing import CliRunner

    from hint_plugins.cli.main import app

    nacl().write(tmp_path / "cell.extxyz")
    seen: list[Any] = []

    class Done:
        converged = True

        def report(self) -> str:
            return "done"

    def record(cell: Any, model: Any, out: Path, settings: Any, *, options: dict[str, Any], **_: Any) -> Done:
        seen.append(settings)
        with RunDirectory(out, "any", options):
            return Done()

    monkeypatch.setattr("hint_recipes.crystals.phonons.study.compute_phonons", record)
    monkeypatch.setattr("hint_recipes.crystals.sscha.study.run_sscha", record)
    arguments = ["phonons", str(tmp_path / "cell.extxyz"), "--model", "emt", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*arguments, "--supercell", *form, "--mesh", *form], catch_exceptions=False)
    assert done.exit_code == 0
    assert seen[0].supercell == seen[0].mesh == GRID
    written = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert written["supercell"] == [2, 2, 2]
    shutil.rmtree(tmp_path / "out")
    config = tmp_path / "again.yaml"
    config.write_text(yaml.safe_dump({"supercell": " ".join(form) if form[0] == "2" else form[0], "mesh": [2, 2, 2]}))
    CliRunner().invoke(app, [*arguments, "--config", str(config)], catch_exceptions=False)
    assert seen[1].supercell == seen[1].mesh == GRID
    arguments[0] = "sscha"
    stages = ["--stage", "1x1x1", "--stage", *form, "--supercell", "3", "3", "3"]
    CliRunner().invoke(app, [*arguments, *stages], catch_exceptions=False)
    assert (seen[2].stage, seen[2].supercell) == (((1, 1, 1), GRID), (3, 3, 3))
    for wrong in (["2x2"], ["0", "2", "2"], ["-1", "2", "2"], ["2x2x2x2"], ["twice"]):
        with pytest.raises(ConfigError, match="--supercell"):
            CliRunner().invoke(app, [*arguments, "--supercell", *wrong], catch_exceptions=False)
