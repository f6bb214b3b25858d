"""Force constants of a crystal from a potential."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.force_constants.supercells import translate_columns

if TYPE_CHECKING:
    from hint_plugins.potential import Potential


def force_constants_from_potential(
    potential: Potential, primitive: Atoms, multiples: Sequence[int], *, batch_size: int = 16
) -> ForceConstants:
    """Exact force constants of a model: one Hessian-vector product per coordinate of the *unit* cell.

    The other columns follow from lattice translations, so the cost is ``3n`` products for ``n`` atoms in the unit
    cell, whatever the size of the supercell.

    Parameters
    ----------
    potential
        Any :class:`hint_plugins.potential.Potential`.
    primitive, multiples
        The crystal and its repetitions.
    batch_size
        Hessian-vector products evaluated at once.

    Returns
    -------
    ForceConstants
        Symmetrised over ``H = H^T`` only.

    Raises
    ------
    ValueError
        If a repetition is less than 1.
    """
    n1, n2, n3 = (int(m) for m in multiples)
    if min(n1, n2, n3) < 1:
        raise ValueError(f"a supercell repeats the cell at least once along each vector, not {n1}x{n2}x{n3} times")
    supercell = primitive.repeat((n1, n2, n3))
    n, total = 3 * len(primitive), 3 * len(supercell)
    columns = np.zeros((n, total))
    for start in range(0, n, batch_size):
        stop = min(start + batch_size, n)
        vectors = np.zeros((stop - start, total))
        vectors[np.arange(stop - start), np.arange(start, stop)] = 1.0
        columns[start:stop] = np.asarray(potential.hvp(supercell, vectors)).reshape(stop - start, total)
    return ForceConstants(primitive, (n1, n2, n3), translate_columns(columns, (n1, n2, n3)))
