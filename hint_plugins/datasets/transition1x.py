"""Transition1x: HDF5 file of nudged-elastic-band images with energies and forces (no Hessians).

Schreiner et al., Sci. Data 9, 779 (2022). Groups ``SPLIT/FORMULA/REACTION`` (SPLIT: data, train, val, test) with
``atomic_numbers`` (N,), ``positions`` (M, N, 3) in A, ``wB97x_6-31G(d).energy`` (M,) in eV and
``wB97x_6-31G(d).forces`` (M, N, 3) in eV/A, and subgroups ``reactant``, ``transition_state``, ``product`` of the same
make. Written from the published description; not yet tried on a real file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.datasets.hdf5 import group_items, open_hdf5, read_array
from hint_plugins.datasets.record import RecordError, labelled
from hint_plugins.storage.store import OnBad, StoreError

ENERGY, FORCES = "wB97x_6-31G(d).energy", "wB97x_6-31G(d).forces"
ROLES = {"reactant": "reactant", "transition_state": "ts", "product": "product"}


def read_transition1x(path: Path, bad: OnBad, *, split: str = "data", final: bool = False) -> Iterator[Atoms]:
    """Stream a Transition1x file; ``info`` gets ``reaction``, ``formula``, ``role`` and ``level``.

    Parameters
    ----------
    path
        ``Transition1x.h5``.
    bad
        Takes index and reason of records that cannot be used.
    split
        ``data`` (everything), ``train``, ``val`` or ``test``.
    final
        Only reactants, transition states and products.
    """
    index = 0
    with open_hdf5(path) as file:
        if split not in file:
            raise StoreError(f"{path}: no group {split!r} (found {', '.join(file)}): not a Transition1x file")
        for formula, reactions in group_items(file[split], bad):
            for name, group in group_items(reactions, bad):
                parts = [(ROLES[role], group[role]) for role in ROLES if role in group]
                for role, part in parts if final else [*parts, ("path", group)]:
                    info = {"reaction": name, "formula": formula, "role": role, "level": "wB97X/6-31G(d)"}
                    try:
                        for atoms in _images(part, info, index, bad):
                            index += 1
                            if atoms is not None:
                                yield atoms
                    except (KeyError, OSError, RecordError) as error:
                        bad(index, f"{split}/{formula}/{name} ({role}): {error}")
                        index += 1
    if not index:
        raise StoreError(f"{path}: the group {split!r} holds no reactions")


def _images(group: Any, info: dict[str, Any], index: int, bad: OnBad) -> Iterator[Atoms | None]:
    missing = [key for key in ("atomic_numbers", "positions", ENERGY, FORCES) if key not in group]
    if missing:
        raise RecordError(f"no data set {missing[0]!r}: not the layout of Transition1x")
    numbers, positions, energies, forces = (
        np.atleast_1d(read_array(group, key)) for key in ("atomic_numbers", "positions", ENERGY, FORCES)
    )
    energies = energies.reshape(-1)
    if not len(positions) == len(energies) == len(forces):
        raise RecordError(f"{len(positions)} geometries, {len(energies)} energies, {len(forces)} forces")
    for k, (r, e, f) in enumerate(zip(positions, energies, forces, strict=True)):
        try:
            yield labelled(numbers, r, energy=e, forces=f, info=info)
        except RecordError as error:
            bad(index + k, f"{info['reaction']} image {k}: {error}")
            yield None
