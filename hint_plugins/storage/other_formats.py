"""Structures in any other format that ASE reads: POSCAR, CIF, .traj, OUTCAR, ..."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ase import Atoms

from hint_plugins.storage.records import OnBad, adopt_calculator


def known_to_ase(path: Path) -> bool:
    """Whether ASE names a format for a file, from its name or its first bytes."""
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    try:  # an absolute path, since ASE takes some relative ones (postgres...) for addresses
        return filetype(str(path.absolute())) in ioformats
    except (UnknownFileTypeError, OSError):
        return False


def read_other(path: Path, bad: OnBad) -> Iterator[tuple[int, Atoms]]:
    """Stream place and structure; at the first that cannot be read, the rest is given up.

    Energy, forces and stress that the file states become labels.
    """
    from ase.io import iread

    index = 0
    try:
        for atoms in iread(path.absolute(), ":", do_not_split_by_at_sign=True):
            yield index, adopt_calculator(_without_symmetry(atoms))
            index += 1
    except Exception as error:  # ASE's readers raise whatever the format happens to trigger
        text = str(error).partition("\n")[0]
        bad(index, f"ASE cannot read it ({type(error).__name__}: {text}); the rest of the file is not read")


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
