"""phonopy's cells, to and from ASE's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ase import Atoms

if TYPE_CHECKING:
    from phonopy.structure.atoms import PhonopyAtoms


def from_phonopy_atoms(cell: PhonopyAtoms) -> Atoms:
    """ASE's atoms of phonopy's."""
    return Atoms(cell.symbols, positions=cell.positions, cell=cell.cell, masses=cell.masses, pbc=True)


def to_phonopy_atoms(atoms: Atoms) -> PhonopyAtoms:
    """phonopy's atoms of ASE's, with their masses."""
    from phonopy.structure.atoms import PhonopyAtoms

    return PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(),
        cell=atoms.cell.array,
        positions=atoms.positions,
        masses=atoms.get_masses(),
    )
