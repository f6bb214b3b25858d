"""Small labelled structures with consistent energies, forces and Hessians from ASE's EMT potential."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from hint_plugins.labels.hessian_label import HessianLabel

MOLECULES = ("H2O", "CH4", "NH3", "HCN", "H2CO")


def emt_hessian(atoms: Atoms, step: float = 1e-4) -> np.ndarray:
    """(3N, 3N) Hessian in eV/A^2 by central differences of forces."""
    work = atoms.copy()
    work.calc = EMT()
    n = 3 * len(atoms)
    hessian = np.zeros((n, n))
    start = atoms.positions.reshape(-1)
    for column in range(n):
        for sign in (1, -1):
            moved = start.copy()
            moved[column] += sign * step
            work.positions = moved.reshape(-1, 3)
            hessian[column] -= sign * work.get_forces().reshape(-1) / (2 * step)
    return 0.5 * (hessian + hessian.T)


def label_with_emt(atoms: Atoms, hessian: bool = True, stress: bool = False) -> Atoms:
    """Copy of ``atoms`` with REF_energy, REF_forces and, on demand, REF_hessian and REF_stress."""
    out = atoms.copy()
    work = atoms.copy()
    work.calc = EMT()
    out.info["REF_energy"] = float(work.get_potential_energy())
    out.arrays["REF_forces"] = work.get_forces()
    if stress:
        out.info["REF_stress"] = work.get_stress()
    if hessian:
        HessianLabel.full(emt_hessian(atoms)).to_info(out.info)
    return out


def molecules(count: int, seed: int = 0, amplitude: float = 0.08) -> list[Atoms]:
    """Rattled small molecules, in a fixed order."""
    rng = np.random.default_rng(seed)
    out = []
    for k in range(count):
        atoms = molecule(MOLECULES[k % len(MOLECULES)])
        atoms.positions += amplitude * rng.standard_normal(atoms.positions.shape)
        out.append(atoms)
    return out


def crystals(count: int, seed: int = 0, amplitude: float = 0.05) -> list[Atoms]:
    """Rattled two-atom copper cells."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
        atoms.positions += amplitude * rng.standard_normal(atoms.positions.shape)
        out.append(atoms)
    return out


def labelled_set(count: int, every: int = 2, seed: int = 0, stress: bool = False) -> list[Atoms]:
    """Molecules with E/F labels, every ``every``-th with a Hessian too (0: none)."""
    return [
        label_with_emt(atoms, hessian=bool(every) and k % every == 0, stress=stress)
        for k, atoms in enumerate(molecules(count, seed))
    ]
