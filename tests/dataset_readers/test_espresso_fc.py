"""Force constants of q2r.x against a lattice whose Hessian is known."""

import numpy as np
import pytest
from ase.units import Bohr, Rydberg

from hint_plugins.curvature.sum_rule import acoustic_sum_rule
from hint_plugins.datasets.reading import read_dataset
from hint_plugins.storage.store import StoreError

K = 0.05  # Ry/Bohr^2, springs to the two neighbours along x; 0.02 along y; 0.01 along z
SPRINGS = (0.05, 0.02, 0.01)


def constants(a, b, shift, dim=(3, 2, 2)):
    """Simple cubic lattice: nearest neighbours along axis d couple component d with SPRINGS[d]."""
    if a != b:
        return 0.0
    total = 0.0
    for d in range(3):
        if d != a:
            continue
        if not any(shift):
            total += 2 * SPRINGS[d]
        for sign in (1, -1):
            neighbour = [0, 0, 0]
            neighbour[d] = sign % dim[d]
            if list(shift) == neighbour:
                total -= SPRINGS[d]
    return total


@pytest.fixture
def fc(tmp_path):
    pytest.importorskip("phonopy")
    dim = (3, 2, 2)
    lines = [
        "  1  1  1  6.0000000  0.0  0.0  0.0  0.0  0.0",
        "           1  'H1 '    918.735",
        "    1    1      0.0000000000      0.0000000000      0.0000000000",
        " F",
        "   3   2   2",
    ]
    for a in range(3):
        for b in range(3):
            lines.append(f"   {a + 1}   {b + 1}   1   1")
            for z in range(dim[2]):
                for y in range(dim[1]):
                    for x in range(dim[0]):
                        value = constants(a, b, (x, y, z))
                        lines.append(f"   {x + 1}   {y + 1}   {z + 1}  {value:.11E}")
    path = tmp_path / "h.fc"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_hessian_of_a_known_lattice(fc):
    (atoms,) = read_dataset(fc)
    assert len(atoms) == 12
    np.testing.assert_allclose(atoms.cell.lengths(), np.array([3, 2, 2]) * 6 * Bohr)
    hessian = atoms.info["REF_hessian"].reshape(36, 36) * Bohr**2 / Rydberg
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-12)
    scaled = np.round(atoms.get_scaled_positions(wrap=True) * [3, 2, 2]).astype(int) % [3, 2, 2]
    for i in range(12):
        for j in range(12):
            block = hessian[3 * i : 3 * i + 3, 3 * j : 3 * j + 3]
            shift = (scaled[j] - scaled[i]) % [3, 2, 2]
            expected = np.diag([constants(a, a, shift.tolist()) for a in range(3)])
            np.testing.assert_allclose(block, expected, atol=1e-9)


def test_damaged_file(fc):
    lines = fc.read_text().splitlines()
    fc.write_text("\n".join(lines[:40]))
    with pytest.raises(StoreError, match=r"not what q2r.x writes, or damaged"):
        list(read_dataset(fc))
    fc.write_text("\n".join([lines[0].replace("  1  1  1", "  1  1  5"), *lines[1:]]))
    with pytest.raises(StoreError, match="ibrav = 5 is not read"):
        list(read_dataset(fc))


def test_acoustic_sum_rule_is_a_projection():
    rng = np.random.default_rng(0)
    random = rng.normal(size=(12, 12))
    once = acoustic_sum_rule(random + random.T)
    np.testing.assert_allclose(once, once.T, atol=1e-14)
    np.testing.assert_allclose(once.reshape(12, 4, 3).sum(axis=1), 0, atol=1e-14)
    np.testing.assert_allclose(acoustic_sum_rule(once), once, atol=1e-14)
