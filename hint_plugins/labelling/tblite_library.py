"""Importing tblite where the system has no OpenMP runtime: its wheel brings all libraries but ``libgomp.so.1``."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType


def import_tblite(name: str = "tblite.interface") -> ModuleType:
    """Import a module of tblite; where ``libgomp.so.1`` is missing, with the one that torch brings.

    Raises
    ------
    ImportError
        If tblite is not installed, or a library is missing; the message says which package brings it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if "libgomp" not in f"{error} {error.__cause__}":
            raise
        if not _load_openmp_of_torch():
            raise ImportError(
                "tblite needs the OpenMP runtime libgomp.so.1: install it (Debian and Ubuntu: apt-get install libgomp1)"
            ) from error
    return importlib.import_module(name)


def _load_openmp_of_torch() -> bool:
    """Load torch's copy, so that the loader finds the name ``libgomp.so.1`` taken; torch itself is not imported."""
    found = importlib.util.find_spec("torch")
    for folder in (found.submodule_search_locations or []) if found else []:
        library = Path(folder) / "lib" / "libgomp.so.1"
        if library.is_file():
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
            return True
    return False
