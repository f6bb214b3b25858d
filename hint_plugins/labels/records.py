"""What the readers of all kinds of files share: errors, and labels under one set of names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms

#: (index in the file, reason) of a record that cannot be used.
OnBad = Callable[[int, str], None]


class StoreError(ValueError):
    """A file that cannot be read or written; the message names the file, the record and the reason."""


def raise_bad(path: Path) -> OnBad:
    """The strict policy: the first bad record is an error."""

    def stop(index: int, reason: str) -> None:
        raise StoreError(f"{path}, structure {index}: {reason}")

    return stop


def adopt_calculator(atoms: Atoms) -> Atoms:
    """Labels under ASE's plain names (``energy``, ``forces``, ``stress``) get ours, unless those exist."""
    results = dict(getattr(atoms.calc, "results", {}))
    atoms.calc = None
    if "energy" in results:
        atoms.info.setdefault("REF_energy", float(results["energy"]))
    if "forces" in results and "REF_forces" not in atoms.arrays:
        atoms.arrays["REF_forces"] = np.asarray(results["forces"])
    if "stress" in results:
        atoms.info.setdefault("REF_stress", np.asarray(results["stress"]))
    return atoms
