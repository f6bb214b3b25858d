"""Is this Hessian label what it claims to be? Checks made when a label is read."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from ase import Atoms

from hint_plugins.labels.hessian_label import HessianLabel

#: Relative asymmetry ``max|H - H^T| / max|H|`` above which a full label is refused. Finite-difference labels
#: reach 1e-3, float32 analytic ones (HORM) 1e-2; a matrix whose atoms were permuted is of order 1.
MAX_ASYMMETRY = 0.05
#: Largest ``|sum_j H_ij|`` relative to ``max|H|`` (translational sum rule). HORM reaches 0.01.
MAX_SUM_RULE = 0.05
#: Largest diagonal block of a bonded system, eV/A^2: a C#O or N#N stretch gives about 150, a bond under strong
#: compression a few hundred. In Ha/Bohr^2 the same block would be below 4.
PLAUSIBLE = (4.0, 1.0e4)


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
        Largest ``|H t|`` over max |H| for unit rotations t, where forces vanish; None elsewhere.
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
) -> LabelReport:
    """Check one label against its structure.

    Parameters
    ----------
    label, atoms
        The label and the structure it belongs to.
    forces
        Reference forces (N, 3) in eV/A, if known: below 0.05 eV/A the rotational sum rule is measured too.
    max_asymmetry, max_sum_rule
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
    if label.kind == "projections" and not np.isfinite(label.directions).all():
        return LabelReport(label.kind, np.nan, np.nan, None, np.nan, ["a probe is not finite"])
    largest = float(np.abs(values).max())
    if len(atoms) == 1 and not atoms.pbc.any() and largest < 1e-6:
        return LabelReport(label.kind, 0.0, 0.0, None, largest)
    if largest == 0.0:
        return LabelReport(label.kind, 0.0, 0.0, None, 0.0, ["all numbers are zero"])
    reasons: list[str] = []
    asymmetry = 0.0
    if label.kind == "full":
        asymmetry = float(np.abs(values - values.T).max()) / largest
        if asymmetry > max_asymmetry:
            reasons.append(f"asymmetric: max|H - H^T| is {asymmetry:.2g} of max|H|, more than {max_asymmetry:g}")
    blocks = values.reshape(len(values), -1, 3)
    sum_rule = float(np.abs(blocks.sum(axis=1)).max()) / largest
    if sum_rule > max_sum_rule:
        reasons.append(
            f"translation changes the forces: sum over atoms is {sum_rule:.2g} of max|H|, more than {max_sum_rule:g}"
        )
    reasons += _permutation(label, atoms)
    reasons += _plausible(label, largest, atoms)
    rotation = None
    if label.kind == "full" and forces is not None and np.abs(forces).max() < 0.05 and not atoms.pbc.any():
        rotation = float(np.abs(values @ _rotations(atoms.positions)).max()) / largest
    return LabelReport(label.kind, asymmetry, sum_rule, rotation, largest, reasons)


def _rotations(positions: np.ndarray) -> np.ndarray:
    """(3N, k) unit-length infinitesimal rotations about the centroid."""
    r = positions - positions.mean(axis=0)
    modes = np.stack([np.cross(axis, r).reshape(-1) for axis in np.eye(3)], axis=1)
    norms = np.linalg.norm(modes, axis=0)
    return modes[:, norms > 1e-8] / norms[norms > 1e-8]


def _plausible(label: HessianLabel, largest: float, atoms: Atoms) -> list[str]:
    low, high = PLAUSIBLE
    if label.kind != "full" or len(atoms) == 1 or _closest(atoms)[0] > 1.3:
        low = 0.0
    if largest < low:
        return [
            f"largest entry {largest:.3g} is too small for eV/A^2 at the shortest bond: "
            "is the label in Ha/Bohr^2? (multiply by 97.17)"
        ]
    if largest > high:
        return [f"largest entry {largest:.3g} eV/A^2 is not plausible: wrong unit, or atoms on top of each other"]
    return []


def _closest(atoms: Atoms) -> tuple[float, int, int]:
    """Smallest distance over the sum of covalent radii, and the pair (molecules only; inf otherwise)."""
    from ase.data import covalent_radii

    if atoms.pbc.any() or len(atoms) < 2:
        return np.inf, 0, 0
    radii = covalent_radii[atoms.numbers]
    scaled = atoms.get_all_distances() / (radii[:, None] + radii[None, :])
    np.fill_diagonal(scaled, np.inf)
    i, j = np.unravel_index(int(scaled.argmin()), scaled.shape)
    return float(scaled[i, j]), int(i), int(j)


def _permutation(label: HessianLabel, atoms: Atoms) -> list[str]:
    """Do the strong off-diagonal blocks sit where the short distances are?

    Block norms fall steeply with distance. If the atoms were permuted against the matrix, the strongest
    coupling of most atoms belongs to a pair that is far apart.
    """
    n = len(atoms)
    if label.kind != "full" or n < 3 or atoms.pbc.any():
        return []
    from ase.data import covalent_radii

    norms = np.linalg.norm(label.products.reshape(n, 3, n, 3), axis=(1, 3))
    np.fill_diagonal(norms, 0.0)
    radii = covalent_radii[atoms.numbers]
    scaled = atoms.get_all_distances() / (radii[:, None] + radii[None, :])
    strongest = norms.argmax(axis=1)
    far = scaled[np.arange(n), strongest] > 1.7
    bonded = (scaled + 10 * np.eye(n)).min(axis=1) < 1.3
    wrong = int((far & bonded).sum())
    if wrong > max(1, bonded.sum() // 3):
        return [
            f"{wrong} of {int(bonded.sum())} bonded atoms couple most strongly to an atom that is no neighbour: "
            "the atoms of structure and Hessian are in different orders"
        ]
    return []
