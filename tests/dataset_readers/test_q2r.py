"""Files of q2r.x: the dipole-dipole part of polar crystals, masses, labels, lattices, damage."""

import numpy as np
import pytest
from ase.build import bulk
from ase.units import Bohr, Hartree
from helpers.q2r import springs, write_q2r
from scipy.special import erfc

from hint_plugins.datasets import q2r
from hint_plugins.datasets.q2r import dipole_blocks, read_q2r
from hint_plugins.datasets.reading import read_dataset
from hint_plugins.datasets.record import RecordError

BORN = np.array([1.09, -1.09])[:, None, None] * np.eye(3)
DIELECTRIC = 2.43 * np.eye(3)


def rocksalt(first="Na", second="Cl", a=5.6):
    return bulk(first + second, "rocksalt", a=a)


def dipole_hessian(cell, grid, born, dielectric):
    """The same sum, over the reciprocal vectors of the whole supercell at once (eV/A^2); cut where q2r.x cuts."""
    supercell = cell.repeat(grid)
    alat = np.linalg.norm(cell.cell[0])
    n = len(supercell)
    charges = np.tile(born, (n // len(cell), 1, 1))
    reciprocal = 2 * np.pi * np.linalg.inv(supercell.cell.array).T
    unit = 2 * np.pi / alat
    reach = 12 * max(grid)
    integers = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    k = integers @ reciprocal
    square = np.einsum("ki,ij,kj->k", k, dielectric, k)
    used = (square > 1e-9) & (square < 56 * unit**2)
    k, square = k[used], square[used]
    hessian = np.zeros((n, 3, n, 3))
    strength = 4 * np.pi * Hartree * Bohr / supercell.get_volume() * np.exp(-square / (4 * unit**2)) / square
    field = np.einsum("ki,nij->knj", k, charges)
    phase = k @ supercell.positions.T
    for part in (np.cos, np.sin):
        wave = field * part(phase)[:, :, None]
        hessian += np.einsum("k,kna,kmb->namb", strength, wave, wave, optimize=True)
    own = hessian.sum(2)
    for i in range(n):
        hessian[i, :, i] -= own[i]
    return hessian.reshape(3 * n, 3 * n)


@pytest.fixture
def polar(tmp_path):
    """Short-ranged springs and dipoles; the file holds the springs only, as q2r.x writes it."""
    cell, grid = rocksalt(), (2, 2, 2)
    short = springs(cell, grid, 0.8, 2.9)
    path = write_q2r(tmp_path / "nacl.fc", cell, grid, short, born=BORN, dielectric=DIELECTRIC)
    return path, cell, grid, short, short + dipole_hessian(cell, grid, BORN, DIELECTRIC)


def test_dipole_part_of_a_polar_crystal_is_added(polar):
    path, cell, grid, short, total = polar
    (atoms,) = read_dataset(path)
    hessian = atoms.info["REF_hessian"].reshape(total.shape)
    np.testing.assert_allclose(atoms.positions, cell.repeat(grid).positions, atol=1e-6)
    assert np.abs(total - short).max() > 0.1
    np.testing.assert_allclose(hessian, total, atol=2e-6)
    np.testing.assert_allclose(hessian.reshape(48, 16, 3).sum(1), 0, atol=2e-6)


@pytest.mark.parametrize("grid", [(3, 1, 2), (1, 1, 1), (2, 3, 1)])
def test_directions_with_one_point_have_no_reciprocal_vectors(tmp_path, grid):
    """As q2r.x sums: a low-dimensional grid, an anisotropic tensor and charges, a cell that is not cubic."""
    cell = rocksalt()
    cell.set_cell(cell.cell.array @ (np.eye(3) + 0.05 * np.arange(9).reshape(3, 3) / 9), scale_atoms=True)
    dielectric = np.diag([2.0, 2.6, 3.1])
    born = BORN + 0.1 * np.array([[[0, 1, 0], [0.5, 0, 0], [0, 0, 2]]]) * np.array([1, -1])[:, None, None]
    blocks = dipole_blocks(cell.positions / 3.0, cell.cell.array / 3.0, born, dielectric, grid, 3.0 / Bohr)
    n = blocks.shape[-1]
    if grid == (1, 1, 1):
        assert not blocks.any()
    np.testing.assert_allclose(blocks.sum((0, 1, 2)).reshape(n, 2, 3).sum(1), 0, atol=1e-12)
    for index in np.ndindex(*grid):  # H = H^T
        opposite = tuple(-np.array(index) % grid)
        np.testing.assert_allclose(blocks[index], blocks[opposite].T, atol=1e-12)


def test_the_sum_is_that_of_point_dipoles(monkeypatch):
    """With the part in real space added, the result does not depend on the Ewald parameter."""
    cell, grid, alat = rocksalt(), (2, 2, 2), 5.6
    supercell = cell.repeat(grid)
    images = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 3) @ supercell.cell.array

    def real_space(alpha):
        width = np.sqrt(alpha / DIELECTRIC[0, 0]) * 2 * np.pi / alat
        total = np.zeros((3, 3))
        for r in supercell.positions[3] - supercell.positions[0] + images:
            d = np.linalg.norm(r)
            gauss = 2 * width / np.sqrt(np.pi) * np.exp(-((width * d) ** 2))
            first = -gauss / d - erfc(width * d) / d**2
            second = 2 * width**2 * gauss + 2 * gauss / d**2 + 2 * erfc(width * d) / d**3
            total -= (second - first / d) * np.outer(r, r) / d**2 + first / d * np.eye(3)
        charges = BORN[0, 0, 0] * BORN[1, 0, 0]
        return charges * Hartree * Bohr / DIELECTRIC[0, 0] * total

    def reciprocal_space(alpha):
        monkeypatch.setattr(q2r, "ALPHA", alpha)
        monkeypatch.setattr(q2r, "LARGEST_EXPONENT", 30.0)
        blocks = dipole_blocks(cell.positions / alat, cell.cell.array / alat, BORN, DIELECTRIC, grid, alat / Bohr)
        return blocks[0, 0, 1, 3:, :3] * Hartree / 2 / Bohr**2  # atom 3: Cl of the cell (0, 0, 1)

    values = [real_space(alpha) + reciprocal_space(alpha) for alpha in (0.5, 1.0, 2.0)]
    np.testing.assert_allclose(values[1], values[0], atol=1e-6)
    np.testing.assert_allclose(values[2], values[0], atol=1e-6)
    assert np.abs(values[0]).max() > 0.05


def test_masses_of_the_file_are_kept(tmp_path):
    cell = rocksalt()
    path = write_q2r(tmp_path / "heavy.fc", cell, (2, 2, 2), springs(cell, (2, 2, 2), 0.8, 2.9), masses=[45.98, 35.453])
    (atoms,) = read_dataset(path)
    np.testing.assert_allclose(atoms.get_masses()[:2], [45.98, 35.453], rtol=1e-6)


@pytest.mark.parametrize(
    ("labels", "formula"), [(("Mg1", "O_s"), "Mg8O8"), (("MG", "o-2"), "Mg8O8"), (("Na", "D"), "H8Na8")]
)
def test_labels_of_species(tmp_path, labels, formula):
    cell = rocksalt("Mg", "O", 4.2)
    path = write_q2r(tmp_path / "x.fc", cell, (2, 2, 2), springs(cell, (2, 2, 2), 0.8, 2.2), labels=list(labels))
    (atoms,) = read_dataset(path)
    assert atoms.get_chemical_formula() == formula


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  2    2  0", "  2 9000000  0", "more than the file can hold"),
        ("   2   2   2\n", " 900 900 900\n", "more than the file can hold"),
        (" F\n", " T\n", "."),
        (" F\n", " T 1.0\n", "T or F"),
        ("'Na  '", "'Qq  '", "is no element"),
        ("   1   1   1   2\n", "   1   1   2   2\n", "expected the force constants 1 1 1 2"),
        ("E-01", "E+999", "not finite"),
    ],
)  # fmt: skip
def test_damaged_files_are_one_bad_record(tmp_path, old, new, message):
    cell = rocksalt()
    path = write_q2r(tmp_path / "x.fc", cell, (2, 2, 2), springs(cell, (2, 2, 2), 0.8, 2.9))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(RecordError, match=message):
        read_q2r(path)
    bad = []
    assert not list(read_dataset(path, bad=lambda i, r: bad.append(r)))
    assert len(bad) == 1
    path.write_text("")
    with pytest.raises(RecordError, match="ends too early"):
        read_q2r(path)


@pytest.mark.parametrize(
    ("ibrav", "volume", "celldm"),
    [
        (1, 1.0, {}), (2, 0.25, {}), (3, 0.5, {}), (-3, 0.5, {}), (4, np.sqrt(3) / 2 * 1.3, {}), (6, 1.3, {}),
        (5, np.sqrt((1 - 0.2) ** 2 * (1 + 0.4)), {3: 0.2}), (7, 0.65, {}), (8, 1.56, {}), (9, 0.78, {}), (-9, 0.78, {}),
        (10, 0.39, {}), (11, 0.78, {}), (12, 1.56 * np.sqrt(0.96), {3: 0.2}),
    ],
)  # fmt: skip
def test_volumes_of_bravais_lattices(ibrav, volume, celldm):
    values = np.array([1.0, 1.2, 1.3, 0.0, 0.0, 0.0])
    for index, value in celldm.items():
        values[index] = value
    assert abs(np.linalg.det(q2r._lattice(ibrav, values))) == pytest.approx(volume)
    with pytest.raises(RecordError, match="ibrav = 13 is not read"):
        q2r._lattice(13, values)
