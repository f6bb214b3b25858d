"""Energies of two levels of theory on one scale: a constant for each element is all that is changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from ase import Atoms


class AtomicEnergies:
    """Least-squares energies of the elements, from a stream of labelled structures.

    Attributes
    ----------
    values
        (119,) eV by atomic number; 0 for elements that did not occur. Where the compositions do not determine them
        (for example isomers only), the smallest solution is taken: sums over combinations of these compositions are
        right, :meth:`sum` refuses others.
    seen
        Atomic numbers that occurred.
    """

    def __init__(self, structures: Iterable[Atoms]) -> None:
        normal, right = np.zeros((119, 119)), np.zeros(119)
        count = 0
        for atoms in structures:
            if not _has_energy(atoms):
                continue
            composition = np.bincount(atoms.numbers, minlength=119).astype(float)
            normal += np.outer(composition, composition)
            right += composition * float(atoms.info["REF_energy"])
            count += 1
        if not count:
            raise ValueError("no structure has an energy (REF_energy)")
        self.seen = set(np.flatnonzero(np.diag(normal)).tolist())
        inverse = np.linalg.pinv(normal, rcond=1e-10, hermitian=True)
        self.values = inverse @ right
        self._span = inverse @ normal

    def sum(self, atoms: Atoms) -> float:
        """Energy of the separate atoms, eV.

        Raises
        ------
        ValueError
            If the fitted structures do not determine it.
        """
        composition = np.bincount(atoms.numbers, minlength=119).astype(float)
        if np.linalg.norm(self._span @ composition - composition) > 1e-6 * np.linalg.norm(composition):
            raise ValueError(
                f"the structures do not determine the energy of the atoms of {atoms.get_chemical_formula()}: their "
                "compositions are too few or too alike; add some of this composition"
            )
        return float(self.values @ composition)


def _has_energy(atoms: Atoms) -> bool:
    """Whether a structure has a usable energy; others are named where labels are checked."""
    energy = np.asarray(atoms.info.get("REF_energy"))
    return bool(energy.dtype.kind in "iuf" and energy.size == 1 and np.isfinite(energy).all())


def aligned(structures: Iterable[Atoms], own: AtomicEnergies, other: AtomicEnergies) -> Iterator[Atoms]:
    """Shift energies from the scale of one level of theory to that of another; forces and Hessians stay.

    A model pre-trained on the other level then starts from energies that differ by interactions only.

    Parameters
    ----------
    structures
        Labelled at the first level.
    own, other
        Atomic energies of the first and of the other level.

    Raises
    ------
    ValueError
        If an element or a composition has no energy at either level.
    """
    for atoms in structures:
        if _has_energy(atoms):
            for energies, which in ((other, "other set"), (own, "set that gives the constants")):
                missing = set(atoms.numbers.tolist()) - energies.seen
                if missing:
                    raise ValueError(f"no structure of the {which} holds the element with atomic number {min(missing)}")
            try:
                shift = other.sum(atoms) - own.sum(atoms)
            except ValueError as error:
                raise ValueError(f"cannot align energies: {error}") from None
            atoms.info["REF_energy"] = float(atoms.info["REF_energy"]) + shift
        yield atoms
