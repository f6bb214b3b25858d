"""RGD1: HDF5 file of reactants, transition states and products with energies (no forces, no Hessians).

Zhao et al., Sci. Data 10, 145 (2023), B3LYP-D3/TZVP. One group a reaction with ``elements`` (N,) atomic numbers,
``RG``, ``TSG``, ``PG`` (N, 3) in A and ``R_E``, ``TS_E``, ``P_E`` in Hartree. Written from the published
description; not yet tried on a real file. The RGD1 subset with Hessians that HORM distributes is in HORM's format
(:mod:`hint_plugins.datasets.horm`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.units import Hartree

from hint_plugins.datasets.hdf5 import group_items, open_hdf5
from hint_plugins.datasets.record import RecordError, labelled
from hint_plugins.labels.store import OnBad

PARTS = {"reactant": ("RG", "R_E"), "ts": ("TSG", "TS_E"), "product": ("PG", "P_E")}


def read_rgd1(path: Path, bad: OnBad) -> Iterator[Atoms]:
    """Stream ``RGD1_CHNO.h5``: three structures a reaction, ``info`` with ``reaction``, ``role`` and ``level``."""
    index = 0
    with open_hdf5(path) as file:
        for name, group in group_items(file, bad):
            for role, (geometry, energy) in PARTS.items():
                try:
                    missing = [key for key in ("elements", geometry, energy) if key not in group]
                    if missing:
                        raise RecordError(f"no data set {missing[0]!r}: not the layout of RGD1_CHNO.h5")
                    yield labelled(
                        group["elements"][()],
                        group[geometry][()],
                        energy=float(np.asarray(group[energy][()])) * Hartree,
                        info={"reaction": name, "role": role, "level": "B3LYP-D3/TZVP"},
                    )
                except (RecordError, OSError, TypeError, ValueError) as error:
                    bad(index, f"{name} {role}: {error}")
                index += 1
