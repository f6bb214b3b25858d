"""Phonopy files, as in the MDR phonon database: force constants become the Hessian of the supercell.

``phonopy*.yaml`` (also ``.bz2``, ``.xz``, ``.lzma``, ``.gz``) with force constants, or with displacements and forces
from which phonopy makes them. Two kinds of structures come out: the undisplaced supercell with its Hessian, and the
displaced supercells with their forces. Tried on files that phonopy wrote here, not yet on one of the MDR database.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from ase import Atoms

from hint_plugins.datasets.directories import files_below, is_options
from hint_plugins.datasets.phonopy_file import PhonopyFile, read_phonopy_file
from hint_plugins.datasets.record import RecordError, labelled
from hint_plugins.storage.store import OnBad, StoreError


def read_phonopy(path: Path, bad: OnBad, *, displaced: bool = True) -> Iterator[Atoms]:
    """Stream one phonopy file, or all below a directory.

    Born effective charges are not part of a Hessian: that they are left out is said once.

    Parameters
    ----------
    path
        File or directory (``*.yaml``, ``*.yaml.bz2``, ``.xz``, ``.lzma``, ``.gz``).
    bad
        Takes index and reason of files that cannot be used.
    displaced
        Give the displaced supercells with their forces, too.
    """
    files = [path]
    if path.is_dir():
        files = [file for file in files_below(path, "*.yaml*") if not is_options(file)]
    if not files:
        raise StoreError(f"{path}: no *.yaml files")
    used: dict[Path, Path] = {}
    said = False
    for index, file in enumerate(files):
        try:
            content = read_phonopy_file(file)
            for other in content.taken:
                if other in used:
                    raise RecordError(f"its forces in {other.name} were taken with {used[other].name} already")
                used[other] = file
            if content.has_born and not said:
                said = True
                print(
                    f"hint: {file}: the Born effective charges are left out: labels are the Hessians of supercells, "
                    "which are complete without them",
                    file=sys.stderr,
                )
            yield from _structures(file, content, displaced)
        except (RecordError, OSError) as error:
            bad(index, f"{file.name}: {error}")


def _structures(file: Path, content: PhonopyFile, displaced: bool) -> Iterator[Atoms]:
    info = {"name": file.name.partition(".")[0]}
    cell = content.supercell
    frames = [labelled(
        cell.numbers, cell.positions, hessian=content.hessian, cell=cell.cell.array, pbc=True,
        info={**info, "role": "supercell"},
    )]  # fmt: skip
    for positions, forces, energy in content.displaced if displaced else []:
        frames.append(labelled(
            cell.numbers, positions, forces=forces, energy=energy, cell=cell.cell.array, pbc=True,
            info={**info, "role": "displaced"},
        ))  # fmt: skip
    for atoms in frames:
        atoms.set_masses(cell.get_masses())
    yield from frames
