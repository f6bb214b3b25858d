"""Is this Hessian label what it claims to be? Checks made when a label is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.labels.hessian_label import HessianLabel, LabelError
from hint_plugins.labels.limits import MAX_ASYMMETRY, MAX_SUM_RULE

#: Largest violation of the rotational sum rule relative to the row it occurs in. GFN2-xTB central differences reach
#: 1e-4, float32 density-functional labels 1e-3, and quadrature grids that leave a rotation at 100 cm^-1 about 1e-2;
#: exchanging two atoms, turning the molecule or a wrong unit gives 0.05 to 1.
MAX_ROTATION = 0.02
#: Stiffness (norm of an atom's diagonal block, eV/A^2) at the shortest contact between non-metals, when that contact
#: is a bond of ordinary length. The softest (Si-Si, I-I, F-F, O-O) have 10 and more, the stiffest (C#O, N#N) 150; in
#: Ha/Bohr^2 the latter would be 1.5, in kcal/mol/A^2 the former 230.
PLAUSIBLE = (5.0, 600.0)
#: Scaled lengths (distance over the sum of covalent radii) of an ordinary bond.
BOND = (0.75, 1.3)
NON_METALS = frozenset([1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 33, 34, 35, 53])
#: Two atoms nearer than this (A) are the same atom listed twice.
MIN_DISTANCE = 0.05


@dataclass(frozen=True)
class LabelReport:
    """What was found in one label; ``reasons`` is empty for a good one.

    Attributes
    ----------
    asymmetry
        max |H - H^T| over max |H| (full labels; 0 otherwise).
    sum_rule
        Largest violation of ``sum_j H_ij = 0`` over max |H|; for products, of ``sum_i (H z)_i = 0``.
    rotation
        Largest violation of the rotational sum rule, relative to the row; None where there is none to test
        (periodic structures; columns and projections without forces).
    largest
        max |H| (or of the products), eV/A^2.
    """

    kind: str
    asymmetry: float
    sum_rule: float
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
    """Check one label against its structure.

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
        ``reasons`` says, in words, why the label cannot be trusted.
    """
    values = label.products
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        return LabelReport(label.kind, np.nan, np.nan, None, np.nan, [f"{bad} of {values.size} numbers are not finite"])
    if label.kind == "projections" and not np.isfinite(label.directions).all():  # type: ignore[arg-type]
        return LabelReport(label.kind, np.nan, np.nan, None, np.nan, ["a probe is not finite"])
    largest = float(np.abs(values).max())
    if len(atoms) == 1 and largest < 1e-6:
        return LabelReport(label.kind, 0.0, 0.0, None, largest)
    if largest == 0.0:
        return LabelReport(label.kind, 0.0, 0.0, None, 0.0, ["all numbers are zero"])
    reasons: list[str] = []
    asymmetry = 0.0
    if label.kind == "full":
        asymmetry = float(np.abs(values - values.T).max()) / largest
        if asymmetry > max_asymmetry:
            reasons.append(f"asymmetric: max|H - H^T| is {asymmetry:.2g} of max|H|, more than {max_asymmetry:g}")
    sum_rule = float(np.abs(values.reshape(len(values), -1, 3).sum(axis=1)).max()) / largest
    if sum_rule > max_sum_rule:
        reasons.append(
            f"translation changes the forces: sum over atoms is {sum_rule:.2g} of max|H|, more than {max_sum_rule:g}"
        )
    rotation = None
    if not atoms.pbc.any() and np.isfinite(atoms.positions).all():
        rotation = _rotation(label, atoms.positions, forces, largest)
    if rotation is not None and rotation > max_rotation:
        partner = "positions" if forces is None else "positions and forces"
        reasons.append(
            f"a rotation of the molecule contradicts the {partner}: violation {rotation:.2g} of the row, more than "
            f"{max_rotation:g}; the Hessian belongs to other positions: another order of atoms, orientation or unit"
        )
    reasons += _plausible(label, atoms)
    return LabelReport(label.kind, asymmetry, sum_rule, rotation, largest, reasons)


def _rotation(label: HessianLabel, positions: np.ndarray, forces: np.ndarray | None, largest: float) -> float | None:
    """Largest violation of ``H t = -(e x F)`` over three axes e, relative to what its terms could add up to.

    For a full label every row turns about its own atom, so that only its neighbours count. What noise explains is
    taken off: its size, from asymmetry and translational sum rule (both about three standard deviations of one
    number), times the root of the sum of squared distances. 2 % of max|H| at 1 A is added to the scale, since rows
    that are nearly zero carry nothing but noise.
    """
    n, axes = len(positions), np.eye(3)
    if label.kind == "full":
        blocks = label.products.reshape(n, 3, n, 3)
        apart = positions[None] - positions[:, None]
        turned = np.stack([np.einsum("iajb,ijb->ia", blocks, np.cross(axis, apart)) for axis in axes])
        if forces is None:
            forces = 0.5 * np.cross(axes[:, None], turned).sum(axis=0)  # the least-squares solution
        noise = max(np.abs(blocks.sum(axis=2)).max() / np.sqrt(n), np.abs(label.products - label.products.T).max())
        violation = np.abs(turned + np.cross(axes[:, None], forces)).max(axis=(0, 2))
        violation = np.maximum(violation - noise * np.linalg.norm(apart, axis=(1, 2)), 0.0)
        scale = (np.linalg.norm(blocks, axis=(1, 3)) * np.linalg.norm(apart, axis=2)).sum(axis=1)
        return float((violation / (scale + 0.02 * largest)).max())
    if forces is None:
        return None
    products = label.products.reshape(-1, n, 3)
    z = np.eye(3 * n)[label.directions] if label.kind == "columns" else label.directions
    assert z is not None
    centred = positions - positions.mean(axis=0)
    z = z.reshape(-1, n, 3)
    worst = 0.0
    for axis in axes:
        violation = np.abs((products * np.cross(axis, centred) + z * np.cross(axis, forces)).sum(axis=(1, 2)))
        scale = (np.linalg.norm(products, axis=2) * np.linalg.norm(centred, axis=1)).sum(axis=1)
        worst = max(worst, float((violation / (scale + 0.02 * largest)).max()))
    return worst


def _plausible(label: HessianLabel, atoms: Atoms) -> list[str]:
    """Is the stiffness at the shortest contact that of a bond?"""
    if label.kind != "full" or not np.isfinite(atoms.positions).all():
        return []
    scaled, i, j = _closest(atoms)
    if not BOND[0] <= scaled <= BOND[1] or not {int(atoms.numbers[i]), int(atoms.numbers[j])} <= NON_METALS:
        return []
    n = len(atoms)
    blocks = label.products.reshape(n, 3, n, 3)
    stiffness = max(float(np.linalg.norm(blocks[k, :, k])) for k in (i, j))
    bond = f"the bond {atoms.symbols[i]}{i}-{atoms.symbols[j]}{j}"
    if stiffness < PLAUSIBLE[0]:
        return [f"too soft: {stiffness:.3g} eV/A^2 at {bond}; is the label in Ha/Bohr^2? (multiply by 97.17)"]
    if stiffness > PLAUSIBLE[1]:
        return [f"too stiff: {stiffness:.3g} eV/A^2 at {bond}; is the label in kcal/mol/A^2? (divide by 23.06)"]
    return []


def _closest(atoms: Atoms) -> tuple[float, int, int]:
    """Smallest distance over the sum of covalent radii, and the pair; inf when nothing is near."""
    from ase.data import covalent_radii

    from hint_plugins.models.neighbours import neighbour_list

    radii = covalent_radii[atoms.numbers]
    try:
        edges, shifts = neighbour_list(atoms.positions, 2 * BOND[1] * radii.max(), atoms.cell, atoms.pbc)
    except ValueError:  # overlapping atoms, no volume: reported elsewhere
        return np.inf, 0, 0
    if edges.shape[1] == 0:
        return np.inf, 0, 0
    source, centre = edges.numpy()
    vectors = atoms.positions[source] - atoms.positions[centre] + shifts.numpy()
    scaled = np.linalg.norm(vectors, axis=1) / (radii[source] + radii[centre])
    best = int(scaled.argmin())
    return float(scaled[best]), int(centre[best]), int(source[best])


def check_structure(
    atoms: Atoms,
    hessian_key: str = "REF_hessian",
    energy_key: str = "REF_energy",
    forces_key: str = "REF_forces",
    *,
    max_asymmetry: float = MAX_ASYMMETRY,
    max_sum_rule: float = MAX_SUM_RULE,
) -> dict[str, Any]:
    """Check geometry and every label of one structure.

    Returns
    -------
    dict
        ``formula``, ``num_atoms``, ``kind`` of the Hessian label ("" without one), its figures
        (:class:`LabelReport`), and ``reason``: what is wrong, "" if nothing is.
    """
    row: dict[str, Any] = {"formula": atoms.get_chemical_formula(), "num_atoms": len(atoms), "kind": ""}
    reasons = []
    lost = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if len(lost):
        reasons.append(f"the position of atom {lost[0]} is not finite")
    else:
        reasons += _overlap(atoms)
    energy, forces = atoms.info.get(energy_key), atoms.arrays.get(forces_key)
    if energy is not None and (np.size(energy) != 1 or not np.isfinite(np.asarray(energy, dtype=float)).all()):
        reasons.append(f"{energy_key} is not one finite number: {energy}")
    if forces is not None and (np.shape(forces) != (len(atoms), 3) or not np.isfinite(forces).all()):
        reasons.append(f"{forces_key} is not ({len(atoms)}, 3) finite numbers")
        forces = None
    try:
        label = HessianLabel.from_info(atoms.info, len(atoms), hessian_key)
    except LabelError as error:
        label = None
        reasons.append(str(error))
    if label is not None:
        report = check_label(label, atoms, forces, max_asymmetry=max_asymmetry, max_sum_rule=max_sum_rule)
        row |= {name: getattr(report, name) for name in ("kind", "asymmetry", "sum_rule", "rotation", "largest")}
        reasons += report.reasons
    row["reason"] = "; ".join(reasons)
    return row


def _overlap(atoms: Atoms) -> list[str]:
    from hint_plugins.models.neighbours import neighbour_list

    try:
        neighbour_list(atoms.positions, 2 * MIN_DISTANCE, atoms.cell, atoms.pbc, MIN_DISTANCE)
    except ValueError as error:
        return [str(error)]
    return []
