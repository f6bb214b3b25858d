"""Under which names a file keeps its labels, and how they come under ours."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from ase import Atoms

from hint_plugins.labels.hessian_label import SUFFIXES
from hint_plugins.storage.records import voigt


@dataclass(frozen=True)
class Keys:
    """Where labels are: ``info`` (energy, stress, virials, Hessian) and ``arrays`` (forces)."""

    energy: str = "REF_energy"
    forces: str = "REF_forces"
    stress: str = "REF_stress"
    hessian: str = "REF_hessian"
    virials: str = "REF_virials"


def adopt_labels(atoms: Atoms, keys: Keys = Keys()) -> Atoms:
    """Bring labels under our names and in our shapes, in place: ``stress = -virials / V``, six components.

    Raises
    ------
    ValueError
        If a label has one of our names where another was asked for, or stress and virials are no symmetric tensors,
        contradict each other, or have no volume.
    """
    usual = Keys()
    for field in fields(Keys):
        asked, ours = getattr(keys, field.name), getattr(usual, field.name)
        store = atoms.arrays if field.name == "forces" else atoms.info
        for suffix in SUFFIXES if field.name == "hessian" else ("",):
            if asked == ours:
                continue
            if asked + suffix in store:
                store[ours + suffix] = store.pop(asked + suffix)
            elif ours + suffix in store:
                raise ValueError(f"has {ours + suffix} but not {asked + suffix}, which was asked for")
    stress = atoms.info.get(usual.stress)
    if stress is not None:
        stress = atoms.info[usual.stress] = voigt(stress)
    if usual.virials in atoms.info:
        virials, volume = voigt(atoms.info.pop(usual.virials)), abs(atoms.cell.volume) if atoms.cell.rank == 3 else 0.0
        if not (atoms.pbc.all() and volume > 0):
            raise ValueError(f"{keys.virials} cannot become a stress: the structure is not periodic in all directions")
        found = -virials / volume
        if stress is not None and not np.allclose(found, stress, rtol=1e-3, atol=1e-6):
            raise ValueError(f"{keys.stress} and {keys.virials} contradict each other: -virials/V is {found.tolist()}")
        atoms.info[usual.stress] = found
    return atoms
