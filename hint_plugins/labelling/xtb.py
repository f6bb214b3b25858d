"""Label engine: GFN1-xTB and GFN2-xTB through tblite, for molecules and periodic cells."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.units import Bohr, Hartree

from hint_plugins.labelling.engine import EngineError, Evaluation, Scalar
from hint_plugins.labelling.periodicity import check_vacuum, is_partial, with_vacuum
from hint_plugins.labelling.tblite_library import import_tblite
from hint_plugins.runs.threads import single_threaded
from hint_plugins.structures.charges import charge_and_multiplicity
from hint_plugins.units import HARTREE_PER_BOHR

if TYPE_CHECKING:
    from tblite.interface import Result

METHODS = ("GFN2-xTB", "GFN1-xTB", "IPEA1-xTB")


class XTBEngine:
    """GFN-xTB energies and gradients; Hessians follow by central differences.

    The accuracy of the self-consistent charges decides the quality of the Hessian: at tblite's default of 1.0
    it is wrong by 20 meV/A^2, at 0.01 by 0.1. Every displaced calculation starts from the charges of the
    undisplaced one, which saves a third of the time and leaves the result independent of the order of
    evaluation.

    Parameters
    ----------
    method
        ``GFN2-xTB``, ``GFN1-xTB`` or ``IPEA1-xTB``.
    accuracy
        tblite's accuracy, a dimensionless factor (smaller is tighter).
    max_iterations
        Of the self-consistent charges.
    electronic_temperature
        In K; the default is tblite's.
    vacuum
        Width (A) of the vacuum to be built in the directions of a slab or chain that are not periodic; without it such
        structures are refused, since tblite knows three periodic directions or none.
    """

    #: 0.005 bohr along one coordinate; 0.0015 bohr per coordinate along a dense direction, whose length
    #: grows as sqrt(3N).
    step = 0.005 * Bohr
    probe_step = 0.0015 * Bohr

    def __init__(
        self,
        method: str = "GFN2-xTB",
        accuracy: float = 0.01,
        max_iterations: int = 250,
        electronic_temperature: float = 300.0,
        vacuum: float | None = None,
    ) -> None:
        matches = [name for name in METHODS if method.lower() in (name.lower(), name.split("-")[0].lower())]
        if not matches:
            raise ValueError(f"unknown xTB method {method!r}: choose {', '.join(METHODS)}")
        if not 0 < accuracy <= 100:
            raise ValueError(f"accuracy must be positive (smaller is tighter), got {accuracy}")
        with single_threaded():
            import_tblite()  # a missing library is an error now, not in each structure

        self.method = matches[0]
        self.accuracy = accuracy
        self.max_iterations = max_iterations
        self.electronic_temperature = electronic_temperature
        self.vacuum = check_vacuum(vacuum)

    def provenance(self) -> dict[str, Scalar]:
        return {
            "method": self.method,
            "code": "tblite",
            "version": importlib.metadata.version("tblite"),
            "accuracy": self.accuracy,
            "electronic_temperature_K": self.electronic_temperature,
            "max_iterations": self.max_iterations,
        }

    def surface(self, atoms: Atoms) -> XTBSurface:
        return XTBSurface(self, atoms)


class XTBSurface:
    """One structure under :class:`XTBEngine`; units as in :class:`~hint_plugins.labelling.engine.Surface`."""

    def __init__(self, engine: XTBEngine, atoms: Atoms) -> None:
        Calculator = import_tblite().Calculator

        charge, multiplicity = charge_and_multiplicity(atoms)
        periodic, boxed = bool(atoms.pbc.any()), is_partial(atoms)
        if periodic and atoms.has("initial_magmoms") and np.any(atoms.get_initial_magnetic_moments()):
            raise EngineError(
                f"{engine.method} knows no atomic moments: remove initial_magmoms, and give 'spin' (2S + 1)"
            )
        if boxed:
            atoms = with_vacuum(atoms, engine.vacuum, "tblite")
        self.details = {"vacuum_A": engine.vacuum} if boxed else {}
        self.volume = atoms.get_volume() if periodic and not boxed else None
        try:
            self.calculator = Calculator(
                engine.method,
                atoms.numbers,
                atoms.positions / Bohr,
                float(charge),
                multiplicity - 1,
                lattice=np.asarray(atoms.cell) / Bohr if periodic else None,
                periodic=np.asarray(atoms.pbc) if periodic else None,
            )
        except (RuntimeError, ValueError, TypeError) as error:
            raise EngineError(f"{engine.method} cannot describe {atoms.symbols}: {error}") from error
        self.calculator.set("verbosity", 0)
        self.calculator.set("accuracy", engine.accuracy)
        self.calculator.set("max-iter", engine.max_iterations)
        self.calculator.set("temperature", engine.electronic_temperature * 3.166808578545117e-06)
        self.reference: Result | None = None

    def evaluate(self, positions: np.ndarray) -> Evaluation:
        try:
            self.calculator.update(positions / Bohr)
            if self.reference is None:
                result = self.reference = self.calculator.singlepoint()
            else:
                result = self.calculator.singlepoint(self.reference, copy=True)
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"xTB failed: {error}") from error
        stress = None
        if self.volume is not None:
            virial = np.asarray(result.get("virial")) * Hartree
            stress = (virial / self.volume).flat[[0, 4, 8, 5, 2, 1]]
        forces = -np.asarray(result.get("gradient")) * HARTREE_PER_BOHR
        return Evaluation(float(result.get("energy")) * Hartree, forces, stress)

    def hessian(self) -> None:
        return None
