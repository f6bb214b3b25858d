"""Waits until ``mace.data`` has been imported, then installs the adapter once."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

TARGET = "mace.data"


class AfterImport(importlib.abc.MetaPathFinder):
    """Finder that runs the installation right after :data:`TARGET` has been executed."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute, names = spec.loader.exec_module, self.names

        def exec_module(module: ModuleType) -> None:
            execute(module)
            from hint_mace.install import install_or_exit

            install_or_exit(names)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def arm(names: list[str]) -> None:
    """Insert the finder, unless it is there already."""
    if not any(isinstance(finder, AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, AfterImport(names))
