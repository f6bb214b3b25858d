"""A potential against labelled structures: errors of energies, forces, stresses and Hessians, structure by structure.

Errors are accumulated over parts of a file, so that files of any size stream through and a stopped run goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from ase import Atoms

from hint_plugins.labels.hessian_label import HessianLabel
from hint_plugins.labels.keys import Keys
from hint_plugins.labels.structure_check import check_structure
from hint_plugins.objective.metrics import frequencies, hessian_errors, symmetrised
from hint_plugins.potential import Potential, PotentialError
from hint_plugins.storage.records import voigt
from hint_plugins.structures.frozen import free_components, only

Value = TypeVar("Value")

#: Points of one quantity kept from one part of a file for the parity plots.
POINTS = 1000
#: Units of what :func:`summarise` gives, where the name does not say it.
UNITS = {
    "energy_mae_per_atom": "eV",
    "energy_rmse_per_atom": "eV",
    "forces_mae": "eV/A",
    "forces_rmse": "eV/A",
    "stress_mae": "eV/A^3",
    "hessian_mae": "eV/A^2",
    "eigenvalue_mae": "eV/A^2",
    "asymmetry": "eV/A^2",
    "hvp_mae": "eV/A^2",
}
HESSIAN_METRICS = ("hessian_mae", "eigenvalue_mae", "frequency_mae_cm1", "asymmetry")


#: What is plotted beside the entries of a Hessian.
DERIVED: dict[str, Callable[[np.ndarray, Atoms], np.ndarray]] = {
    "eigenvalues": lambda hessian, atoms: np.linalg.eigvalsh(symmetrised(hessian)),
    "frequencies": frequencies,
}


@dataclass
class Part:
    """Results of some structures of a file.

    Attributes
    ----------
    rows
        One dictionary a structure: index, formula, errors (absent without a label), ``reason`` when something
        could not be done.
    points
        (2, k) reference and prediction of sampled values, by quantity.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    points: dict[str, np.ndarray] = field(default_factory=dict)

    def add_points(self, name: str, reference: np.ndarray, predicted: np.ndarray, rng: np.random.Generator) -> None:
        """Keep values for the parity plot of ``name``; a random selection once there are many."""
        new = np.stack([np.ravel(reference), np.ravel(predicted)]).astype(np.float64)
        both = np.concatenate([self.points[name], new], axis=1) if name in self.points else new
        if both.shape[1] > POINTS:
            both = both[:, rng.choice(both.shape[1], POINTS, replace=False)]
        self.points[name] = both


def evaluate_part(
    potential: Potential,
    structures: Sequence[Atoms],
    places: Sequence[int],
    keys: Keys,
    *,
    hessians: Collection[int] | None = None,
    seed: int = 0,
) -> Part:
    """Errors of ``potential`` on some structures of a file.

    Parameters
    ----------
    potential
        What is tested.
    structures
        Labelled structures; a missing label is skipped.
    places
        Place of each in its file.
    keys
        Names of the reference values.
    hessians
        Indices of the structures whose Hessian shall be computed; None for all.
    seed
        Of the selection of points for plots.
    """
    rng = np.random.default_rng([seed, places[0]])
    part = Part()
    labels: list[HessianLabel | None] = []
    wrong: list[list[str]] = []
    for place, atoms in zip(places, structures, strict=True):
        row: dict[str, Any] = {"index": place, "formula": atoms.get_chemical_formula(), "num_atoms": len(atoms)}
        found = check_structure(atoms, keys)
        if found["reason"]:
            row["reason"] = ("Hessian label: " if "hessian" in found["wrong"] else "") + found["reason"]
        wrong.append(found["wrong"])
        usable = not {"hessian", "geometry"} & set(found["wrong"]) and (hessians is None or place in hessians)
        labels.append(HessianLabel.from_info(atoms.info, len(atoms), keys.hessian) if usable else None)
        part.rows.append(row)
    stress = any(keys.stress in atoms.info and atoms.pbc.any() for atoms in structures)

    def predict(chosen: list[Atoms]) -> list[tuple[float, np.ndarray, np.ndarray | None]]:
        found = potential.evaluate(chosen, stress=stress)
        tensors: Iterable[Any] = [None] * len(chosen) if found.stresses is None else found.stresses
        return [(float(e), f, s) for e, f, s in zip(found.energies, found.forces, tensors, strict=True)]

    everything = [k for k in range(len(structures)) if "geometry" not in wrong[k]]
    for k, result in _each(predict, structures, everything, part.rows):
        _energy_and_forces(part, k, structures[k], result, keys, rng, wrong[k])
    good = [k for k in everything if labels[k] is not None and "reason" not in part.rows[k]]
    whole = [k for k in good if labels[k].kind == "full"]  # type: ignore[union-attr]
    blocks = [k for k in good if labels[k].kind == "block"]  # type: ignore[union-attr]
    for k, matrix in _each(lambda some: potential.hessians(some, symmetrise=False), structures, whole, part.rows):
        reference = labels[k].products  # type: ignore[union-attr]
        part.rows[k] |= hessian_errors(matrix, reference, structures[k])
        part.add_points("hessian", reference, matrix, rng)
        for name, function in DERIVED.items():
            part.add_points(name, function(reference, structures[k]), function(matrix, structures[k]), rng)
    for k in blocks:
        _block(part, k, potential, structures[k], labels[k], rng)  # type: ignore[arg-type]
    for k in (k for k in good if k not in {*whole, *blocks}):
        label = labels[k]
        assert label is not None
        directions = (
            label.directions if label.kind == "projections" else np.eye(3 * len(structures[k]))[label.directions]
        )

        def products_of(some: list[Atoms], z: Any = directions) -> list[np.ndarray]:
            return [potential.hvp(some[0], z)]

        for _, products in _each(products_of, structures, [k], part.rows):
            part.rows[k]["hvp_mae"] = float(np.abs(products - label.products).mean())
            part.add_points("products", label.products, products, rng)
    return part


def _block(
    part: Part, k: int, potential: Potential, atoms: Atoms, label: HessianLabel, rng: np.random.Generator
) -> None:
    """Errors of a block: eigenvalues and frequencies are those with everything outside of it held."""
    held = only(atoms, label.known)
    free = free_components(held).reshape(-1)

    def block_of(some: list[Atoms]) -> list[np.ndarray]:
        return potential.hessians(some, symmetrise=False, free=True)

    for _, block in _each(block_of, {k: held}, [k], part.rows):
        predicted = np.zeros((len(free), len(free)))
        predicted[np.ix_(free, free)] = block
        reference = label.matrix()
        part.rows[k] |= hessian_errors(predicted, reference, held)
        known = reference[np.ix_(free, free)]
        part.add_points("hessian", known, block, rng)
        part.add_points("eigenvalues", DERIVED["eigenvalues"](known, held), DERIVED["eigenvalues"](block, held), rng)
        part.add_points("frequencies", frequencies(reference, held), frequencies(predicted, held), rng)


def _each(
    function: Callable[[list[Atoms]], list[Value]],
    structures: Sequence[Atoms] | Mapping[int, Atoms],
    chosen: list[int],
    rows: list[dict[str, Any]],
) -> list[tuple[int, Value]]:
    """Apply ``function`` to all chosen structures at once, and one by one when one of them fails."""
    if not chosen:
        return []
    try:
        return list(zip(chosen, function([structures[k] for k in chosen]), strict=True))
    except (PotentialError, MemoryError) as error:
        if len(chosen) == 1:
            text = str(error).removeprefix(f"structure 0 ({structures[chosen[0]].get_chemical_formula()}): ")
            rows[chosen[0]]["reason"] = "; ".join(filter(None, [rows[chosen[0]].get("reason"), text]))
            return []
    return [pair for k in chosen for pair in _each(function, structures, [k], rows)]


def _energy_and_forces(
    part: Part,
    k: int,
    atoms: Atoms,
    result: tuple[float, np.ndarray, np.ndarray | None],
    keys: Keys,
    rng: np.random.Generator,
    wrong: Collection[str],
) -> None:
    energy, forces, stress = result
    row = part.rows[k]
    reference = atoms.info.get(keys.energy)
    if reference is not None and "energy" not in wrong:
        reference = np.ravel(reference)[0]
        row["energy_error_per_atom"] = (energy - float(reference)) / len(atoms)
        part.add_points("energy", np.array([float(reference)]) / len(atoms), np.array([energy]) / len(atoms), rng)
    if keys.forces in atoms.arrays and "forces" not in wrong:
        target = np.asarray(atoms.arrays[keys.forces], dtype=np.float64)
        row["forces_mae"] = float(np.abs(forces - target).mean())
        row["forces_rmse"] = float(np.sqrt(np.square(forces - target).mean()))
        row["forces_max_error"] = float(np.abs(forces - target).max())
        part.add_points("forces", target, forces, rng)
    if stress is not None and keys.stress in atoms.info and atoms.pbc.any() and "stress" not in wrong:
        row["stress_mae"] = float(np.abs(stress - voigt(atoms.info[keys.stress])).mean())


def summarise(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Means over a file.

    Energy: mean over structures of ``|dE| / N``. Forces and stress: mean over all components of all structures.
    Hessian quantities: mean over structures of the mean over a structure (:mod:`hint_plugins.objective.metrics`).
    A quantity without labels is None. ``units`` has the units by name, where the name does not say them.
    """
    table = list(rows)

    def column(name: str) -> tuple[np.ndarray, np.ndarray]:
        having = [row for row in table if row.get(name) is not None]
        return np.array([row[name] for row in having]), np.array([row["num_atoms"] for row in having], dtype=float)

    def mean(name: str, power: int = 1, by_atoms: bool = False) -> float | None:
        values, atoms = column(name)
        if not len(values):
            return None
        average = np.average(np.abs(values) ** power, weights=atoms if by_atoms else None)
        return float(average ** (1 / power))

    failed = [{k: row.get(k) for k in ("file", "index", "formula", "reason")} for row in table if row.get("reason")]
    return {
        "n_structures": len(table),
        "n_energies": len(column("energy_error_per_atom")[0]),
        "n_forces": len(column("forces_mae")[0]),
        "n_hessians": len(column("hessian_mae")[0]),
        "n_products": len(column("hvp_mae")[0]),
        "n_failed": len(failed),
        "energy_mae_per_atom": mean("energy_error_per_atom"),
        "energy_rmse_per_atom": mean("energy_error_per_atom", 2),
        "forces_mae": mean("forces_mae", by_atoms=True),
        "forces_rmse": mean("forces_rmse", 2, by_atoms=True),
        "stress_mae": mean("stress_mae"),
        **{name: mean(name) for name in HESSIAN_METRICS},
        "hvp_mae": mean("hvp_mae"),
        "units": UNITS,
        "failed": failed[:1000],
    }
