"""Is a Hessian as stiff as the bonds of its structure? Sign, unit, and products that belong to other directions.

The measure is a model Hessian M of bond stretches between non-metals, with the force constants of Badger's rule,
``k = 1.86 mdyn/A / (r/A - d_ij)^3``; d_ij is taken as a sum over the rows of the two elements. For a label with the
directions z, ``scale = sum (H z).(M z) / sum (M z).(M z)``: near 1 for a label in eV/A^2 at a stationary point,
negative for a wrong sign, near 0 for products with other directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from hint_plugins.labels.hessian_label import HessianLabel
from hint_plugins.labels.identities import directions_of, implied_forces
from hint_plugins.structures.geometry import contacts

NON_METALS = frozenset([1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 33, 34, 35, 53])
#: Bonds are contacts of at most so many times the sum of covalent radii.
BOND = 1.3
#: Badger's d in A by period of the element, and his constant in eV/A^2 A^3.
_PERIODS = ((1, 0.01), (10, 0.34), (18, 0.59), (36, 0.68), (118, 0.80))
_BADGER = 1.86 * 6.241509
#: A label is at a stationary point when its forces are less than this (A) times its stiffness, and near one below the
#: second number: the displacement that would bring it there.
STATIONARY, NEAR = 0.03, 0.15
#: Least and largest ``scale`` there. In 818 GFN2-xTB and 100 density-functional labels whole matrices have 0.50 to 1.65
#: at rest (in eV/Bohr^2 that would be 0.14 to 0.46) and 0.36 to 2.0 near it; five products 0.42 and more, fewer 0.38.
LIMITS = (0.48, 4.0)
LIMITS_NEAR = (0.1, 7.0)
MANY, FEW = 0.38, 0.3
#: Trace over the sum of |eigenvalues|: real labels have 0.4 to 1 where atoms are bonded, and -0.2 where a bond is torn.
NEGATIVE = -0.6


@dataclass(frozen=True)
class BondModel:
    """Bond stretches: atoms ``i`` and ``j``, unit vectors (P, 3), force constants (P,) in eV/A^2."""

    i: np.ndarray
    j: np.ndarray
    unit: np.ndarray
    constants: np.ndarray

    @classmethod
    def of(cls, atoms: Atoms) -> BondModel:
        """The bonds between non-metals of a structure with a sound geometry."""
        i, j, vectors, _ = contacts(atoms, BOND)
        known = np.isin(atoms.numbers, list(NON_METALS))
        keep = known[i] & known[j] & (i != j)
        i, j, vectors = i[keep], j[keep], vectors[keep]
        length = np.linalg.norm(vectors, axis=1)
        d = np.array([next(d for last, d in _PERIODS if z <= last) for z in atoms.numbers])
        constants = _BADGER / np.maximum(length - d[i] - d[j], 0.3) ** 3
        return cls(i, j, vectors / length[:, None], constants)

    def times(self, z: np.ndarray) -> np.ndarray:
        """Products (m, 3N) with directions (m, 3N)."""
        by_atom = z.reshape(len(z), -1, 3)
        pull = (by_atom[:, self.i] - by_atom[:, self.j]) * self.unit
        pull = (pull.sum(axis=2) * self.constants)[..., None] * self.unit
        out = np.zeros((by_atom.shape[1], len(z), 3))
        np.add.at(out, self.i, pull.swapaxes(0, 1))
        np.add.at(out, self.j, -pull.swapaxes(0, 1))
        return out.swapaxes(0, 1).reshape(z.shape)

    @property
    def largest(self) -> float:
        """The largest force constant, eV/A^2."""
        return float(self.constants.max())


def stiffness_reasons(label: HessianLabel, atoms: Atoms, forces: np.ndarray | None) -> list[str]:
    """What sign and size of the products say, in words.

    Parameters
    ----------
    label, atoms
        A label of finite numbers, and its structure with a sound geometry.
    forces
        (N, 3) in eV/A, or None. A whole Hessian of a molecule implies its own, which are used instead.
    """
    model, z = BondModel.of(atoms), directions_of(label)
    away = _from_rest(label, atoms, forces, model)
    if not len(model.constants):
        return _sign_without_model(label, atoms, away, z)
    products = model.times(z)[:, label.known]
    squared = float(np.square(products).sum())
    if label.kind == "block" and not squared:  # no bond ends in the block
        return _sign_without_model(label, atoms, away, z)
    whole = float(4 * np.square(model.constants).sum()) * (np.square(z).sum() / z.shape[1])
    if squared < 0.25 * whole and label.kind != "block":  # the directions move few bonds
        return []
    scale = float((products * label.products).sum()) / squared
    low, high = LIMITS_NEAR
    # near a saddle one or two directions may well lie along the bond that breaks
    near = away is not None and (away < STATIONARY or (away < NEAR and (label.kind == "full" or len(z) > 2)))
    if not near:
        low = -np.inf
    elif away is not None and away < STATIONARY:
        low, high = LIMITS
        if label.kind != "full":
            low = MANY if len(z) >= 5 else FEW
    torn = away is None and not (_all_negative(label, z) and scale < -FEW)
    if scale < -0.2 and not torn and (away is None or near):
        return [f"the sign is wrong: the curvature along the bonds is {scale:.2g} times what bonds have, negative"]
    return [] if low <= scale <= high else [_size(label, scale)]


def _from_rest(label: HessianLabel, atoms: Atoms, forces: np.ndarray | None, model: BondModel) -> float | None:
    """How far the structure is from a stationary point, as forces over stiffness in A; None where it is unknown."""
    if atoms.pbc.any():
        return 0.5 * NEAR  # forces of a crystal under strain may be zero
    largest = float(np.abs(label.products).max())
    if label.kind == "full":
        forces = implied_forces(label.products, atoms.positions)[0]
    elif forces is None:
        return None
    elif label.kind == "block":
        forces = forces.reshape(-1)[label.known]
        largest = min(largest, model.largest) if len(model.constants) else largest
    else:  # products are sums over a row: some three times larger than the matrix
        largest /= 3 if label.kind == "projections" else 1
        largest = min(largest, model.largest) if len(model.constants) else largest
    return float(np.abs(forces).max()) / largest


def _size(label: HessianLabel, scale: float) -> str:
    text = f"too {'soft' if scale < 1 else 'stiff'}: {scale:.2g} times as stiff as bonds of these lengths"
    if scale > 50:
        return f"{text}; is the label in kJ/mol/A^2 (divide by 96.49)?"
    if scale > 1:
        return f"{text}; is the label in kcal/mol/A^2 (divide by 23.06)?"
    if scale > 0.1:
        text += "; is the label in eV/Bohr^2 (multiply by 3.571)?"
    elif scale > 0.003:
        text += "; is the label in Ha/Bohr^2 (multiply by 97.17) or Ry/Bohr^2 (multiply by 48.59)?"
    if label.kind != "full" and scale < 0.5:
        what = {"columns": "column indices", "block": "coordinates"}.get(label.kind, "directions")
        text += f" Or do the products belong to other {what}?"
    return text


def _all_negative(label: HessianLabel, z: np.ndarray) -> bool:
    """Whether all of three or more directions have a negative curvature; fewer may, in a molecule that is torn."""
    return len(z) > 2 and bool(((z * label.products).sum(axis=1) < 0).all())


def _sign_without_model(label: HessianLabel, atoms: Atoms, away: float | None, z: np.ndarray) -> list[str]:
    """The trace of a Hessian is positive where atoms are bonded, or at a stationary point."""
    bonded = atoms.pbc.any() and len(contacts(atoms, 1.15)[0]) > 0
    resting = not atoms.pbc.any() and away is not None and away < STATIONARY
    if not (bonded or resting):
        return []
    if label.kind in ("full", "block"):
        values = np.linalg.eigvalsh(0.5 * (label.products + label.products.T))
        share = float(values.sum() / np.abs(values).sum())
    else:
        size = np.linalg.norm(z, axis=1) @ np.linalg.norm(label.products, axis=1)
        share = 2 * float((z * label.products).sum()) / size if _all_negative(label, z) else 0.0
    if share > NEGATIVE:
        return []
    return [f"the sign is wrong: the trace is negative, {share:.2g} of the sum of absolute eigenvalues"]
