"""tblite on a machine without an OpenMP runtime of its own."""

import ctypes
import importlib
import types
from pathlib import Path

import pytest

from hint_plugins.labelling import tblite_library


def broken(cause: str) -> ImportError:
    error = ImportError("tblite C extension unimportable, cannot use C-API")
    error.__cause__ = ImportError(cause)
    return error


def test_torchs_runtime_stands_in(monkeypatch):
    """The first import fails for want of libgomp; with torch's copy loaded the second succeeds."""
    module, loaded = types.ModuleType("tblite.interface"), []

    def load(name):
        if not loaded:
            raise broken("libgomp.so.1: cannot open shared object file: No such file or directory")
        return module

    monkeypatch.setattr(ctypes, "CDLL", lambda path, mode: loaded.append(path))
    monkeypatch.setattr(Path, "is_file", lambda path: path.name == "libgomp.so.1")
    monkeypatch.setattr(importlib, "import_module", load)
    assert tblite_library.import_tblite() is module
    assert loaded[0].endswith("torch/lib/libgomp.so.1")


def test_what_is_missing_is_said(monkeypatch):
    def load(name):
        raise broken("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", load)
    monkeypatch.setattr(tblite_library, "_load_openmp_of_torch", lambda: False)
    with pytest.raises(ImportError, match="apt-get install libgomp1"):
        tblite_library.import_tblite()


def test_other_errors_pass(monkeypatch):
    def load(name):
        raise ModuleNotFoundError("No module named 'tblite'")

    monkeypatch.setattr(importlib, "import_module", load)
    with pytest.raises(ModuleNotFoundError, match="tblite"):
        tblite_library.import_tblite()
