"""Which minima a reaction coordinate connects: by bonds, and by geometry where the bonds of both ends agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import minimize_rotation_and_translation
from ase.geometry import find_mic

from hint_plugins.structures.frozen import free_components
from hint_recipes.failures import SearchFailure
from hint_recipes.molecules.transition_states.bonds import bond_matrix

#: Structures further apart than this (A, :func:`rmsd`), or further than this in energy (eV), are other conformers.
SAME_RMSD, SAME_ENERGY = 0.25, 0.02
ROLES = ("reactant", "product")


def rmsd(first: Atoms, second: Atoms) -> float:
    """Root mean square distance (A) of the atoms, each from the same atom of the other structure.

    Molecules are first laid upon each other by the best rotation and translation (no reflection, no exchange of
    atoms); crystals, slabs and structures with frozen atoms stay where they are.
    """
    moved = first.copy()
    if first.pbc.any() or not free_components(first).all():
        apart = find_mic(first.positions - second.positions, first.cell, first.pbc)[0]
    else:
        minimize_rotation_and_translation(second, moved)
        apart = moved.positions - second.positions
    return float(np.sqrt((apart**2).sum(axis=1).mean()))


@dataclass
class EndPoints:
    """Reactant and product: as they were given (their bonds count) and relaxed (their geometries count).

    Attributes
    ----------
    graphs
        Bonds of the given end points, (N, N) each.
    relaxed
        The minima they relax to, with energies.
    """

    graphs: tuple[np.ndarray, np.ndarray]
    relaxed: tuple[Atoms, Atoms]

    @property
    def conformational(self) -> bool:
        """Whether no bond changes, so that only the geometry tells reactant and product apart."""
        return bool(np.array_equal(*self.graphs))

    @property
    def tolerance(self) -> float:
        """Largest :func:`rmsd` (A) at which a structure is one of the end points; less than halfway to the other."""
        return min(SAME_RMSD, 0.5 * rmsd(*self.relaxed))

    def merged(self) -> bool:
        """Whether the relaxed end points are the same molecule, or conformer where no bond changes."""
        if not same_bonds(*self.relaxed):
            return False
        return not self.conformational or same_geometry(*self.relaxed, SAME_RMSD / 2)

    def kept_bonds(self) -> list[bool]:
        """Whether the relaxation left the bonds of reactant and product as they were."""
        return [bool(np.array_equal(g, bond_matrix(a))) for g, a in zip(self.graphs, self.relaxed, strict=True)]

    def order(self, first: Atoms, second: Atoms) -> tuple[Atoms, Atoms]:
        """The two ends of a coordinate, the one nearer to the reactant (by bonds, then by geometry) first."""

        def distance(pair: tuple[Atoms, Atoms]) -> tuple[int, float]:
            wrong = sum(not np.array_equal(bond_matrix(a), g) for a, g in zip(pair, self.graphs, strict=True))
            return wrong, sum(rmsd(a, b) for a, b in zip(pair, self.relaxed, strict=True))

        return min(((first, second), (second, first)), key=distance)

    def describe(self, ends: tuple[Atoms, Atoms]) -> dict[str, Any]:
        """What a record says of the ends of a coordinate (ordered, with energies).

        Returns
        -------
        dict
            ``irc_reactant_energy, irc_product_energy`` (eV above the relaxed reactant), ``irc_reactant_rmsd,
            irc_product_rmsd`` (A from the relaxed end point), ``irc_reactant_conformer, irc_product_conformer``:
            ``same`` as the relaxed end point, ``other`` (its bonds, another geometry or mirror image), or None
            (other bonds).
        """
        found: dict[str, Any] = {}
        zero = self.relaxed[0].get_potential_energy()
        for role, end, graph, known in zip(ROLES, ends, self.graphs, self.relaxed, strict=True):
            bonds = np.array_equal(bond_matrix(end), graph)
            same = "same" if same_geometry(end, known, self.tolerance) else "other"
            found |= {
                f"irc_{role}_energy": float(end.get_potential_energy() - zero),
                f"irc_{role}_rmsd": rmsd(end, known),
                f"irc_{role}_conformer": same if bonds else None,
            }
        return found

    def judge(self, ends: tuple[Atoms, Atoms]) -> None:
        """Raise unless the two ends of a coordinate are reactant and product (ordered, with energies).

        Bonds decide; where those of reactant and product agree, the geometry decides.

        Raises
        ------
        SearchFailure
            ``same_end_twice``, ``one_end_wrong`` or ``both_ends_wrong``.
        """
        graphs = [bond_matrix(end) for end in ends]
        found = [
            [
                np.array_equal(graph, wanted) and (not self.conformational or same_geometry(end, known, self.tolerance))
                for wanted, known in zip(self.graphs, self.relaxed, strict=True)
            ]
            for end, graph in zip(ends, graphs, strict=True)
        ]
        if found[0][0] and found[1][1]:
            return
        if same_bonds(*ends) and (not self.conformational or same_geometry(*ends, self.tolerance)):
            raise SearchFailure("same_end_twice", "an end point" if any(found[0]) else "neither end point")
        what = "conformer" if self.conformational else "molecule"
        if any(found[0]) or any(found[1]):
            here = "reactant" if found[0][0] or found[1][0] else "product"
            raise SearchFailure("one_end_wrong", f"only the {here} is reached; the other end is another {what}")
        raise SearchFailure("both_ends_wrong", f"both ends are other {what}s")


def same_bonds(first: Atoms, second: Atoms) -> bool:
    """Whether the same atoms are bonded in two structures."""
    return bool(np.array_equal(bond_matrix(first), bond_matrix(second)))


def same_geometry(first: Atoms, second: Atoms, tolerance: float) -> bool:
    """Whether two evaluated structures are the same conformer: within ``tolerance`` (A) and :data:`SAME_ENERGY`."""
    apart = abs(first.get_potential_energy() - second.get_potential_energy())
    return apart < SAME_ENERGY and rmsd(first, second) < tolerance
