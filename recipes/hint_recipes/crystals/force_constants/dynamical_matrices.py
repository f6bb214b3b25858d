"""Files of dynamical matrices of Quantum ESPRESSO, read and written by CellConstructor."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hint_plugins.errors import InputError
from hint_recipes.crystals.force_constants.cellconstructor import complete_grid, require_cellconstructor

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


def _numbered(prefix: Path, path: Path) -> re.Match | None:
    return re.fullmatch(re.escape(prefix.name) + r"([1-9]\d*)", path.name)


def write_dynamical_matrices(dyn: Phonons, prefix: str | Path) -> list[Path]:
    """Write ``PREFIX1 ...`` and the index ``PREFIX0`` that ``q2r.x`` asks for.

    Returns
    -------
    list of Path
        The files written, the index first.
    """
    prefix = Path(prefix)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    dyn.save_qe(str(prefix))
    multiples = complete_grid(dyn)
    lines = [" ".join(map(str, multiples)), str(len(dyn.q_stars))]
    alat = np.linalg.norm(dyn.structure.unit_cell[0])
    lines += ["".join(f"{component:24.15E}" for component in np.asarray(star[0]) * alat) for star in dyn.q_stars]
    index = Path(f"{prefix}0")
    index.write_text("\n".join(lines) + "\n")
    return [index] + [Path(f"{prefix}{i}") for i in range(1, len(dyn.q_stars) + 1)]
