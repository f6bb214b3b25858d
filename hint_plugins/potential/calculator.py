"""ASE calculator on a potential that has been loaded, with Hessians."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from hint_plugins.structures.charges import raw_statements

if TYPE_CHECKING:
    from hint_plugins.potential.potential import Potential


class PotentialCalculator(Calculator):
    """Energy, forces, stress and Hessian of a :class:`~hint_plugins.potential.Potential` for ASE.

    Parameters
    ----------
    potential
        The potential.
    """

    name = "hintcalculator"
    implemented_properties = ["energy", "free_energy", "forces", "stress", "hessian"]  # noqa: RUF012

    def __init__(self, potential: Potential, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.potential = potential

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Changes since the last calculation; total charge and spin in ``info`` count too."""
        changes = super().check_state(atoms, tol=tol)
        if not changes and self.atoms is not None and repr(raw_statements(self.atoms)) != repr(raw_statements(atoms)):
            changes.append("info")
        return changes

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Compute what is missing; results of an unchanged structure are kept."""
        super().calculate(atoms, properties, system_changes)
        structure = self.atoms
        assert structure is not None
        wanted = properties or ["energy"]
        if system_changes:
            self.results = {}
        stress = "stress" in wanted
        if stress and not structure.pbc.any():
            raise PropertyNotImplementedError("stress: the structure is not periodic")
        if "energy" not in self.results or (stress and "stress" not in self.results):
            found = self.potential.evaluate([structure], stress=stress)
            self.results["energy"] = self.results["free_energy"] = float(found.energies[0])
            self.results["forces"] = found.forces[0]
            if found.stresses is not None:
                self.results["stress"] = found.stresses[0]
        if "hessian" in wanted and "hessian" not in self.results:
            self.results["hessian"] = self.potential.hessian(structure)

    def get_hessian(self, atoms: Atoms | None = None) -> np.ndarray:
        """Hessian in ASE's layout, (3N, 3N) in eV/A^2; kept while the structure does not change."""
        found = self.get_property("hessian", atoms if atoms is not None else self.atoms)
        assert found is not None
        return np.array(found)
