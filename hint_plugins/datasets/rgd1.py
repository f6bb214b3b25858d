"""RGD1: HDF5 file of reactants, transition states and products; the transition states have energies.

Zhao et al., Sci. Data 10, 145 (2023), B3LYP-D3/TZVP. One group a reaction with ``elements`` (N,) atomic numbers,
``RG``, ``TSG``, ``PG`` (N, 3) in A and ``R_E``, ``TS_E``, ``P_E`` in Hartree; no forces, no Hessians. ``R_E`` and
``P_E`` are energies of the separately optimised molecules of another file (``RGD1_RPs.h5``), not of the geometries RG
and PG, so reactants and products come without a label. Written from the published description; not yet tried on a real
file. The RGD1 subset with Hessians that HORM distributes is in HORM's format (:mod:`hint_plugins.datasets.horm`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.units import Hartree

from hint_plugins.datasets.hdf5 import group_items, open_hdf5, read_array
from hint_plugins.datasets.record import RecordError, labelled
from hint_plugins.storage.store import OnBad, StoreError

#: Geometry of each role, and the energy that was computed on it.
PARTS = {"reactant": ("RG", None), "ts": ("TSG", "TS_E"), "product": ("PG", None)}


def read_rgd1(path: Path, bad: OnBad) -> Iterator[Atoms]:
    """Stream ``RGD1_CHNO.h5``: three structures a reaction, ``info`` with ``reaction`` and ``role``.

    Only transition states have an energy, and with it ``level``; that the others have none is said once.
    """
    index = 0
    with open_hdf5(path) as file:
        if len(file):
            print(
                f"hint: {path}: reactants and products are written without energies: R_E and P_E belong to separately "
                "optimised molecules, not to the geometries RG and PG",
                file=sys.stderr,
            )
        for name, group in group_items(file, bad):
            for role, (geometry, energy) in PARTS.items():
                try:
                    needed = ["elements", geometry, *([energy] if energy else [])]
                    missing = [key for key in needed if key not in group]
                    if missing:
                        raise RecordError(f"no data set {missing[0]!r}: not the layout of RGD1_CHNO.h5")
                    info = {"reaction": name, "role": role, **({"level": "B3LYP-D3/TZVP"} if energy else {})}
                    value = float(np.asarray(read_array(group, energy)).item()) * Hartree if energy else None
                    yield labelled(read_array(group, "elements"), read_array(group, geometry), energy=value, info=info)
                except (RecordError, OSError, TypeError, ValueError) as error:
                    bad(index, f"{name} {role}: {error}")
                index += 1
    if not index:
        raise StoreError(f"{path}: no reactions in it")
