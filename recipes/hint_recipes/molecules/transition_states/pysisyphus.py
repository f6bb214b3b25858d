"""Growing string and RS-I-RFO of pysisyphus, where the user has installed it (GPL-3; it is not a dependency)."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms, units

from hint_plugins.errors import InputError
from hint_plugins.structures.charges import charge_and_multiplicity
from hint_plugins.structures.copies import moved
from hint_recipes.failures import SearchFailure
from hint_recipes.molecules.paths.elastic_band import evaluate_images, with_roles
from hint_recipes.molecules.transition_states.stationary import snapshot
from hint_recipes.steps import check_deadline, check_step

if TYPE_CHECKING:
    from hint_plugins.potential import Potential
    from hint_recipes.molecules.transition_states.settings import SearchSettings


def require_pysisyphus(settings: SearchSettings) -> None:
    """Refuse settings that ask for pysisyphus when it is not installed."""
    if settings.needs_pysisyphus and importlib.util.find_spec("pysisyphus") is None:
        raise InputError("gsm and rsirfo need pysisyphus (GPL-3): pip install pysisyphus, or choose neb and sella")


class AtomicUnits:
    """A potential the way pysisyphus asks: flat coordinates in Bohr, energies in Hartree."""

    def __init__(self, potential: Potential, template: Atoms, deadline: float | None = None) -> None:
        self.potential, self.template, self.deadline = potential, template, deadline
        self.charge, self.mult = charge_and_multiplicity(template)

    def _atoms(self, coordinates: np.ndarray) -> Atoms:
        check_deadline(self.deadline)
        positions = np.reshape(coordinates, (-1, 3)) * units.Bohr
        check_step(positions, self.template.positions)
        return moved(self.template, positions)

    def get_forces(self, _: Any, coordinates: np.ndarray, **__: Any) -> dict[str, Any]:
        """``energy`` (Hartree) and flat ``forces`` (Hartree/Bohr)."""
        found = self.potential.evaluate([self._atoms(coordinates)])
        return {
            "energy": float(found.energies[0]) / units.Hartree,
            "forces": np.asarray(found.forces[0], dtype=float).reshape(-1) * units.Bohr / units.Hartree,
        }

    get_energy = get_forces

    def get_hessian(self, elements: Any, coordinates: np.ndarray, **__: Any) -> dict[str, Any]:
        """As :meth:`get_forces`, with ``hessian`` (3N, 3N) in Hartree/Bohr^2."""
        hessian = self.potential.hessian(self._atoms(coordinates)) * units.Bohr**2 / units.Hartree
        return self.get_forces(elements, coordinates) | {"hessian": hessian}


@contextlib.contextmanager
def _quiet() -> Iterator[str]:
    """Work in a scratch directory and in silence: pysisyphus writes logs where it is imported, and prints much."""
    with (
        tempfile.TemporaryDirectory(prefix="hint-pysisyphus-") as scratch,
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.chdir(scratch),
    ):
        yield scratch


def _geometry(atoms: Atoms, potential: Potential, kind: str, deadline: float | None) -> Any:
    from pysisyphus.Geometry import Geometry

    geometry = Geometry(atoms.get_chemical_symbols(), atoms.positions.reshape(-1) / units.Bohr, coord_type=kind)
    geometry.set_calculator(AtomicUnits(potential, atoms, deadline))
    return geometry


def growing_string(
    reactant: Atoms, product: Atoms, potential: Potential, num_images: int = 11, *, deadline: float | None = None
) -> tuple[list[Atoms], bool]:
    """Growing string (Peters et al., J. Chem. Phys. 120, 7877 (2004)) in delocalised internal coordinates.

    Returns
    -------
    list of ase.Atoms, bool
        The string, evaluated, and whether it converged.
    """
    with _quiet() as scratch:
        from pysisyphus.cos.GrowingString import GrowingString
        from pysisyphus.optimizers.StringOptimizer import StringOptimizer

        ends = [_geometry(atoms, potential, "dlc", deadline) for atoms in (reactant, product)]
        string = GrowingString(
            ends, lambda: AtomicUnits(potential, reactant, deadline), max_nodes=num_images - 2, perp_thresh=0.05
        )
        optimizer = StringOptimizer(string, max_cycles=50, out_dir=scratch, dump=False)
        try:
            optimizer.run()
        except SearchFailure:
            raise
        except Exception as error:  # coordinates break down in many ways
            raise SearchFailure("path_failed", f"growing string: {type(error).__name__}: {error}") from error
    images = []
    for node in string.images:
        images.append(moved(reactant, node.cart_coords.reshape(-1, 3) * units.Bohr))
    evaluate_images(potential, with_roles(images))
    return images, bool(optimizer.is_converged)


def rational_function_saddle(
    guess: Atoms, potential: Potential, *, fmax: float = 0.01, steps: int = 200, deadline: float | None = None
) -> tuple[Atoms, bool, int]:
    """First-order saddle point by RS-I-RFO (Bofill, Int. J. Quantum Chem. 69, 605 (1998)), exact Hessian each step.

    Returns as :func:`~hint_recipes.molecules.transition_states.stationary.find_saddle`.
    """
    with _quiet() as scratch:
        from pysisyphus.tsoptimizers.RSIRFOptimizer import RSIRFOptimizer

        geometry = _geometry(guess, potential, "redund", deadline)
        optimizer = RSIRFOptimizer(
            geometry,
            hessian_recalc=1,
            trust_radius=0.2,
            thresh="gau",
            max_cycles=steps,
            out_dir=scratch,
        )
        optimizer.run()
    saddle = moved(guess, geometry.cart_coords.reshape(-1, 3) * units.Bohr)
    saddle.calc = potential.calculator()
    converged = bool(optimizer.is_converged) and float(np.linalg.norm(saddle.get_forces(), axis=1).max()) < max(
        fmax, 0.03
    )
    return snapshot(saddle), converged, int(optimizer.cur_cycle) + 1
