"""Results of single items on disk, so that a study that was killed goes on where it stood."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.runs.files import plain, replacing, write_json
from hint_plugins.structures.copies import state


def digest(*parts: Any) -> str:
    """Short hash of settings (mappings, numbers, text) and structures (geometry, masses, charges, constraints)."""
    content = hashlib.sha256()
    for part in parts:
        if isinstance(part, Atoms):
            for array in (part.numbers, np.round(part.positions, 8), part.cell.array, part.pbc, part.get_masses()):
                content.update(np.ascontiguousarray(array).tobytes())
            part = state(part)
        content.update(json.dumps(plain(part), sort_keys=True, default=str).encode())
    return content.hexdigest()[:16]


def file_digest(spec: str) -> str:
    """Identity of a potential: its name, and the state of the file behind it.

    For a file that is its size and time of change; for ``module:factory`` a hash of the module's source, so that a
    changed calculator is another model.
    """
    name = spec.partition("#")[0]
    path = Path(name)
    if path.is_file():
        status = path.stat()
        return f"{spec}:{status.st_size}:{status.st_mtime_ns}"
    source = _module_source(name.partition(":")[0]) if ":" in name else None
    return spec if source is None else f"{spec}:{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"


def _module_source(module: str) -> Path | None:
    """The file of a module that can be imported; None for a built-in one, a package's name or any other text."""
    import importlib.util

    try:
        found = importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError):
        return None
    return Path(found.origin) if found is not None and found.origin and Path(found.origin).is_file() else None


def safe_name(name: str) -> str:
    """``name`` as a file name; names that had to be changed get a hash, so that they stay different."""
    safe = re.sub(r"[^A-Za-z0-9._+-]", "_", name)[:80].strip(".") or "unnamed"
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def write_frames(path: Path, frames: Sequence[Atoms]) -> None:
    """Write structures with the results of their calculators as extended XYZ, whole or not at all."""
    from ase.io import write

    with replacing(path) as temporary:
        write(temporary, list(frames), format="extxyz")


class ItemStore:
    """One JSON file an item; an item counts as done when its file holds the same key.

    Parameters
    ----------
    directory
        Where the files lie; made when it is missing.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """The file of an item."""
        return self.directory / f"{safe_name(name)}.json"

    def get(self, name: str, key: str) -> dict[str, Any] | None:
        """What was stored under this name with this key, or None."""
        try:
            content = json.loads(self.path(name).read_text())
        except (OSError, ValueError):
            return None
        return content["result"] if isinstance(content, dict) and content.get("key") == key else None

    def put(self, name: str, key: str, result: Mapping[str, Any]) -> None:
        """Store, whole or not at all."""
        write_json(self.path(name), {"key": key, "result": result})
