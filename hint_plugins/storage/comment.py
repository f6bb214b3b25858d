"""Values of the comment line of extended XYZ that ASE would write so that they read back as something else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase.io.extxyz import escape, key_val_str_to_dict

_QUOTED = re.compile(r"\"(?:\\.|[^\"\\])*\"|'[^']*'|\{[^}]*\}|\[[^\]]*\]")
_EMPTY = re.compile(r"=\s*(?=\s[^\s=]+=|$)")


def plain_info(info: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of ``info`` in a form that ASE writes and reads back equal.

    Text that would be read as a number, a truth value or several entries, empty text, dictionaries, None and arrays of
    other than one dimension go as JSON, which ASE's reader knows.

    Raises
    ------
    TypeError
        For values that have no form in JSON.
    """
    return {name: _plain(value) for name, value in info.items()}


def _plain(value: Any) -> Any:
    if type(value).__name__ == "Spacegroup":
        value = str(value.symbol)
    if isinstance(value, str):
        return value if _reads_back(value) else _json(value)
    if isinstance(value, (bool, np.bool_, int, float, np.integer, np.floating)):
        return value
    array = value if isinstance(value, np.ndarray) else None
    if array is not None and array.ndim == 1 and array.size > 1 and array.dtype.kind in "biuf":
        return array
    return _json(value)


def _reads_back(value: str) -> bool:
    """Whether ASE reads the text back as it is."""
    if not value.isprintable() or "\\" in value:
        return False
    try:
        found = key_val_str_to_dict(f"x={escape(value)} y=1")
    except Exception:
        return False
    return set(found) == {"x", "y"} and isinstance(found["x"], str) and found["x"] == value


def _json(value: Any) -> str:
    """The JSON form as ASE's reader wants it, which takes one level of backslashes off."""
    text = json.dumps(value, ensure_ascii=False, default=_jsonable)
    return ("_JSON " + text).replace("\\", "\\\\")


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufU":
        return value.tolist()
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def mend_empty_values(comment: str) -> str:
    """``note= REF_energy=-1`` as empty text and an energy; ASE reads the text ``REF_energy=-1``."""
    masked = _QUOTED.sub(lambda m: ("q" if len(m[0]) > 2 else " ") * len(m[0]), comment)
    for match in reversed(list(_EMPTY.finditer(masked))):
        comment = comment[: match.start()] + '="_JSON \\"\\"" ' + comment[match.end() :]
    return comment
