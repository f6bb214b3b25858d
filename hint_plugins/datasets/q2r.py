"""Files of ``q2r.x`` (Quantum ESPRESSO): force constants in real space, with what their header says.

In polar crystals (flag ``T``) ``q2r.x`` subtracts the dipole-dipole part before it writes, and the header gives the
dielectric tensor and the Born effective charges; here the part is added again (Gonze and Lee, Phys. Rev. B 55, 10355),
so that the matrices at the q points of the grid are those of ``ph.x``. At Gamma that is the analytical part, without
the splitting of longitudinal and transverse modes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.units import Bohr

from hint_plugins.datasets.born import DielectricTensors
from hint_plugins.datasets.record import RecordError
from hint_plugins.structures.species import element
from hint_plugins.units import ELECTRON_MASSES, HESSIAN_UNITS

#: Atomic mass unit in Rydberg atomic units (twice the electron mass).
AMU_RY = ELECTRON_MASSES / 2
#: ``q2r.x``: the Ewald parameter in (2 pi / alat)^2, and the exponent at which it ends the sum.
ALPHA, LARGEST_EXPONENT = 1.0, 14.0


@dataclass(frozen=True)
class Q2R:
    """Content of a file of ``q2r.x``, the dipole-dipole part included."""

    primitive: Atoms  #: unit cell with the masses of the file
    multiples: tuple[int, int, int]  #: grid of q points = repetitions of the unit cell
    blocks: np.ndarray  #: ``(n1, n2, n3, 3n, 3n)`` eV/A^2: second derivative by an atom in cell R and one in cell 0
    born: np.ndarray | None  #: ``(n, 3, 3)`` e, direction of the field first
    dielectric: np.ndarray | None  #: ``(3, 3)``

    @property
    def supercell(self) -> Atoms:
        """``primitive.repeat(multiples)``: cells outer, atoms of the unit cell inner."""
        return self.primitive.repeat(self.multiples)

    @property
    def tensors(self) -> DielectricTensors | None:
        """Born effective charges and dielectric tensor; None where the file has none."""
        if self.born is None or self.dielectric is None:
            return None
        return DielectricTensors(self.primitive, self.born, self.dielectric)

    def hessian(self) -> np.ndarray:
        """``(3N, 3N)`` in eV/A^2, in the order of :attr:`supercell`."""
        size = 3 * len(self.primitive) * int(np.prod(self.multiples))
        columns = [
            np.roll(self.blocks, shift, axis=(0, 1, 2)).reshape(size, -1) for shift in np.ndindex(*self.multiples)
        ]
        return np.concatenate(columns, axis=1)


def read_q2r(path: Path) -> Q2R:
    """Read a file of ``q2r.x``.

    Raises
    ------
    RecordError
        If the file is not what ``q2r.x`` writes, is cut short, or has a lattice that is not read.
    OSError
        If it cannot be read.
    """
    try:
        text = path.read_text()
        lines = iter(text.splitlines())
        return _parse(lines, len(text))
    except StopIteration:
        raise RecordError("not what q2r.x writes, or damaged: it ends too early") from None
    except (ValueError, IndexError, OverflowError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"not what q2r.x writes, or damaged: {error}") from None


def _parse(lines: Iterator[str], size: int) -> Q2R:
    kinds, count, ibrav, *rest = next(lines).split()
    celldm = np.array([_number(x) for x in rest[:6]])
    types, atoms = int(kinds), int(count)
    if not 0 < types <= atoms or 9 * atoms**2 > size:
        raise RecordError(f"the header announces {atoms} atoms of {types} kinds, more than the file can hold")
    alat = celldm[0]
    if not alat > 0:
        raise RecordError(f"the lattice parameter (celldm(1)) must be positive, not {alat}")
    cell = _numbers(lines, 3) if int(ibrav) == 0 else _lattice(int(ibrav), celldm)
    species = [_species(next(lines)) for _ in range(types)]
    rows = [next(lines).split() for _ in range(atoms)]
    kind = [int(row[1]) - 1 for row in rows]
    if not all(0 <= k < types for k in kind):
        raise RecordError(f"an atom is of kind {max(kind) + 1}, where {types} kinds are listed")
    positions = np.array([[_number(x) for x in row[2:5]] for row in rows])
    primitive = Atoms(
        [species[k][0] for k in kind], positions * alat * Bohr, cell=cell * alat * Bohr, pbc=True,
        masses=[species[k][1] for k in kind],
    )  # fmt: skip
    dielectric = born = None
    flag = next(lines).split()
    if flag[:1] not in (["T"], ["F"], [".TRUE."], [".FALSE."]) or len(flag) > 1:
        raise RecordError(f"T or F (Born effective charges or none) expected after the atoms, not {' '.join(flag)!r}")
    if flag[0].strip(".").startswith("T"):
        dielectric = _numbers(lines, 3)
        born = np.array([(next(lines), _numbers(lines, 3))[1] for _ in range(atoms)])
    n1, n2, n3 = (int(x) for x in next(lines).split())
    if min(n1, n2, n3) < 1 or 9 * atoms**2 * (1 + n1 * n2 * n3) > size:
        raise RecordError(f"a grid of {n1}x{n2}x{n3} is announced, more than the file can hold")
    blocks = _force_constants(lines, atoms, (n1, n2, n3))
    if born is not None and dielectric is not None:
        blocks = blocks + dipole_blocks(positions, cell, born, dielectric, (n1, n2, n3), alat)
    return Q2R(primitive, (n1, n2, n3), blocks * HESSIAN_UNITS["Ry/Bohr^2"], born, dielectric)


def _number(text: str) -> float:
    return float(text.upper().replace("D", "E"))


def _numbers(lines: Iterator[str], rows: int) -> np.ndarray:
    values = np.array([[_number(x) for x in next(lines).split()[:3]] for _ in range(rows)])
    if values.shape != (rows, 3) or not np.isfinite(values).all():
        raise RecordError("three finite numbers a line are expected for cell, dielectric tensor and Born charges")
    return values


def _species(line: str) -> tuple[str, float]:
    """Symbol and mass (u) from ``1  'Na  '  41907.7856``; masses are in Rydberg atomic units."""
    _, label, mass = line.split("'")
    symbol, _ = element(label)
    value = _number(mass) / AMU_RY
    if not 0.5 < value < 400:
        raise RecordError(f"the mass of {label.strip()} is {value:g} u: q2r.x writes masses in Rydberg atomic units")
    return symbol, value


def _force_constants(lines: Iterator[str], atoms: int, grid: tuple[int, int, int]) -> np.ndarray:
    """``(n1, n2, n3, 3n, 3n)`` in Ry/Bohr^2; in the file the first cell index runs fastest."""
    cells = int(np.prod(grid))
    values = np.empty((3, 3, atoms, atoms, cells))
    for a, b, i, j in np.ndindex(3, 3, atoms, atoms):
        header = next(lines).split()
        if header != [str(x + 1) for x in (a, b, i, j)]:
            raise RecordError(f"expected the force constants {a + 1} {b + 1} {i + 1} {j + 1}, found {' '.join(header)}")
        values[a, b, i, j] = [_number(next(lines).split()[3]) for _ in range(cells)]
    if not np.isfinite(values).all():
        raise RecordError("force constants that are not finite")
    ordered = values.reshape(3, 3, atoms, atoms, *grid[::-1]).transpose(6, 5, 4, 2, 0, 3, 1)
    return np.ascontiguousarray(ordered).reshape(*grid, 3 * atoms, 3 * atoms)


def dipole_blocks(
    positions: np.ndarray,
    cell: np.ndarray,
    born: np.ndarray,
    dielectric: np.ndarray,
    grid: tuple[int, int, int],
    alat: float,
) -> np.ndarray:
    """The dipole-dipole force constants that ``q2r.x`` subtracts, as it sums them.

    Parameters
    ----------
    positions, cell
        ``(n, 3)`` and ``(3, 3)`` in units of ``alat``.
    born, dielectric
        ``(n, 3, 3)`` e, direction of the field first, and ``(3, 3)``.
    grid
        q points along each reciprocal vector; along a direction with one point no reciprocal vectors are summed (that
        is how ``q2r.x`` treats a direction without periodicity).
    alat
        Bohr.

    Returns
    -------
    ndarray
        ``(n1, n2, n3, 3n, 3n)`` in Ry/Bohr^2.
    """
    if not np.linalg.eigvalsh((dielectric + dielectric.T) / 2).min() > 0:
        raise RecordError("the dielectric tensor is not positive")
    reciprocal = np.linalg.inv(cell).T
    reach = np.sqrt(4 * ALPHA * LARGEST_EXPONENT) / np.linalg.norm(reciprocal, axis=1)
    if np.prod(2 * reach + 3) > 1e7:
        raise RecordError("the dipole-dipole sum has more than 10^7 terms: the cell is far longer than alat")
    ranges = [
        np.arange(-int(r) - 1, int(r) + 2) if n > 1 else np.zeros(1, int) for r, n in zip(reach, grid, strict=True)
    ]
    vectors = np.stack(np.meshgrid(*ranges, indexing="ij"), -1).reshape(-1, 3) @ reciprocal
    factor = 8 * np.pi / (abs(np.linalg.det(cell)) * alat**3)

    def lattice_sum(q: np.ndarray) -> np.ndarray:
        k = vectors + q
        square = np.einsum("ki,ij,kj->k", k, dielectric, k)
        used = (square > 1e-12) & (square < 4 * ALPHA * LARGEST_EXPONENT)
        k, square = k[used], square[used]
        charges = np.einsum("ki,nij->knj", k, born) * np.exp(2j * np.pi * k @ positions.T)[:, :, None]
        charges = charges.reshape(len(k), 3 * len(positions))
        return factor * (charges * (np.exp(-square / (4 * ALPHA)) / square)[:, None]).T @ charges.conj()

    n = len(positions)
    own = lattice_sum(np.zeros(3)).real.reshape(n, 3, n, 3).sum(2)  # no force when all atoms are shifted together
    matrices = np.empty((*grid, 3 * n, 3 * n), complex)
    for index in np.ndindex(*grid):
        fraction = np.array(index) / grid
        matrices[index] = lattice_sum((fraction - np.rint(fraction)) @ reciprocal)
        for atom in range(n):
            block = slice(3 * atom, 3 * atom + 3)
            matrices[index][block, block] -= own[atom]
    return np.fft.ifftn(matrices, axes=(0, 1, 2)).real


def _lattice(ibrav: int, celldm: np.ndarray) -> np.ndarray:
    """Lattice vectors over alat, as the input description of pw.x defines them."""
    b, c, cosine = celldm[1:4]
    needs_b = abs(ibrav) >= 8
    if (needs_b and not b > 0) or ((needs_b or ibrav in (4, 6, 7)) and not c > 0):
        raise RecordError(f"ibrav = {ibrav} is not read with celldm(2) = {b:g} and celldm(3) = {c:g}")
    lattices = {
        1: np.eye(3),
        2: np.array([[-1, 0, 1], [0, 1, 1], [-1, 1, 0]]) / 2,
        3: np.array([[1, 1, 1], [-1, 1, 1], [-1, -1, 1]]) / 2,
        -3: np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]) / 2,
        4: np.array([[1, 0, 0], [-0.5, np.sqrt(3) / 2, 0], [0, 0, c]]),
        6: np.diag([1, 1, c]),
        7: np.array([[1, -1, c], [1, 1, c], [-1, -1, c]]) / 2,
        8: np.diag([1, b, c]),
        9: np.array([[0.5, b / 2, 0], [-0.5, b / 2, 0], [0, 0, c]]),
        -9: np.array([[0.5, -b / 2, 0], [0.5, b / 2, 0], [0, 0, c]]),
        10: np.array([[1, 0, c], [1, b, 0], [0, b, c]]) / 2,
        11: np.array([[1, b, c], [-1, b, c], [-1, -b, c]]) / 2,
    }
    if ibrav == 5 and cosine and -0.5 < cosine < 1:  # zero: celldm(4) is not given
        x, y, z = np.sqrt((1 - cosine) / 2), np.sqrt((1 - cosine) / 6), np.sqrt((1 + 2 * cosine) / 3)
        lattices[5] = np.array([[x, -y, z], [0, 2 * y, z], [-x, -y, z]])
    if ibrav == 12 and abs(cosine) < 1:
        lattices[12] = np.array([[1, 0, 0], [b * cosine, b * np.sqrt(1 - cosine**2), 0], [0, 0, c]])
    if ibrav not in lattices:
        raise RecordError(f"ibrav = {ibrav} is not read; run pw.x, ph.x and q2r.x with ibrav = 0 and CELL_PARAMETERS")
    return lattices[ibrav]
