"""Is this Hessian label what it claims to be? Checks made when a label is read."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.units import Bohr, Hartree

from hint_plugins.labels.hessian_label import HessianLabel
from hint_plugins.labels.identities import (
    FLOOR,
    MAX_MUTUAL,
    directions_of,
    implied_forces,
    is_rigid,
    relative_asymmetry,
    rotation,
    size_reasons,
)
from hint_plugins.labels.limits import MAX_ASYMMETRY, MAX_SUM_RULE
from hint_plugins.labels.numbers import not_numbers
from hint_plugins.labels.stiffness import stiffness_reasons
from hint_plugins.structures.geometry import geometry_reasons
from hint_plugins.units import HARTREE_PER_BOHR, HESSIAN_UNITS, KCAL, RYDBERG_PER_BOHR

#: Largest violation of the rotational sum rule relative to the row it occurs in. GFN2-xTB central differences reach
#: 1e-4, float32 density-functional labels 1e-3, and quadrature grids that leave a rotation at 100 cm^-1 about 1e-2;
#: exchanging two atoms, turning the molecule or a wrong unit gives 0.05 to 1.
MAX_ROTATION = 0.02
#: Forces (eV/A) that a full Hessian implies are compared with those given when they are larger than this; the noise of
#: float32 density-functional labels gives less.
MIN_IMPLIED = 0.3
#: Larger numbers (eV/A^2) than any pair of atoms has.
MAX_NUMBER = 1e8
#: Units that forces and Hessians come in by mistake: how many times too large the forces then are for the Hessian.
UNITS = {
    "the forces are in Ha/Bohr (multiply by 51.42)": 1 / HARTREE_PER_BOHR,
    "the forces are in Ry/Bohr (multiply by 25.71)": 1 / RYDBERG_PER_BOHR,
    "the forces are in Ha/A (multiply by 27.21)": 1 / Hartree,
    "the forces are in eV/Bohr (multiply by 1.8897)": Bohr,
    "the forces are in kcal/mol/A (divide by 23.06)": 1 / KCAL,
    "the Hessian is in Ha/Bohr^2 (multiply by 97.17)": HESSIAN_UNITS["Ha/Bohr^2"],
    "the Hessian is in Ry/Bohr^2 (multiply by 48.59)": HESSIAN_UNITS["Ry/Bohr^2"],
    "the Hessian is in eV/Bohr^2 (multiply by 3.571)": HESSIAN_UNITS["eV/Bohr^2"],
    "the Hessian is in kcal/mol/A^2 (divide by 23.06)": KCAL,
}


@dataclass(frozen=True)
class LabelReport:
    """What was found in one label; ``reasons`` is empty for a good one.

    Attributes
    ----------
    asymmetry
        max |H - H^T| over max |H| (of columns and blocks: of the part of H that is known from both sides); for
        products, max |z_i.H z_j - z_j.H z_i| over the size of the products.
    sum_rule
        Largest violation of ``sum_j H_ij = 0`` over max |H|; for products, of ``sum_i (H z)_i = 0``. None for a block,
        whose rows lack the other atoms.
    rotation
        Largest violation of the rotational sum rule, relative to the row; None where there is none to test
        (periodic structures; columns and projections without forces; blocks).
    largest
        max |H| (or of the products), eV/A^2.
    """

    kind: str
    asymmetry: float
    sum_rule: float | None
    rotation: float | None
    largest: float
    reasons: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.reasons


def check_label(
    label: HessianLabel,
    atoms: Atoms,
    forces: np.ndarray | None = None,
    *,
    max_asymmetry: float = MAX_ASYMMETRY,
    max_sum_rule: float = MAX_SUM_RULE,
    max_rotation: float = MAX_ROTATION,
) -> LabelReport:
    """Check one label against its structure, and the geometry itself.

    A rigid turn of a molecule turns its forces, so ``H t = -(e x F)`` for the rotation ``t = e x r`` about any
    axis e, at every geometry. This ties the Hessian to the positions and, where they are known, to the forces:
    atoms in another order, another orientation or another unit violate it.

    Parameters
    ----------
    label, atoms
        The label and the structure it belongs to.
    forces
        Reference forces (N, 3) in eV/A. Without them a full Hessian must still fit some forces.
    max_asymmetry, max_sum_rule, max_rotation
        Relative tolerances.

    Returns
    -------
    LabelReport
        ``reasons`` says, in words, why label, geometry or forces cannot be trusted.
    """

    def unusable(reasons: list[str]) -> LabelReport:
        return LabelReport(label.kind, np.nan, np.nan, None, np.nan, reasons)

    values = label.products
    if unsound := geometry_reasons(atoms):
        return unusable(unsound)
    if forces is not None:
        if wrong := not_numbers(forces, (len(atoms), 3)):
            return unusable([f"the forces are {wrong}"])
        forces = np.asarray(forces, dtype=np.float64)
    if not np.isfinite(values).all():
        return unusable([f"{int((~np.isfinite(values)).sum())} of {values.size} numbers are not finite"])
    if label.kind == "projections" and not np.isfinite(label.directions).all():  # type: ignore[arg-type]
        return unusable(["a probe is not finite"])
    if sizes := size_reasons(label):
        return unusable(sizes)
    if (largest := float(np.abs(values).max())) > MAX_NUMBER:
        return unusable([f"the largest number is {largest:.3g} eV/A^2"])
    if len(atoms) == 1 and largest < 1e-6:
        return LabelReport(label.kind, 0.0, 0.0, None, largest)
    rigid = label.kind == "projections" and is_rigid(directions_of(label), atoms.positions, bool(atoms.pbc.any()))
    if largest == 0.0:
        return LabelReport(label.kind, 0.0, 0.0, None, 0.0, [] if rigid else ["all numbers are zero"])
    reasons: list[str] = []
    found = relative_asymmetry(label)
    if label.kind == "projections" and found > MAX_MUTUAL:
        reasons.append(
            f"z_i.H z_j differs from z_j.H z_i by {found:.2g} of their size, more than {MAX_MUTUAL:g}; do the products "
            "belong to other directions?"
        )
    elif label.kind != "projections" and found > max_asymmetry:
        part = " in the columns that are known from both sides" if label.kind == "columns" else ""
        reasons.append(f"asymmetric{part}: max|H - H^T| is {found:.2g} of max|H|, more than {max_asymmetry:g}")
    scale = largest if label.kind == "full" else max(largest, FLOOR)
    sum_rule = None
    if label.kind != "block":
        sum_rule = float(np.abs(values.reshape(len(values), -1, 3).sum(axis=1)).max()) / scale
    if sum_rule is not None and sum_rule > max_sum_rule:
        reasons.append(
            f"translation changes the forces: sum over atoms is {sum_rule:.2g} of max|H|, more than {max_sum_rule:g}"
        )
    stiffness = stiffness_reasons(label, atoms, forces)
    turned = None
    if not atoms.pbc.any():
        turned = rotation(label, atoms.positions, forces)
    if turned is not None and turned > max_rotation:
        partner = "positions" if forces is None else "positions and forces"
        reasons.append(
            f"a rotation of the molecule contradicts the {partner}: violation {turned:.2g} of the row, more than "
            f"{max_rotation:g}; {_blame(label, atoms, forces, bool(stiffness), max_rotation)}"
        )
    elif turned is not None and forces is not None and label.kind == "full":
        reasons += _implied(label, atoms, forces, bool(stiffness))
    return LabelReport(label.kind, found, sum_rule, turned, largest, reasons + stiffness)


def _blame(label: HessianLabel, atoms: Atoms, forces: np.ndarray | None, unlikely: bool, tolerance: float) -> str:
    """Which of positions, forces and Hessian is the likely culprit of a violated rotation."""
    elsewhere = "the Hessian belongs to other positions: another order of atoms, orientation or unit"
    if forces is None:
        return elsewhere
    opposite = rotation(label, atoms.positions, -forces)
    if opposite is not None and opposite <= tolerance:
        culprit = "the Hessian has" if unlikely else "the forces have"
        return f"{culprit} the wrong sign (it holds with the sign changed)"
    if label.kind != "full":
        return elsewhere
    if unit := _unit(label, atoms, forces, unlikely):
        return f"a wrong order of atoms or unit: {unit}?"
    alone = rotation(label, atoms.positions, None)
    if alone is not None and alone <= tolerance and not unlikely:
        return "the Hessian fits the positions, the forces do not: another geometry, sign or unit"
    return elsewhere


def _unit(label: HessianLabel, atoms: Atoms, forces: np.ndarray, unlikely: bool) -> str:
    """The unit in which forces are a multiple of those that a full Hessian implies; empty when they are none."""
    implied, _ = implied_forces(label.products, atoms.positions)
    if not (size := float(np.square(implied).sum())):
        return ""
    factor = float((forces * implied).sum()) / size
    if np.abs(forces - factor * implied).max() > 0.05 * np.abs(forces).max():
        return ""
    fitting = (text for text, ratio in UNITS.items() if abs(factor / ratio - 1) < 0.03)
    return next((text for text in fitting if text.startswith("the Hessian") >= unlikely), "")


def _implied(label: HessianLabel, atoms: Atoms, forces: np.ndarray, unlikely: bool) -> list[str]:
    """Forces too small to violate a rotation by much may still be a multiple of those that a full Hessian implies."""
    implied, _ = implied_forces(label.products, atoms.positions)
    if np.abs(implied).max() < MIN_IMPLIED:
        return []
    if unit := _unit(label, atoms, forces, unlikely):
        return [f"the Hessian implies forces of another size than those given: {unit}?"]
    if np.abs(forces + implied).max() < 0.2 * np.abs(implied).max():
        guilty = "the Hessian has" if unlikely else "the forces have"
        return [f"{guilty} the wrong sign: the Hessian implies forces opposite to those given"]
    return []
