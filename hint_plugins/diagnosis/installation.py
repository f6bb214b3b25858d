"""Facts about an installation, for ``hint doctor``."""

from __future__ import annotations

import platform
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version

import torch

PACKAGES = (
    "hint-plugins",
    "torch",
    "numpy",
    "ase",
    "e3nn",
    "mace-torch",
    "fairchem-core",
    "matscipy",
    "tblite",
    "pyscf",
    "phonopy",
    "sella",
    "python-sscha",
    "CellConstructor",
)
GROUPS = ("hint_plugins", "hint_plugins.hosts", "hint_plugins.commands")


def installed_versions() -> dict[str, str | None]:
    """Version of every package that matters; None when it is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def registered() -> dict[str, dict[str, str]]:
    """Entry points of each group: "ok", or why one cannot be loaded."""
    return {group: {entry.name: _state(entry) for entry in entry_points(group=group)} for group in GROUPS}


def _state(entry: EntryPoint) -> str:
    try:
        entry.load()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "ok"


def devices() -> list[str]:
    """What torch can compute on."""
    found = [f"cpu ({torch.get_num_threads()} threads)"]
    for k in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(k)
        found.append(f"cuda:{k} ({properties.name}, {properties.total_memory / 2**30:.0f} GiB)")
    return found
