"""Frequencies and errors against cases that can be done by hand."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from helpers.structures import emt_hessian
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from hint_plugins.objective.metrics import average, external_modes, frequencies, hessian_errors, mean_asymmetry
from hint_plugins.units import CM1


def springs(positions: np.ndarray, bonds: list[tuple[int, int, float]]) -> np.ndarray:
    """Hessian of harmonic bonds at their rest lengths."""
    hessian = np.zeros((positions.size, positions.size))
    for i, j, k in bonds:
        axis = positions[j] - positions[i]
        axis = axis / np.linalg.norm(axis)
        arm = np.zeros((len(positions), 3))
        arm[i], arm[j] = -axis, axis
        hessian += k * np.outer(arm.reshape(-1), arm.reshape(-1))
    return hessian


def wavenumber(k: float, mass: float) -> float:
    """sqrt(k / mass) in cm^-1 from SI constants; k in eV/A^2, mass in amu."""
    omega = np.sqrt(k * units._e * 1e20 / (mass * units._amu))
    return omega / (2 * np.pi * units._c * 100)


def test_unit():
    assert pytest.approx(wavenumber(1.0, 1.0), rel=1e-8) == CM1
    assert pytest.approx(521.4708, rel=1e-6) == CM1


@given(
    pair=st.sampled_from(["H2", "HCl", "CO", "LiF", "AuH"]),
    k=st.floats(0.1, 200.0),
    length=st.floats(0.7, 3.0),
    turn=st.integers(0, 1000),
)
def test_diatomic(pair, k, length, turn):
    atoms = Atoms(pair, positions=[[0, 0, 0], [0, 0, length]])
    atoms.positions = atoms.positions @ Rotation.random(random_state=turn).as_matrix() + 7.0
    masses = atoms.get_masses()
    found = frequencies(springs(atoms.positions, [(0, 1, k)]), atoms)
    assert found == pytest.approx([wavenumber(k, masses.prod() / masses.sum())], rel=1e-9)
    assert frequencies(springs(atoms.positions, [(0, 1, -k)]), atoms) == pytest.approx(-found, rel=1e-9)


def test_linear_triatomic():
    """CO2 with two springs: nu1 = sqrt(k/m_O), nu3 = sqrt(k/m_O + 2k/m_C), bends 0."""
    atoms = Atoms("OCO", [[0, 0, -1.16], [0, 0, 0], [0, 0, 1.16]])
    k, (m_o, m_c, _) = 100.0, atoms.get_masses()
    found = frequencies(springs(atoms.positions, [(0, 1, k), (1, 2, k)]), atoms)
    expected = [0, 0, wavenumber(k, m_o), wavenumber(k, 1 / (1 / m_o + 2 / m_c))]
    assert found == pytest.approx(expected, abs=1e-4)


def test_optical_mode_of_a_crystal():
    """Two atoms in a cell, coupled along x by 2k through the boundary; three translations go, no rotation."""
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    stiff = np.kron(np.array([[1.0, -1.0], [-1.0, 1.0]]), np.diag([2.0, 3.0, 4.0]))
    masses = atoms.get_masses()
    mu = masses.prod() / masses.sum()
    assert frequencies(stiff, atoms) == pytest.approx([wavenumber(k, mu) for k in (2, 3, 4)], rel=1e-9)


@pytest.mark.parametrize(("atoms", "count"), [("H", 3), ("CO", 5), ("CO2", 5), ("C2H2", 5), ("H2O", 6), ("C6H6", 6)])
def test_number_of_external_modes(atoms, count):
    structure = Atoms("H") if atoms == "H" else molecule(atoms)
    structure.positions += [3.0, -2.0, 1.0]
    structure.rotate(37.0, (1, 2, 3))
    modes = external_modes(structure)
    assert modes.shape == (3 * len(structure), count)
    np.testing.assert_allclose(modes.T @ modes, np.eye(count), atol=1e-12)
    zeros = springs(structure.positions, [(i, j, 1.0) for i in range(len(structure)) for j in range(i)])
    roots = np.repeat(structure.get_masses(), 3) ** -0.5
    np.testing.assert_allclose((zeros * np.outer(roots, roots)) @ modes, 0.0, atol=1e-10)


def test_rotations_do_not_leak_off_a_stationary_point():
    """Away from a minimum the six external modes of H are not zero modes; projection keeps 3N - 6 numbers."""
    atoms = molecule("H2O")
    atoms.rattle(0.1, seed=0)
    assert len(frequencies(emt_hessian(atoms), atoms)) == 3


@pytest.fixture(scope="module")
def water():
    atoms = molecule("H2O")
    atoms.calc = EMT()
    return atoms, emt_hessian(atoms)


def test_invariance(water):
    atoms, hessian = water
    expected = frequencies(hessian, atoms)
    turn = Rotation.from_euler("zyx", [0.3, 1.0, -2.0]).as_matrix()
    turned = atoms.copy()
    turned.positions = atoms.positions @ turn.T
    big = np.kron(np.eye(3), turn)
    np.testing.assert_allclose(frequencies(big @ hessian @ big.T, turned), expected, rtol=1e-8)
    order = [2, 0, 1]
    shuffled = hessian.reshape(3, 3, 3, 3)[order][:, :, order].reshape(9, 9)
    np.testing.assert_allclose(frequencies(shuffled, atoms[order]), expected, rtol=1e-8)


def test_errors_by_their_definition(water):
    atoms, reference = water
    rng = np.random.default_rng(0)
    predicted = reference + rng.standard_normal((9, 9))
    found = hessian_errors(predicted, reference, atoms)
    assert found["hessian_mae"] == pytest.approx(np.mean(np.abs(predicted - reference)))
    symmetric = [0.5 * (h + h.T) for h in (predicted, reference)]
    eigenvalues = [np.sort(np.linalg.eigvals(h).real) for h in symmetric]
    assert found["eigenvalue_mae"] == pytest.approx(np.mean(np.abs(eigenvalues[0] - eigenvalues[1])), rel=1e-6)
    assert found["asymmetry"] == pytest.approx(np.mean(np.abs(predicted - predicted.T)))
    assert found["frequency_mae_cm1"] > 0
    assert all(value == 0 for value in hessian_errors(reference, reference, atoms).values())


def test_one_atom_and_no_structure():
    found = hessian_errors(np.eye(3), np.zeros((3, 3)), Atoms("H"))
    assert found["frequency_mae_cm1"] == 0.0
    assert found["hessian_mae"] == pytest.approx(1 / 3)
    assert average([]) == {}
    assert average([{"a": 1.0}, {"a": 3.0}]) == {"a": 2.0}
    assert mean_asymmetry(np.eye(3)) == 0.0
