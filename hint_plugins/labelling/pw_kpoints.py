"""The k-points of a pw.x input file: the template's grid, or one of equal density for cells of every size."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.labelling.pw_input import PwTemplate


def read_kpoints(template: PwTemplate, kspacing: float | None) -> dict[str, Any]:
    """Grid and shift of ``K_POINTS``; empty with ``kspacing``, ``kpts`` None for the routines of the Gamma point.

    Raises
    ------
    ValueError
        For lists of k-points and cards that belong to another grid.
    """
    if kspacing:
        if "ADDITIONAL_K_POINTS" in template.cards:
            raise ValueError(
                "the template's ADDITIONAL_K_POINTS belong to its own grid: leave out kspacing, or the card"
            )
        return {}
    option, rows = template.cards.get("K_POINTS", ("", []))
    if "gamma" in option.lower() and not rows:
        return {"kpts": None}
    if "automatic" in option.lower() and len(rows) == 1:
        grid = [int(x) for x in rows[0].split()[:6]]
        if len(grid) == 6:
            return {"kpts": tuple(grid[:3]), "koffset": tuple(grid[3:6])}
    raise ValueError(
        "the template's K_POINTS must be automatic or gamma (or give kspacing)"
        + (f"; its lines are {rows}" if rows else "")
    )


def kpoint_rows(kpoints: dict[str, Any], kspacing: float | None, atoms: Atoms) -> list[str]:
    """Lines of ``K_POINTS`` for a structure; ``kpoints`` as :func:`read_kpoints` gives them."""
    from ase.io.espresso import kspacing_to_grid

    if kspacing:
        grid, shift = kspacing_to_grid(atoms, kspacing / (2 * np.pi)), (0, 0, 0)
    elif kpoints["kpts"] is None:
        return ["K_POINTS gamma"]
    else:
        grid, shift = kpoints["kpts"], kpoints["koffset"]
    return ["K_POINTS automatic", f"{' '.join(map(str, grid))}  {' '.join(map(str, shift))}"]
