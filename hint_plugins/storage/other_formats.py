"""Structures in any other format that ASE reads: POSCAR, CIF, .traj, OUTCAR, ..."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from ase import Atoms

from hint_plugins.storage.records import OnBad, adopt_calculator
from hint_plugins.structures.isotopes import ISOTOPES


def known_to_ase(path: Path) -> bool:
    """Whether ASE names a format for a file, from its name or its first bytes."""
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    try:  # an absolute path, since ASE takes some relative ones (postgres...) for addresses
        return filetype(str(path.absolute())) in ioformats
    except (UnknownFileTypeError, OSError):
        return False


def read_other(path: Path, bad: OnBad) -> Iterator[tuple[int, Atoms]]:
    """Stream place and structure; at the first that cannot be read, the rest is given up.

    Energy, forces and stress that the file states become labels. ``D`` and ``T`` in a POSCAR are hydrogen of their
    mass.
    """
    from ase.io import iread

    index = 0
    try:
        if (atoms := _poscar_with_isotopes(path)) is not None:
            yield index, atoms
            return
        for atoms in iread(path.absolute(), ":", do_not_split_by_at_sign=True):
            yield index, adopt_calculator(_without_symmetry(atoms))
            index += 1
    except Exception as error:  # ASE's readers raise whatever the format happens to trigger
        text = str(error).partition("\n")[0]
        bad(index, f"ASE cannot read it ({type(error).__name__}: {text}); the rest of the file is not read")


def _poscar_with_isotopes(path: Path) -> Atoms | None:
    """The structure of a POSCAR with ``D`` or ``T`` among its species, which ASE does not know; None for others."""
    from ase.io import read
    from ase.io.formats import filetype

    if filetype(str(path.absolute())) != "vasp":
        return None
    lines = path.read_text().splitlines()
    names = lines[5].split() if len(lines) > 6 else []
    if not set(names) & set(ISOTOPES):
        return None
    lines[5] = " ".join("H" if name in ISOTOPES else name for name in names)
    atoms = read(io.StringIO("\n".join(lines) + "\n"), format="vasp")
    assert isinstance(atoms, Atoms)
    masses, place = atoms.get_masses(), 0
    for name, count in zip(names, map(int, lines[6].split()), strict=True):
        masses[place : place + count] = ISOTOPES.get(name, masses[place : place + count])
        place += count
    atoms.set_masses(masses)
    return atoms


def _without_symmetry(atoms: Atoms) -> Atoms:
    """Take away what ASE's CIF reader adds about the space group, which a displaced structure would not keep.

    Raises
    ------
    ValueError
        If sites are occupied in part, of which ASE makes whole atoms.
    """
    occupancy = atoms.info.pop("occupancy", {})
    for site, kinds in occupancy.items() if isinstance(occupancy, dict) else ():
        if len(kinds) != 1 or min(kinds.values()) < 1:
            raise ValueError(f"site {site} is occupied in part ({kinds}): give an ordered cell")
    for name in ("spacegroup", "unit_cell"):
        atoms.info.pop(name, None)
    atoms.arrays.pop("spacegroup_kinds", None)
    return atoms
