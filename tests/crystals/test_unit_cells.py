"""Supercells of any shape, primitive cells and folded bands: the crystal stays the same, whatever describes it."""

import numpy as np
import pytest
from ase.build import bulk
from helpers.quartic_crystal import QuarticCrystal
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from hint_plugins.cli.main import app
from hint_plugins.errors import InputError
from hint_plugins.potential import Potential
from hint_plugins.units import THZ_TO_CM1
from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.force_constants.from_potential import force_constants_from_potential
from hint_recipes.crystals.force_constants.phonopy_cells import to_phonopy_atoms
from hint_recipes.crystals.force_constants.unit_cells import (
    describe_matrix,
    for_supercell,
    num_primitive_cells,
    primitive_cell,
    supercell_matrix,
)
from hint_recipes.crystals.inputs import read_crystal
from hint_recipes.crystals.phonons.settings import PhononSettings
from hint_recipes.crystals.phonons.study import compute_phonons
from hint_recipes.crystals.repetitions import parse_supercell_matrix

pytest.importorskip("phonopy")

#: The conventional cell of an fcc crystal over its primitive one.
CONVENTIONAL = (-1, 1, 1, 1, -1, 1, 1, 1, -1)


def conventional_matrix() -> np.ndarray:
    return supercell_matrix(CONVENTIONAL)


@settings(max_examples=60, deadline=None)
@given(numbers=st.lists(st.integers(-4, 4), min_size=9, max_size=9))
def test_every_supercell_is_a_repetition_of_some_cell(numbers):
    matrix = np.reshape(numbers, (3, 3))
    volume = round(abs(np.linalg.det(matrix)))
    if not 0 < volume < 40:
        return
    crystal = bulk("NaCl", "rocksalt", a=5.6)
    changed, multiples = for_supercell(crystal, matrix)
    assert np.prod(multiples) == volume
    np.testing.assert_array_equal(changed.positions, crystal.positions)
    assert np.linalg.det(changed.cell.array) == pytest.approx(np.linalg.det(crystal.cell.array))
    for one, other in (
        (changed.cell.array, crystal.cell.array),
        (np.array(multiples)[:, None] * changed.cell.array, matrix.T @ crystal.cell.array),
    ):
        ratio = one @ np.linalg.inv(other)  # a change of basis of the same lattice
        np.testing.assert_allclose(ratio, np.rint(ratio), atol=1e-8)
        assert abs(np.linalg.det(ratio)) == pytest.approx(1.0)


def test_a_repetition_keeps_the_cell():
    crystal = bulk("Pd")
    for matrix in (np.diag([2, 1, 3]), [[0, 2, 0], [2, 0, 0], [0, 0, 2]]):
        assert for_supercell(crystal, np.array(matrix))[0] is crystal
    assert for_supercell(crystal, np.diag([2, 1, 3]))[1] == (2, 1, 3)


def test_phonons_are_those_of_phonopy_with_the_same_matrix():
    """Palladium (EMT): phonopy's own supercell matrix, finite displacements, against the exact Hessian."""
    from phonopy import Phonopy

    crystal, potential = bulk("Pd", a=3.95), Potential.load("emt")
    matrix = np.array([[2, 0, 0], [0, 1, 1], [-1, -1, 1]])
    changed, multiples = for_supercell(crystal, matrix)
    assert changed is not crystal
    constants = force_constants_from_potential(potential, changed, multiples).acoustic_sum_rule()
    phonon = Phonopy(to_phonopy_atoms(crystal), matrix, primitive_matrix=np.eye(3))
    phonon.generate_displacements(distance=1e-3)
    phonon.forces = [
        np.asarray(potential.evaluate([_ase(cell)]).forces[0]) for cell in phonon.supercells_with_displacements
    ]
    phonon.produce_force_constants(show_drift=False)
    cartesian = constants.q_points @ changed.cell.reciprocal().array
    for q, own in zip(cartesian, constants.frequencies(), strict=True):
        frequencies = phonon.run_qpoints([crystal.cell.array @ q]).frequencies[0] * THZ_TO_CM1
        np.testing.assert_allclose(own, frequencies, atol=0.2)


def _ase(cell):
    from hint_recipes.crystals.force_constants.phonopy_cells import from_phonopy_atoms

    return from_phonopy_atoms(cell)


def test_free_energy_and_bands_do_not_depend_on_the_cell(tmp_path):
    """The conventional supercell over the primitive cell, and the conventional cell itself: one crystal."""
    bulk("Pd", a=3.95).write(tmp_path / "primitive.extxyz")
    bulk("Pd", a=3.95, cubic=True).write(tmp_path / "cubic.extxyz")
    primitive, cubic = read_crystal(tmp_path / "primitive.extxyz"), read_crystal(tmp_path / "cubic.extxyz")
    reduced = read_crystal(tmp_path / "cubic.extxyz", primitive=True)
    settings = PhononSettings(supercell=CONVENTIONAL, mesh=(20, 20, 20), t_max=300.0, t_step=300.0)
    own = settings.changed(supercell=(1, 1, 1), mesh=(12, 12, 12))
    cases = [(primitive, settings), (reduced, settings), (cubic, own)]
    found = [compute_phonons(cell, "emt", tmp_path / str(k), how).summary for k, (cell, how) in enumerate(cases)]
    energies = [[entry for mesh in run["free_energy"][-1:] for entry in mesh["free_energy"].values()] for run in found]
    np.testing.assert_allclose(energies[0], energies[1], atol=1e-8)
    np.testing.assert_allclose(4 * np.array(energies[0]), energies[2], atol=2e-5)
    # the 12 modes of the conventional cell at Gamma are those of the primitive cell at Gamma and at three X points
    assert len(found[2]["frequencies_gamma_cm1"]) == 12


def test_bands_say_that_they_are_folded(tmp_path, capsys):
    bulk("Pd", a=3.95, cubic=True).write(tmp_path / "cubic.extxyz")
    settings = PhononSettings(supercell=(1, 1, 1), mesh=(2, 2, 2))
    compute_phonons(read_crystal(tmp_path / "cubic.extxyz"), "emt", tmp_path / "folded", settings)
    message = capsys.readouterr().err
    assert "4 primitive cells, so its 12 bands are the 3 of the primitive cell, folded" in message
    compute_phonons(read_crystal(tmp_path / "cubic.extxyz", primitive=True), "emt", tmp_path / "primitive", settings)
    assert "folded" not in capsys.readouterr().err


def test_reference_over_the_primitive_cell(tmp_path, capsys):
    """A phonopy file with a conventional supercell and a given primitive cell, as phonopy itself reports its bands."""
    bulk("Pd", a=3.95).write(tmp_path / "primitive.extxyz")
    cubic = force_constants_from_potential(Potential.load("emt"), bulk("Pd", a=3.95, cubic=True), (1, 1, 1))
    from hint_recipes.crystals.force_constants.files import save_force_constants

    save_force_constants(cubic, tmp_path, "reference")
    file = tmp_path / "reference.yaml"
    cell, settings = read_crystal(tmp_path / "primitive.extxyz"), PhononSettings(mesh=(4, 4, 4))
    alone = compute_phonons(cell, None, tmp_path / "alone", settings, reference=file).summary
    frequencies = alone["sources"]["reference"]
    assert len(frequencies["frequencies_gamma_cm1"]) == 3
    assert frequencies["highest_cm1"] == pytest.approx(cubic.symmetrized().frequencies().max(), abs=1e-3)
    conventional = settings.changed(supercell=CONVENTIONAL)
    with_model = compute_phonons(cell, "emt", tmp_path / "both", conventional, reference=file).summary
    assert with_model["sources"]["emt"]["difference"]["frequency_max_error_cm1"] < 1e-3
    capsys.readouterr()
    with pytest.raises(InputError, match="another supercell: use --supercell") as refused:
        compute_phonons(cell, "emt", tmp_path / "refused", settings, reference=file)
    assert not (tmp_path / "refused").exists()
    numbers = parse_supercell_matrix(str(refused.value).split("--supercell ")[1])
    again = settings.changed(supercell=numbers)
    repeated = compute_phonons(cell, "emt", tmp_path / "again", again, reference=file).summary
    assert repeated["sources"]["emt"]["difference"]["frequency_max_error_cm1"] < 1e-3


class TestPrimitiveCell:
    @pytest.mark.parametrize(
        ("crystal", "cells"),
        [
            (bulk("Pd", cubic=True), 4),
            (bulk("NaCl", "rocksalt", a=5.6, cubic=True), 4),
            (bulk("Fe", cubic=True), 2),
            (bulk("Mg"), 1),
            (bulk("Pd").repeat((1, 3, 1)), 3),
        ],
    )
    def test_same_crystal_fewer_atoms(self, crystal, cells):
        found = primitive_cell(crystal)
        assert num_primitive_cells(crystal) == cells
        assert len(found) * cells == len(crystal)
        # the given crystal is a supercell of it, site by site
        back = ForceConstants.from_supercell
        matrix = crystal.cell.array @ np.linalg.inv(found.cell.array)
        changed, multiples = for_supercell(found, np.rint(matrix).astype(int).T)
        size = 3 * len(crystal)
        assert back(changed, crystal, np.eye(size)).multiples == multiples

    def test_isotopes_and_moments(self):
        crystal = bulk("Pd", cubic=True)
        crystal.set_masses([108.0] * 4)
        assert primitive_cell(crystal).get_masses().tolist() == [108.0]
        iron = primitive_cell(bulk("Fe", cubic=True))
        assert iron.get_initial_magnetic_moments().tolist() == [2.3]

    @pytest.mark.parametrize("name", ["masses", "initial_magnetic_moments", "charge"])
    def test_what_would_be_lost_is_refused(self, name, tmp_path):
        crystal = bulk("Fe", cubic=True)
        if name == "charge":
            crystal.info["charge"] = 1
        else:
            getattr(crystal, f"set_{name}")([1.0, 2.0])
        with pytest.raises(ValueError, match="primitive cell cannot be taken"):
            primitive_cell(crystal)
        crystal.write(tmp_path / "iron.extxyz")
        if name != "masses":
            with pytest.raises(InputError, match=r"iron.extxyz: the primitive cell cannot be taken"):
                read_crystal(tmp_path / "iron.extxyz", primitive=True)


class TestOption:
    def test_three_or_nine_numbers(self):
        assert parse_supercell_matrix("2x2x3") == (2, 2, 3)
        assert parse_supercell_matrix("-1 1 1 1 -1 1 1 1 -1") == CONVENTIONAL
        assert parse_supercell_matrix("-1x1x1x1x-1x1x1x1x-1") == CONVENTIONAL
        assert parse_supercell_matrix([-1, 1, 1, 1, -1, 1, 1, 1, -1]) == CONVENTIONAL
        assert parse_supercell_matrix(describe_matrix(conventional_matrix())) == CONVENTIONAL
        assert describe_matrix(np.diag([2, 1, 3])) == "2x1x3"

    @pytest.mark.parametrize("text", ["2x2", "0x1x1", "1 2 3 4", "1 0 0 0 1 0 1 1 0", "axbxc", "-1x1x1", ""])
    def test_what_is_no_supercell(self, text):
        with pytest.raises(InputError, match="--supercell"):
            parse_supercell_matrix(text)

    def test_on_the_command_line_and_from_its_configuration(self, tmp_path):
        bulk("Pd", a=3.95).write(tmp_path / "cell.extxyz")
        start = ["phonons", str(tmp_path / "cell.extxyz"), "--model", "emt", "--mesh", "2", "2", "2", "--supercell"]
        words = [str(n) for n in CONVENTIONAL]
        first = CliRunner().invoke(app, [*start, *words, "--out", str(tmp_path / "a")])
        assert first.exit_code == 0, first.output
        again = CliRunner().invoke(
            app, ["phonons", "--config", str(tmp_path / "a" / "config.yaml"), "--out", str(tmp_path / "b")]
        )
        assert again.exit_code == 0, again.output
        one, other = ((tmp_path / name / "frequencies.csv").read_text() for name in "ab")
        assert one == other
        assert one.count("\n") == 13  # four wave vectors


@pytest.mark.sscha
class TestSscha:
    def test_conventional_supercell_of_the_quartic_crystal(self, tmp_path):
        """Against the exact solution in the same supercell, which python-sscha itself could not name."""
        pytest.importorskip("sscha")
        from hint_recipes.crystals.sscha.request import supercell_stages
        from hint_recipes.crystals.sscha.settings import SschaSettings
        from hint_recipes.crystals.sscha.study import run_sscha

        crystal = QuarticCrystal(k=0.5, g=8.0, matrix=conventional_matrix())
        exact, energy = crystal.solve(300.0)
        potential = Potential.load(crystal)
        settings = SschaSettings(
            temperature=300.0, configurations=200, max_populations=4, step=0.2, supercell=CONVENTIONAL
        )
        assert supercell_stages(bulk("Al", a=4.05), [CONVENTIONAL])[1] == [(1, 2, 2)]
        summary = run_sscha(bulk("Al", a=4.05), potential, tmp_path, settings).summary
        assert summary["converged"]
        assert abs(summary["free_energy_supercell"] - energy) < 4 * summary["free_energy_error"]
        own = np.sort(np.concatenate([row["cm1"] for row in summary["frequencies_cm1"]]))
        np.testing.assert_allclose(own[3:], np.sort(exact.frequencies().ravel())[3:], rtol=0.02)

    def test_refusals(self):
        pytest.importorskip("sscha")
        from hint_recipes.crystals.force_constants.cellconstructor import to_cellconstructor
        from hint_recipes.crystals.sscha.request import supercell_stages

        crystal = bulk("Pd", a=3.95)
        with pytest.raises(InputError, match=r"--stage needs a --supercell of the form N1xN2xN3"):
            supercell_stages(crystal, [(1, 1, 1), CONVENTIONAL])
        assert supercell_stages(crystal, [(1, 1, 1), (2, 2, 2)])[1] == [(1, 1, 1), (2, 2, 2)]
        changed, multiples = for_supercell(crystal, np.array([[1, 1, 0], [-1, 1, 0], [0, 0, 1]]))
        constants = force_constants_from_potential(Potential.load("emt"), changed, multiples)
        with pytest.raises(InputError, match="breaks the crystal's symmetry"):
            to_cellconstructor(constants)
