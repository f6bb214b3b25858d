"""What a file gives for numbers, as arrays of real numbers; anything else is refused by name."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from hint_plugins.errors import HintError


class LabelError(HintError, ValueError):
    """A Hessian label that cannot be used, with the reason."""


def present(value: Any, name: str) -> np.ndarray | None:
    """``value`` as numbers; None where there is nothing."""
    if value is None:
        return None
    array = numbers(value, name)
    return array if array.size else None


def numbers(value: Any, what: str) -> np.ndarray:
    """Flat float64 array of real numbers.

    Raises
    ------
    LabelError
        For text, None, truth values, complex numbers or tables of unequal rows, anywhere in ``value``.
    """
    try:
        array = np.asarray(value)
    except ValueError:
        raise LabelError(f"{what} is a table with rows of unequal length") from None
    if array.dtype.kind in "iuf":
        return array.astype(np.float64).reshape(-1)
    if array.dtype.kind == "c":
        raise LabelError(f"{what} holds complex numbers; second derivatives are real")
    text = str(value)
    if fortran := re.search(r"[-+]?[0-9.]+[dD][-+]?[0-9]+", text):
        raise LabelError(f"{what} holds {fortran[0]!r}, Fortran's form of an exponent; write E in place of D")
    raise LabelError(f"{what} is not made of numbers: {text[:60]!r}")


def integers(values: Any, what: str) -> np.ndarray:
    """Flat array of whole numbers, at least one."""
    index = numbers(values, what)
    if not index.size or (index != np.round(index)).any() or np.abs(index).max() > 2**31:
        raise LabelError(f"{what} must be integers: {index}")
    return index.astype(np.int64)


def rows(values: np.ndarray, count: int, what: str) -> np.ndarray:
    """``count`` rows of length 3N."""
    flat = numbers(values, what)
    if count == 0 or flat.size == 0 or flat.size % count or (flat.size // count) % 3:
        raise LabelError(f"{flat.size} numbers are no {count} {what} of length 3N")
    return flat.reshape(count, -1)


def not_numbers(values: Any, shape: tuple[int, ...]) -> str:
    """Why ``values`` are not real, finite numbers of that shape; empty when they are."""
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.array(None)
    wanted = f"({', '.join(map(str, shape))}) finite" if shape else "one finite"
    fits = array.shape == shape if shape else array.size == 1
    if array.dtype.kind not in "iuf" or not fits:
        return f"not {wanted} number{'s' if shape else ''}: {str(values)[:40]}"
    return "" if np.isfinite(array).all() else f"not {wanted} number{'s' if shape else ''}"
