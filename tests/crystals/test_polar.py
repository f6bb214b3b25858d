"""Polar crystals: Born effective charges from files, the splitting at Gamma, and the dipole part in interpolations."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk

from hint_plugins.datasets.born import DielectricTensors
from hint_plugins.errors import InputError
from hint_plugins.units import CM1
from hint_recipes.crystals.force_constants.dielectric import missing_charges, on_crystal
from hint_recipes.crystals.force_constants.dielectric_files import read_tensors
from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.force_constants.interpolation import interpolate
from hint_recipes.crystals.phonons.harmonic import bands

CHARGE, DIELECTRIC = 1.1, 2.4


def salt() -> Atoms:
    return bulk("NaCl", "rocksalt", a=5.64)


def tensors(crystal: Atoms) -> DielectricTensors:
    signs = np.where(crystal.numbers == 11, 1.0, -1.0)
    return DielectricTensors(crystal, CHARGE * signs[:, None, None] * np.eye(3), DIELECTRIC * np.eye(3))


@pytest.fixture(scope="module")
def constants() -> ForceConstants:
    """Springs between first neighbours: the short-ranged forces of a model."""
    crystal = salt()
    supercell = ForceConstants(crystal, (2, 2, 2), np.eye(48)).supercell
    hessian = np.zeros((16, 3, 16, 3))
    i, j, vectors = _neighbours(supercell)
    for a, b, r in zip(i, j, vectors, strict=True):
        e = r / np.linalg.norm(r)
        hessian[a, :, b] -= 2.0 * np.outer(e, e) + 0.1 * np.eye(3)
        hessian[a, :, a] += 2.0 * np.outer(e, e) + 0.1 * np.eye(3)
    return ForceConstants(crystal, (2, 2, 2), hessian.reshape(48, 48)).symmetrized().acoustic_sum_rule()


def _neighbours(atoms: Atoms):
    from ase.neighborlist import neighbor_list

    return neighbor_list("ijD", atoms, 3.0)


def test_the_splitting_is_that_of_the_charges(constants):
    """Cubic crystal of two atoms: ``LO^2 - TO^2 = 4 pi e^2 Z^2 / (eps V mu)`` (Born and Huang)."""
    plain, polar = bands(constants), bands(constants.with_tensors(tensors(constants.primitive)))
    masses = constants.primitive.get_masses()
    reduced = masses.prod() / masses.sum()
    volume = constants.primitive.get_volume()
    coulomb = units.Hartree * units.Bohr
    gap = 4 * np.pi * coulomb * CHARGE**2 / (DIELECTRIC * volume * reduced) * CM1**2
    transverse = plain.frequencies[0][0][-1]
    limit = polar.frequencies[0][0]
    assert polar.labels[0][1] == "G"
    assert limit[-1] ** 2 - transverse**2 == pytest.approx(gap, rel=1e-4)
    np.testing.assert_allclose(limit[3:5], transverse, rtol=1e-4)


def test_points_of_the_supercell_stay_as_they_are(constants):
    """The Hessian holds the dipole forces at these points already: subtracted and added, they change nothing."""
    polar = constants.with_tensors(tensors(constants.primitive)).to_phonopy()
    found = polar.run_qpoints(constants.q_points[1:]).frequencies
    expected = constants.to_phonopy().run_qpoints(constants.q_points[1:]).frequencies
    np.testing.assert_allclose(found, expected, atol=1e-3)
    between = np.array([[0.1, 0.1, 0.0]])
    other = constants.to_phonopy().run_qpoints(between).frequencies
    assert np.abs(polar.run_qpoints(between).frequencies - other).max() > 0.1, "between them they do"


def test_interpolated_constants_have_the_bands_of_the_coarse_ones(constants):
    polar = constants.with_tensors(tensors(constants.primitive))
    wider = interpolate(polar, (4, 4, 4))
    assert wider.tensors is not None
    q = wider.q_points[1:]
    np.testing.assert_allclose(
        wider.to_phonopy().run_qpoints(q).frequencies, polar.to_phonopy().run_qpoints(q).frequencies, atol=1e-3
    )


def test_born_file_of_phonopy(tmp_path):
    crystal = salt()
    given = tensors(crystal)
    rows = [given.dielectric, given.born[0], given.born[1]]
    lines = ["# epsilon and Z* of atoms 1 2", *(" ".join(f"{x:.8f}" for x in row.ravel()) for row in rows)]
    (tmp_path / "BORN").write_text("\n".join(lines) + "\n")
    found = read_tensors(tmp_path / "BORN", crystal)
    np.testing.assert_allclose(found.born, given.born, atol=1e-8)
    np.testing.assert_allclose(found.dielectric, given.dielectric, atol=1e-8)
    with pytest.raises(InputError, match="BORN"):
        read_tensors(tmp_path / "BORN", bulk("Si"))
    (tmp_path / "empty").write_text("")
    with pytest.raises(InputError, match="empty"):
        read_tensors(tmp_path / "empty", crystal)


def test_tensors_of_another_cell_of_the_crystal():
    crystal, cubic = salt(), bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    found = on_crystal(tensors(crystal), cubic)
    np.testing.assert_allclose(found.born, tensors(cubic).born, atol=1e-10)
    turned = cubic.copy()
    turned.rotate(30, "z", rotate_cell=True)
    with pytest.raises(InputError, match="another"):
        on_crystal(tensors(crystal), turned)
    wrong = DielectricTensors(crystal, np.stack([np.eye(3), np.eye(3)]), DIELECTRIC * np.eye(3))
    with pytest.raises(InputError, match="neutrality"):
        on_crystal(wrong, cubic)


def test_missing_charges_are_a_sentence():
    assert "no Born effective charges" in missing_charges(salt())
    assert missing_charges(bulk("Si")) is None
