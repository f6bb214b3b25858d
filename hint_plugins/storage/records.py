"""What the readers and writers of all kinds of files share: errors, and labels under one set of names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.errors import HintError

#: (index in the file, reason) of a record that cannot be used.
OnBad = Callable[[int, str], None]
#: ASE's plain names of labels and ours.
ADOPTED = {"energy": "REF_energy", "forces": "REF_forces", "stress": "REF_stress"}


class StoreError(HintError, ValueError):
    """A file that cannot be read or written; the message names the file, the record and the reason."""


class UnwritableError(StoreError):
    """A structure that a file cannot hold: nothing of it was written, and others may follow."""


def raise_bad(path: Path) -> OnBad:
    """The strict policy: the first bad record is an error."""

    def stop(index: int, reason: str) -> None:
        raise StoreError(f"{path}, structure {index}: {reason}")

    return stop


def adopt_calculator(atoms: Atoms) -> Atoms:
    """Turn a calculator's results into entries of ``info`` and ``arrays``.

    ``energy``, ``forces`` and ``stress`` get our names unless those exist; all else keeps its name.
    """
    results = dict(getattr(atoms.calc, "results", {}))
    atoms.calc = None
    for name, value in results.items():
        if value is None:
            continue
        per_atom = np.ndim(value) > 0 and name in ("forces", "charges", "magmoms", "energies", "stresses")
        store: Any = atoms.arrays if per_atom else atoms.info
        ours = ADOPTED.get(name, name)
        if ours not in store:
            store[ours] = np.asarray(value) if np.ndim(value) else value
        elif ours != name and not same_values(store[ours], value):
            store[name] = np.asarray(value) if np.ndim(value) else value
    return atoms


def voigt(stress: Any) -> np.ndarray:
    """Six components (xx, yy, zz, yz, xz, xy) of a stress given as six numbers, as nine, or as a 3x3 matrix.

    Raises
    ------
    ValueError
        Another number of components, text, or a matrix that is not symmetric.
    """
    try:
        values = np.asarray(stress)
        if values.dtype.kind not in "iuf":
            raise TypeError
    except (TypeError, ValueError):
        raise ValueError(f"a stress is six or nine real numbers, not {str(stress)[:40]!r}") from None
    flat = values.astype(np.float64).reshape(-1)
    if flat.size == 6:
        return flat
    if flat.size != 9:
        raise ValueError(f"a stress has six numbers or is a 3x3 matrix, not {flat.size} numbers")
    matrix = flat.reshape(3, 3)
    if np.abs(matrix - matrix.T).max() > 1e-6 + 1e-3 * np.abs(matrix).max():
        raise ValueError(f"the stress is not symmetric: {matrix.tolist()}")
    return (0.5 * (matrix + matrix.T)).reshape(-1)[[0, 4, 8, 5, 2, 1]]


def same_values(one: Any, other: Any, rtol: float = 1e-6, atol: float = 1e-8) -> bool:
    """Whether two values of any kind say the same; the shape of a table of numbers does not matter."""
    if isinstance(one, dict) or isinstance(other, dict):
        if not isinstance(one, dict) or not isinstance(other, dict) or set(one) != set(other):
            return False
        return all(same_values(one[key], other[key], rtol, atol) for key in one)
    if one is None or other is None or isinstance(one, str) or isinstance(other, str):
        return (one is None) == (other is None) and isinstance(one, str) == isinstance(other, str) and one == other
    first, second = _array(one), _array(other)
    if first is not None and second is not None:
        if first.size != second.size or ((first.dtype.kind == "b") != (second.dtype.kind == "b") and first.size):
            return False
        return bool(np.allclose(first.reshape(-1), second.reshape(-1), rtol, atol, equal_nan=True))
    if first is not None or second is not None:
        return False
    pairs = [list(x) if isinstance(x, (list, tuple, np.ndarray)) else None for x in (one, other)]
    if pairs[0] is None or pairs[1] is None:
        return bool(one == other)
    return len(pairs[0]) == len(pairs[1]) and all(
        same_values(a, b, rtol, atol) for a, b in zip(pairs[0], pairs[1], strict=True)
    )


def _array(value: Any) -> np.ndarray | None:
    """``value`` as an array of numbers; None when it is none."""
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    return array if array.dtype.kind in "biuf" else None
