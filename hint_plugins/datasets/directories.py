"""Files below a directory, links followed."""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path


def is_options(file: Path) -> bool:
    """Whether a file holds the options of a command of this package, written beside its results, and no data."""
    return file.name == "config.yaml" or file.name.endswith(".config.yaml")


def files_below(directory: Path, pattern: str) -> list[Path]:
    """Sorted files whose name fits ``pattern``, each directory entered once.

    Links to directories are followed, so that data kept elsewhere are found; a link back to a directory that was
    entered already ends there. Links that lead nowhere are in the list: opening them says so.
    """
    entered: set[tuple[int, int]] = set()
    found: list[Path] = []
    for folder, names, files in os.walk(directory, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in entered:
            names.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        names.sort()
        found += [Path(folder) / name for name in files if fnmatch.fnmatchcase(name, pattern)]
    return sorted(found)
