"""Training set of the HINT recipe for crystals: one supercell Hessian and a few displaced unit cells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from hint_plugins.errors import InputError
from hint_plugins.runs.files import replacing
from hint_recipes.crystals.force_constants.force_constants import ForceConstants


@dataclass(frozen=True)
class HydrideData:
    """Structures for training and validation, and what was left out."""

    train: list[Atoms]
    valid: list[Atoms]
    skipped: list[str]


def read_labelled(path: str | Path) -> list[Atoms]:
    """Structures with energies and forces (any format of ASE).

    Raises
    ------
    InputError
        If the file cannot be read or a structure lacks energy or forces.
    """
    from ase.io import iread

    try:
        structures = list(iread(path, ":"))
    except Exception as error:  # ASE's readers raise whatever the format happens to trigger
        raise InputError(f"{path}: cannot read structures: {error}") from None
    for index, atoms in enumerate(structures):
        if "REF_energy" in atoms.info and "REF_forces" in atoms.arrays:
            results = {"energy": atoms.info["REF_energy"], "forces": atoms.arrays["REF_forces"]}
            if "REF_stress" in atoms.info:
                results["stress"] = np.asarray(atoms.info["REF_stress"])
            atoms.calc = SinglePointCalculator(atoms, **results)
        if atoms.calc is None or not {"energy", "forces"} <= set(atoms.calc.results):
            raise InputError(
                f"{path}: structure {index} has no energy and forces (energy, forces or REF_energy, REF_forces)"
            )
    return structures


def cell_label(path: str | Path, energy: float | None = None) -> tuple[float, np.ndarray | None]:
    """Energy (eV) and, where it is there, stress (3, 3) in eV/A^3 of the undisplaced unit cell, from its own file.

    Parameters
    ----------
    path
        The unit cell; it may carry the label of a reference calculation.
    energy
        Given by the user, eV.

    Raises
    ------
    InputError
        If neither says an energy, or both do and differ by more than 1e-4 eV.
    """
    from ase.io import read
    from ase.stress import voigt_6_to_full_3x3_stress

    try:
        atoms = read(path)
        assert isinstance(atoms, Atoms)
    except Exception as error:  # ASE's readers raise whatever the format happens to trigger
        raise InputError(f"{path}: cannot read a structure: {error}") from None
    results = dict(atoms.calc.results) if atoms.calc is not None else {}
    known = atoms.info.get("REF_energy", results.get("energy"))
    stress = atoms.info.get("REF_stress", results.get("stress"))
    if known is None and energy is None:
        raise InputError(f"{path} carries no energy: give --cell-energy, the energy of the undisplaced unit cell in eV")
    if known is not None and energy is not None and abs(float(known) - energy) > 1e-4:
        raise InputError(f"{path} says {float(known):.6f} eV, --cell-energy says {energy:.6f} eV: leave one out")
    if stress is not None:
        stress = np.asarray(stress, dtype=float)
        stress = stress.reshape(3, 3) if stress.size == 9 else voigt_6_to_full_3x3_stress(stress)
    if energy is None:
        assert known is not None
        energy = float(known)
    return energy, stress


def build(
    constants: ForceConstants,
    cells: list[Atoms],
    *,
    cell_energy: float,
    cell_stress: np.ndarray | None = None,
    hessians: bool = True,
    valid_fraction: float = 0.1,
    max_energy: float | None = None,
    copies: int = 1,
    seed: int = 0,
) -> HydrideData:
    """Put the Hessian of the equilibrium supercell and displaced unit cells together.

    Parameters
    ----------
    constants
        Reference force constants; the sum rule is imposed once, here (:meth:`ForceConstants.acoustic_sum_rule`).
    cells
        Displaced structures with energy, forces and, where present, stress.
    cell_energy
        Energy of the undisplaced unit cell, eV, on the same scale as those of ``cells``.
    cell_stress
        (3, 3) stress of the undisplaced cell, eV/A^3, ASE's sign; joins the training where it is known.
    hessians
        Without it the supercell is there with energy and forces only (for comparison).
    valid_fraction
        Share of ``cells`` kept for validation.
    max_energy
        Leave out cells further above ``cell_energy`` than this, eV a unit cell.
    copies
        How often the supercell occurs in the training set.
    seed
        Choice of the validation cells.

    Raises
    ------
    InputError
        If fewer than two cells remain or the energies cannot be of this crystal.
    """
    primitive = constants.primitive
    used, skipped = [], []
    for index, atoms in enumerate(cells):
        shares = len(atoms) / len(primitive)
        above = atoms.calc.results["energy"] / shares - cell_energy
        if above < -5.0:
            raise InputError(
                f"cell {index} lies {-above:.1f} eV below the undisplaced unit cell: is --cell-energy on its scale?"
            )
        if max_energy is not None and above > max_energy:
            skipped.append(f"cell {index}: {above:.2f} eV above the undisplaced cell")
            continue
        used.append(_training_structure(atoms))
    if len(used) < 2:
        raise InputError(f"only {len(used)} displaced cells remain (of {len(cells)}); {skipped[:3]}")
    order = np.random.default_rng(seed).permutation(len(used))
    held = max(1, round(valid_fraction * len(used)))
    supercell = constants.supercell.copy()
    supercell.info["REF_energy"] = cell_energy * constants.num_cells
    supercell.arrays["REF_forces"] = np.zeros((len(supercell), 3))
    if cell_stress is not None:
        supercell.info["REF_stress"] = np.asarray(cell_stress).ravel()
    supercell.info["config_type"] = "equilibrium"
    if hessians:
        supercell.info["REF_hessian"] = constants.acoustic_sum_rule().hessian.ravel()
    train = [supercell.copy() for _ in range(copies)] + [used[i] for i in order[held:]]
    return HydrideData(train, [used[i] for i in order[:held]] + [supercell.copy()], skipped)


def _training_structure(atoms: Atoms) -> Atoms:
    structure = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    results = atoms.calc.results
    structure.info["REF_energy"] = float(results["energy"])
    structure.arrays["REF_forces"] = np.asarray(results["forces"])
    if "stress" in results:
        from ase.stress import voigt_6_to_full_3x3_stress

        stress = np.asarray(results["stress"])
        structure.info["REF_stress"] = (
            stress if stress.shape == (3, 3) else voigt_6_to_full_3x3_stress(stress)
        ).ravel()
    structure.info["config_type"] = str(atoms.info.get("config_type", "displaced"))
    return structure


def write(data: HydrideData, directory: Path) -> tuple[Path, Path]:
    """Write ``train.xyz`` and ``valid.xyz``."""
    from ase.io import write as write_structures

    paths = directory / "train.xyz", directory / "valid.xyz"
    for path, structures in zip(paths, (data.train, data.valid), strict=True):
        with replacing(path) as temporary:
            write_structures(temporary, structures, format="extxyz")
    return paths


def displaced_cells(primitive: Atoms, count: int, sigma: float = 0.4, seed: int = 0) -> list[Atoms]:
    """Unit cells with Gaussian displacements of every component (paper: sigma 0.4 A), to be labelled."""
    rng = np.random.default_rng(seed)
    cells = []
    for _ in range(count):
        atoms = primitive.copy()
        atoms.positions += rng.normal(scale=sigma, size=atoms.positions.shape)
        cells.append(atoms)
    return cells
