"""One labelled structure from the arrays of a data set, checked for shapes, elements and finite numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.curvature.layouts import Layout, convert
from hint_plugins.errors import HintError
from hint_plugins.labels.hessian_label import HessianLabel


class RecordError(HintError, ValueError):
    """A record that does not hold what its format promises."""


def labelled(
    numbers: Any,
    positions: Any,
    *,
    energy: Any = None,
    forces: Any = None,
    stress: Any = None,
    hessian: Any = None,
    cell: Any = None,
    pbc: bool = False,
    info: dict[str, Any] | None = None,
) -> Atoms:
    """Build a structure with its labels.

    Parameters
    ----------
    numbers
        (N,) atomic numbers.
    positions
        (N, 3) in A.
    energy, forces, stress, hessian
        eV; (N, 3) in eV/A; (6,) in eV/A^3 with ASE's sign; 9 N^2 numbers in eV/A^2. None where there is no label.
    cell, pbc
        (3, 3) in A; periodic in all directions or not at all.
    info
        Further entries of ``info``.

    Raises
    ------
    RecordError
        Wrong shape, unknown element, a number that is not finite.
    """
    z = real_numbers("atomic numbers", numbers).reshape(-1)
    if z.size == 0:
        raise RecordError("no atoms")
    if not np.isfinite(z).all() or (z != np.round(z)).any():
        raise RecordError("atomic numbers are not integers")
    z = z.astype(int)
    if z.min() < 1 or z.max() > 118:
        raise RecordError(f"unknown element with atomic number {z[(z < 1) | (z > 118)][0]}")
    atoms = Atoms(z, _numbers("positions", positions, (len(z), 3)), pbc=pbc)
    if cell is not None:
        atoms.cell = _numbers("cell", cell, (3, 3))
    if pbc and abs(atoms.cell.volume) < 1e-6:
        raise RecordError("periodic, but the cell has no volume")
    atoms.info.update(info or {})
    if energy is not None:
        atoms.info["REF_energy"] = float(_numbers("energy", energy, ()))
    if forces is not None:
        atoms.arrays["REF_forces"] = _numbers("forces", forces, (len(z), 3))
    if stress is not None:
        atoms.info["REF_stress"] = _numbers("stress", stress, (6,))
    if hessian is not None:
        HessianLabel.full(_numbers("hessian", hessian, (9 * len(z) ** 2,))).to_info(atoms.info)
    return atoms


def _numbers(what: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = real_numbers(what, values)
    if array.size != int(np.prod(shape)):
        raise RecordError(f"{what} has {array.size} numbers where {int(np.prod(shape))} are expected")
    if not np.isfinite(array).all():
        raise RecordError(f"{what} holds a number that is not finite")
    return array.reshape(shape)


def real_numbers(what: str, values: Any) -> np.ndarray:
    """``values`` as float64; text, None and complex numbers are a :class:`RecordError`."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise RecordError(f"{what} is not numeric: {error}") from error
    if array.dtype.kind not in "iuf":
        raise RecordError(f"{what} is not made of real numbers: {str(values)[:60]}")
    return array.astype(np.float64)


def square_hessian(values: Any, n: int) -> np.ndarray:
    """(3N, 3N) from a Hessian with the axes (N, 3, N, 3), (N, N, 3, 3), (3N, 3N) or flat.

    For three atoms the first two have the same shape; then the one that gives the more symmetric matrix is taken.
    """
    array = real_numbers("hessian", values)
    if array.size != 9 * n * n:
        raise RecordError(f"hessian has {array.size} numbers where 9N^2 = {9 * n * n} are expected")
    straight = array.reshape(3 * n, 3 * n)
    if array.shape != (n, n, 3, 3):
        return straight
    blocks = convert(array, Layout.BLOCKS, Layout.FLAT)
    if n == 3 and np.abs(straight - straight.T).max() < np.abs(blocks - blocks.T).max():
        return straight
    return blocks
