"""Do the energies of a file belong to its forces? Differences between neighbouring geometries tell."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.units import Hartree, Rydberg

from hint_plugins.labels.keys import Keys
from hint_plugins.units import HARTREE_PER_BOHR, KCAL, KJ

#: Geometries are neighbours when no atom moves further than this (A).
MAX_STEP = 0.6
#: Smallest energy difference (eV, as the forces say) that tells anything.
MIN_DIFFERENCE = 0.02
#: So many pairs are needed, and so many earlier geometries of a molecule are kept to find them.
MIN_PAIRS, KEPT = 3, 16
#: Training hosts judge the first structures of a file, at most so many.
MAX_JUDGED = 1000
#: What the energies may be, by the ratio of their differences to those of the forces.
RATIOS = {
    "the energies are in Hartree (multiply by 27.2114), or the forces in another unit": 1 / Hartree,
    "the energies are in Rydberg (multiply by 13.6057), or the forces in another unit": 1 / Rydberg,
    "the energies are in kcal/mol (divide by 23.0605), or the forces in another unit": 1 / KCAL,
    "the energies are in kJ/mol (divide by 96.4853), or the forces in another unit": 1 / KJ,
    "the forces are in Ha/Bohr (multiply by 51.422), or the energies in another unit": HARTREE_PER_BOHR,
    "the forces are in Ha/A (multiply by 27.2114), or the energies in another unit": Hartree,
    "forces or energies have the wrong sign": -1.0,
}
#: ... or, for energies of all electrons: |E / E_atoms - 1| is below 0.03 in Hartree with the energies of statistical
#: atoms, ``-0.768745 Z^(7/3) + Z^2 / 2 - 0.2699 Z^(5/3)`` (Schwinger); no valence-only energy in eV comes near.
MAX_ALL_ELECTRON = 0.03


class EnergySeries:
    """Collects the structures of a file; :meth:`verdict` says what is wrong with their energies as a whole."""

    def __init__(self, keys: Keys = Keys()) -> None:
        self._keys = keys
        self._kept: dict[bytes, list[tuple[np.ndarray, float, np.ndarray | None]]] = {}
        self._pairs: list[tuple[float, float]] = []
        self._count = self._hartree = 0

    def add(self, atoms: Atoms) -> None:
        """Take one structure whose labels stood :func:`~hint_plugins.labels.structure_check.check_structure`."""
        energy = atoms.info.get(self._keys.energy)
        if energy is not None:
            self.take(atoms, float(np.ravel(energy)[0]), atoms.arrays.get(self._keys.forces))

    def take(self, atoms: Atoms, energy: float, forces: np.ndarray | None) -> None:
        """Take one structure with its energy (eV) and forces (N, 3) in eV/A, all finite."""
        z = atoms.numbers.astype(float)
        if z.max() > 2:
            atoms_energy = float((-0.768745 * z ** (7 / 3) + z**2 / 2 - 0.2699 * z ** (5 / 3)).sum())
            self._count += 1
            self._hartree += abs(energy / atoms_energy - 1) < MAX_ALL_ELECTRON
        if forces is None:
            return
        key = atoms.numbers.tobytes() + np.asarray(atoms.cell).tobytes() + atoms.pbc.tobytes()
        key += repr([atoms.info.get(name) for name in ("charge", "spin")]).encode()
        others = self._kept.setdefault(key, [])
        for positions, other, pull in others:
            step = atoms.positions - positions
            if np.abs(step).max() < MAX_STEP and pull is not None:
                expected = -0.5 * float(((forces + pull) * step).sum())
                if abs(expected) > MIN_DIFFERENCE:
                    self._pairs.append((expected, energy - other))
        others.append((atoms.positions.copy(), energy, np.asarray(forces, dtype=float)))
        del others[:-KEPT]

    def verdict(self) -> str:
        """What is wrong, in words; empty when nothing is, or nothing can be said."""
        if self._count > 1 and self._hartree > 0.9 * self._count:
            return (
                "the energies are those of all electrons in Hartree (multiply by 27.2114): "
                f"{self._hartree} of {self._count} are near the sum of the atoms'"
            )
        if len(self._pairs) < MIN_PAIRS:
            return ""
        ratio = float(np.median([found / expected for expected, found in self._pairs]))
        for text, value in RATIOS.items():
            if abs(ratio / value - 1) < 0.1:
                return (
                    f"energies change {ratio:.3g} times as much as the forces say, in {len(self._pairs)} pairs: {text}"
                )
        return ""
