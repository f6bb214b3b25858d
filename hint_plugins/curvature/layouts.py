"""One converter between the Hessian layouts in use.

The layout of this project is ``flat``: ``(3N, 3N)``, ``H[3i+a, 3j+b] = d2E / dr_ia dr_jb`` in eV/A^2.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from hint_plugins.units import HESSIAN_UNITS

if TYPE_CHECKING:
    import torch  # the readers of data sets convert numpy arrays and start without torch

Array = TypeVar("Array", np.ndarray, "torch.Tensor")


class Layout(StrEnum):
    """Axis orders found in the wild; ``N`` atoms, ``3`` Cartesian components."""

    RAVEL = "9N2"  #: (9 N^2,), extxyz ``info``, HORM, DeePMD
    FLAT = "3N,3N"  #: (3N, 3N), this project, AIMNet2, fairchem, ASE ``get_hessian``
    MACE = "3N,N,3"  #: (3N, N, 3), MACE's ``calculator.get_hessian``
    BLOCKS = "N,N,3,3"  #: (N, N, 3, 3), phonopy force constants, nequix, pyscf
    ASE = "N,3,N,3"  #: (N, 3, N, 3), ASE ``VibrationsData``, NewtonNet


def _shape(layout: Layout, n: int) -> tuple[int, ...]:
    return {
        Layout.RAVEL: (9 * n * n,),
        Layout.FLAT: (3 * n, 3 * n),
        Layout.MACE: (3 * n, n, 3),
        Layout.BLOCKS: (n, n, 3, 3),
        Layout.ASE: (n, 3, n, 3),
    }[layout]


def _swap_middle(hessian: Array) -> Array:
    return hessian.swapaxes(1, 2)


def convert(hessian: Array, source: Layout | str, target: Layout | str, *, unit: str = "eV/A^2") -> Array:
    """Bring a Hessian from one layout to another, and to eV/A^2.

    Parameters
    ----------
    hessian
        numpy array or torch tensor whose shape is that of ``source``.
    source, target
        Names from :class:`Layout`.
    unit
        Unit of ``hessian``: one of :data:`~hint_plugins.units.HESSIAN_UNITS`. The result is in eV/A^2.

    Returns
    -------
    array
        Same kind (numpy, torch) as the input, in layout ``target``, eV/A^2.

    Raises
    ------
    ValueError
        If a name is unknown or the shape does not fit the source layout.
    """
    try:
        source, target = Layout(source), Layout(target)
    except ValueError as error:
        raise ValueError(f"{error}: known layouts are {', '.join(Layout)}") from None
    if unit not in HESSIAN_UNITS:
        raise ValueError(f"unknown Hessian unit {unit!r}: known units are {', '.join(HESSIAN_UNITS)}")
    n = num_atoms(hessian.shape, source)
    rows = _swap_middle(hessian) if source is Layout.BLOCKS else hessian
    flat: Array = rows.reshape(3 * n, 3 * n)
    if unit != "eV/A^2":
        flat = flat * HESSIAN_UNITS[unit]
    if target is Layout.BLOCKS:
        return _swap_middle(flat.reshape(n, 3, n, 3))
    return flat.reshape(_shape(target, n))


def num_atoms(shape: tuple[int, ...], layout: Layout | str) -> int:
    """Number of atoms that an array of ``shape`` in ``layout`` describes.

    Raises
    ------
    ValueError
        If no number of atoms gives this shape.
    """
    layout = Layout(layout)
    size = int(np.prod(shape)) if len(shape) else 0
    n = round((size / 9) ** 0.5)
    if n < 1 or tuple(shape) != _shape(layout, n):
        raise ValueError(f"an array of shape {tuple(shape)} is no Hessian in layout {layout.value!r}")
    return n
