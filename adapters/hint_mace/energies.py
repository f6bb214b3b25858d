"""Are the energies of a training file in eV? Said once a file, before the first step."""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
from ase import Atoms
from mace.data import Configuration

from hint_plugins.labels.series import MAX_JUDGED, EnergySeries

log = logging.getLogger(__name__)


def structure_of(config: Configuration) -> Atoms:
    """Elements, positions and cell of a configuration."""
    return Atoms(config.atomic_numbers, config.positions, cell=config.cell, pbc=config.pbc)


class Energies:
    """Collects what MACE reads until :meth:`tell`, file by file; of each file at most the first ``MAX_JUDGED``."""

    def __init__(self) -> None:
        self._files: dict[str, EnergySeries] = {}
        self._count: Counter[str] = Counter()
        self._told = False

    def add(self, config: Configuration, atoms: Atoms, source: str) -> None:
        """Take a structure whose numbers are finite; ``source`` is file and place, ``FILE, frame 3``."""
        file = source.rpartition(", ")[0]
        if self._told or self._count[file] >= MAX_JUDGED:
            return
        self._count[file] += 1
        series = self._files.setdefault(file, EnergySeries())
        energy, forces = (
            config.properties.get(name) if config.property_weights.get(name, 1.0) > 0 else None
            for name in ("energy", "forces")
        )
        if energy is not None:
            series.take(atoms, float(np.ravel(energy)[0]), None if forces is None else np.asarray(forces))

    def tell(self) -> None:
        """Warn of every file whose energies do not belong to its forces, or are in Hartree; collect no more."""
        for file, series in self._files.items():
            if verdict := series.verdict():
                log.warning("%s: %s", file or "training data", verdict)
        self._files.clear()
        self._told = True
