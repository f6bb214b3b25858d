"""Are the derivatives of a potential right? Forces, Hessians and the gradient of a Hessian loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import covalent_radii

from hint_plugins.potential import Potential

#: Largest relative disagreement of forces, stress and Hessian products with central differences in float64.
TOLERANCE = 1e-5
#: The same for calculators, whose self-consistency leaves noise, and for float32 models.
NOISY_TOLERANCE = 1e-2


def example(elements: frozenset[int] | None) -> Atoms:
    """A small cluster of elements that a model knows, with no symmetry."""
    water = frozenset([1, 8])
    if elements is None or water <= elements:
        return Atoms("OH2", [[0.02, 0.0, 0.01], [0.98, 0.05, 0.0], [-0.27, 0.93, 0.08]])
    numbers = (sorted(elements) * 4)[:4]
    directions = np.array([[0.0, 0.0, 0.0], [1.05, 0.1, 0.0], [0.45, 1.0, 0.1], [0.5, 0.3, 1.0]])
    return Atoms(numbers, directions * 2 * float(np.mean(covalent_radii[numbers])))


def check_potential(potential: Potential, structures: list[Atoms] | None = None) -> dict[str, Any]:
    """Compare forces, Hessian products and (periodic) stress of a potential with central differences.

    Parameters
    ----------
    potential
        In float64 where it is a model.
    structures
        Some structures; by default a small cluster.

    Returns
    -------
    dict
        ``forces_error``, ``hvp_error``, ``stress_error`` (None for molecules): relative, the largest over the
        structures; ``asymmetry`` of the Hessian product (``|u.Hv - v.Hu|``, relative); ``tolerance``; ``ok``.
    """
    items = structures or [example(potential.backend.elements)]
    exact = potential.exact_hessian and potential.dtype == torch.float64
    step = 1e-4 if exact else 5e-3
    rng = np.random.default_rng(0)
    errors: dict[str, list[float]] = {"forces_error": [], "hvp_error": [], "stress_error": [], "asymmetry": []}
    for atoms in items:
        u, v = rng.standard_normal((2, 3 * len(atoms)))
        at = {sign: _moved(atoms, sign * step * u) for sign in (-1, 1)}
        both = potential.evaluate([at[-1], at[1], atoms])
        numeric = -(both.energies[1] - both.energies[0]) / (2 * step)
        errors["forces_error"].append(_relative(numeric, both.forces[2].reshape(-1) @ u, np.abs(both.forces[2]).max()))
        hu, hv = potential.hvp(atoms, np.stack([u, v]))
        difference = -(both.forces[1] - both.forces[0]).reshape(-1) / (2 * step)
        scale = max(float(np.linalg.norm(hu)), 1e-8)
        errors["hvp_error"].append(float(np.linalg.norm(hu - difference)) / scale)
        errors["asymmetry"].append(abs(float(v @ hu - u @ hv)) / (scale * float(np.linalg.norm(v))))
        if atoms.pbc.all():
            errors["stress_error"].append(_stress_error(potential, atoms, step))
    report: dict[str, Any] = {name: max(values) if values else None for name, values in errors.items()}
    report["tolerance"] = TOLERANCE if exact else NOISY_TOLERANCE
    measured = [value for value in report.values() if value is not None]
    report["ok"] = bool(all(value <= report["tolerance"] for value in measured[:-1]))
    return report


def _moved(atoms: Atoms, shift: np.ndarray) -> Atoms:
    copy = atoms.copy()
    copy.positions += shift.reshape(-1, 3)
    return copy


def _relative(value: float, reference: float, floor: float) -> float:
    return float(abs(value - reference) / max(abs(reference), floor, 1e-6))


def _stress_error(potential: Potential, atoms: Atoms, step: float) -> float:
    strain = np.random.default_rng(1).standard_normal((3, 3))
    strain = 0.5 * (strain + strain.T)
    energies = []
    for sign in (-1, 1):
        copy = atoms.copy()
        copy.set_cell(atoms.cell.array @ (np.eye(3) + 0.1 * sign * step * strain), scale_atoms=True)
        energies.append(potential.evaluate([copy]).energies[0])
    found = potential.evaluate([atoms], stress=True).stresses
    assert found is not None
    xx, yy, zz, yz, xz, xy = found[0]
    tensor = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    numeric = (energies[1] - energies[0]) / (0.2 * step * atoms.get_volume())
    return _relative(numeric, float((tensor * strain).sum()), float(np.abs(tensor).max()))


def check_training(potential: Potential, structures: list[Atoms] | None = None) -> dict[str, Any] | None:
    """Third-derivative self-test of an autograd model: can a Hessian loss be trained through it?

    The test is made as training makes it, with an exact LayerNorm in the place of torch's.

    Returns
    -------
    dict or None
        ``hvp_error``, ``gradient_error``, ``guilty``, ``kinks``, ``ok``, and the modules that were ``made_exact``; None
        when the potential has no parameters.
    """
    from hint_plugins.curvature.layer_norm import restore_layer_norms, swap_layer_norms
    from hint_plugins.curvature.selftest import check_derivatives

    backend = potential.backend
    model = getattr(backend, "model", None)
    if not isinstance(model, torch.nn.Module) or potential.dtype != torch.float64:
        return None
    weights = [p for p in model.parameters() if p.is_floating_point()]
    frozen = [p for p in weights if not p.requires_grad]
    made_exact = swap_layer_norms(model)
    try:
        for p in frozen:
            p.requires_grad_(True)
        items = structures or [example(backend.elements)]
        report = check_derivatives(model, lambda: backend.view(items)[0])
    finally:
        restore_layer_norms(model)
        for p in frozen:
            p.requires_grad_(False)
    return {
        "hvp_error": report.hvp_error,
        "gradient_error": report.gradient_error,
        "guilty": [f"a derivative raises {report.raised}"] * bool(report.raised) + report.guilty,
        "kinks": report.kinks,
        "ok": report.ok,
        "made_exact": made_exact,
    }
