"""Force constants of Quantum ESPRESSO (ph.x and q2r.x): the Hessian of the supercell that the q-grid spans."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.units import Bohr, Rydberg

from hint_plugins.datasets.record import RecordError, labelled
from hint_plugins.labels.store import OnBad, StoreError


def read_espresso_fc(path: Path, bad: OnBad, *, asr: bool = False) -> Iterator[Atoms]:
    """Give the one supercell of a q2r.x file, with its Hessian and no energy or forces.

    Parameters
    ----------
    path
        What q2r.x wrote: cell and atoms (alat), force constants (Ry/Bohr^2).
    bad
        Takes index and reason if the force constants cannot be used.
    asr
        Apply :func:`acoustic_sum_rule`. Use the same choice in every comparison.
    """
    try:
        from phonopy.interface.qe import PH_Q2R
        from phonopy.structure.atoms import PhonopyAtoms
    except ImportError as error:
        raise StoreError(f"{path}: needs `pip install phonopy` ({error})") from error
    try:
        cell = _primitive(path)
        reader = PH_Q2R(str(path))
        reader.run(
            PhonopyAtoms(numbers=cell.numbers, cell=cell.cell / Bohr, positions=cell.positions / Bohr),
            is_full_fc=True,
        )
        constants, supercell = reader.fc, reader.supercell
        if constants is None or supercell is None:
            raise RecordError("no force constants")
        hessian = np.asarray(constants).transpose(0, 2, 1, 3).reshape(3 * len(supercell), -1)
        hessian = hessian * (Rydberg / Bohr**2)
        yield labelled(
            supercell.numbers,
            supercell.positions * Bohr,
            cell=supercell.cell * Bohr,
            pbc=True,
            hessian=acoustic_sum_rule(hessian) if asr else hessian,
            info={"name": path.stem, "role": "supercell", "asr": asr},
        )
    except (ValueError, IndexError, KeyError, RuntimeError, AssertionError, UnicodeDecodeError) as error:
        bad(0, f"not what q2r.x writes, or damaged: {type(error).__name__}: {error}")


def _primitive(path: Path) -> Atoms:
    """Primitive cell from the header of the file."""
    with path.open() as handle:
        head = handle.readline().split()
        kinds, count, ibrav = (int(x) for x in head[:3])
        celldm = [float(x) for x in head[3:9]]
        alat = celldm[0] * Bohr
        if ibrav == 0:
            vectors = np.array([[float(x) for x in handle.readline().split()] for _ in range(3)]) * alat
        else:
            vectors = _lattice(ibrav, celldm[1], celldm[2]) * alat
        symbols = []
        for _ in range(kinds):
            name = handle.readline().split("'")[1].strip()
            symbols.append("".join(c for c in name if c.isalpha())[:2].capitalize())
        atoms = [handle.readline().split() for _ in range(count)]
    positions = np.array([[float(x) for x in a[2:5]] for a in atoms]) * alat
    return Atoms([symbols[int(a[1]) - 1] for a in atoms], positions, cell=vectors, pbc=True)


def _lattice(ibrav: int, b: float, c: float) -> np.ndarray:
    """Lattice vectors over alat, as the input description of pw.x defines them (b, c: celldm(2), celldm(3))."""
    lattices = {
        1: np.eye(3),
        2: np.array([[-1, 0, 1], [0, 1, 1], [-1, 1, 0]]) / 2,
        3: np.array([[1, 1, 1], [-1, 1, 1], [-1, -1, 1]]) / 2,
        4: np.array([[1, 0, 0], [-0.5, np.sqrt(3) / 2, 0], [0, 0, c]]),
        6: np.diag([1, 1, c]),
        8: np.diag([1, b, c]),
    }
    if ibrav not in lattices:
        raise RecordError(f"ibrav = {ibrav} is not read; run pw.x, ph.x and q2r.x with ibrav = 0 and CELL_PARAMETERS")
    return lattices[ibrav]


def acoustic_sum_rule(hessian: np.ndarray) -> np.ndarray:
    """The nearest symmetric Hessian (Frobenius norm) under which a common shift of all atoms raises no forces."""
    n = len(hessian) // 3
    blocks = (0.5 * (hessian + hessian.T)).reshape(n, 3, n, 3)
    blocks = blocks - blocks.mean(axis=0, keepdims=True)
    blocks = blocks - blocks.mean(axis=2, keepdims=True)
    return blocks.reshape(3 * n, 3 * n)
