"""Files of dynamical matrices of Quantum ESPRESSO, read and written by CellConstructor."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hint_plugins.datasets.born import DielectricTensors
from hint_plugins.datasets.record import RecordError
from hint_plugins.errors import InputError
from hint_recipes.crystals.force_constants.cellconstructor import (
    complete_grid,
    from_structure,
    require_cellconstructor,
)

if TYPE_CHECKING:
    from cellconstructor.Phonons import Phonons


def read_dynamical_matrices(prefix: str | Path) -> Phonons:
    """Read a set of Quantum ESPRESSO dynamical matrix files ``PREFIX1 ... PREFIXn``.

    The number of files comes from ``PREFIX0`` where it exists, else from the files found.

    Raises
    ------
    InputError
        If files or q points are missing, or a file cannot be read.
    """
    CC = require_cellconstructor()
    prefix = Path(prefix)
    found = {int(match[1]) for path in prefix.parent.glob(f"{prefix.name}*") if (match := _numbered(prefix, path))}
    index_file = Path(f"{prefix}0")
    if index_file.exists():
        try:
            count = int(index_file.read_text().split()[3])
        except (IndexError, ValueError):
            raise InputError(f"{index_file}: expected the q grid and the number of files") from None
    else:
        count = max(found, default=0)
    missing = sorted(set(range(1, min(count, len(found) + 10) + 1)) - found)
    if count < 1 or missing:
        what = ", ".join(f"{prefix}{i}" for i in missing) or f"{prefix}1"
        raise InputError(f"dynamical matrices missing: {what} (give the prefix, e.g. 'dyn' for dyn1, dyn2, ...)")
    try:
        dyn = CC.Phonons.Phonons(str(prefix), nqirr=count)
    except Exception as error:  # the reader raises whatever the malformed line happens to trigger
        raise InputError(f"{prefix}1-{count}: not readable as dynamical matrices: {error}") from None
    complete_grid(dyn)
    return dyn


def tensors_of(dyn: Phonons) -> DielectricTensors | None:
    """Born effective charges and dielectric tensor that a set of files holds; None where it holds none."""
    if dyn.effective_charges is None or dyn.dielectric_tensor is None:
        return None
    charges, dielectric = np.array(dyn.effective_charges), np.array(dyn.dielectric_tensor)
    return DielectricTensors(from_structure(dyn.structure), charges, dielectric)


def read_gamma_tensors(path: Path) -> DielectricTensors:
    """Born effective charges and dielectric tensor of one file of ``ph.x``, that of Gamma.

    Raises
    ------
    RecordError
        If it holds none.
    InputError
        If it cannot be read, or CellConstructor is not installed.
    """
    CC = require_cellconstructor()
    match = re.fullmatch(r"(.*?)(\d*)", path.name)
    number = match[2] if match else ""
    if number != "1":
        raise RecordError(f"give the file of Gamma ({path.name[: len(path.name) - len(number)]}1), which holds them")
    try:
        dyn = CC.Phonons.Phonons(str(path)[:-1], nqirr=1)
    except Exception as error:  # the reader raises whatever the malformed line happens to trigger
        raise InputError(f"not readable as a dynamical matrix: {error}") from None
    tensors = tensors_of(dyn)
    if tensors is None:
        raise RecordError("the file holds none (ph.x writes them at Gamma with epsil = .true.)")
    return tensors


def _numbered(prefix: Path, path: Path) -> re.Match | None:
    return re.fullmatch(re.escape(prefix.name) + r"([1-9]\d*)", path.name)


def write_dynamical_matrices(dyn: Phonons, prefix: str | Path, tensors: DielectricTensors | None = None) -> list[Path]:
    """Write ``PREFIX1 ...`` and the index ``PREFIX0`` that ``q2r.x`` asks for, with the Born effective charges.

    Returns
    -------
    list of Path
        The files written, the index first.
    """
    prefix = Path(prefix)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    if tensors is not None:
        dyn.effective_charges, dyn.dielectric_tensor = np.array(tensors.born), np.array(tensors.dielectric)
    dyn.save_qe(str(prefix))
    multiples = complete_grid(dyn)
    lines = [" ".join(map(str, multiples)), str(len(dyn.q_stars))]
    alat = np.linalg.norm(dyn.structure.unit_cell[0])
    lines += ["".join(f"{component:24.15E}" for component in np.asarray(star[0]) * alat) for star in dyn.q_stars]
    index = Path(f"{prefix}0")
    index.write_text("\n".join(lines) + "\n")
    return [index] + [Path(f"{prefix}{i}") for i in range(1, len(dyn.q_stars) + 1)]
