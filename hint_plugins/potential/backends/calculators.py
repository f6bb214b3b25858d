"""Any ASE calculator as a backend; its Hessians are central differences of forces."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from hint_plugins.curvature.engines import Engine, FiniteDifference, ForceView
from hint_plugins.models.neighbours import MIN_DISTANCE, neighbour_list
from hint_plugins.potential.backends.protocol import PotentialError, Predictions
from hint_plugins.structures.charges import tell_calculator

#: Largest displacement of a coordinate for Hessians from a calculator's forces, A. The error of second order is
#: about ``step^2 E''''/6``: 0.2 % of a bond's curvature at 0.005 A, and self-consistency noise of 1e-5 eV/A
#: in the forces adds 1e-3 eV/A^2.
STEP = 0.005


class CalculatorBackend:
    """Energies and forces of an ASE calculator.

    Parameters
    ----------
    factory
        Makes a calculator; called once in every thread, so that calculators with state are never shared.
    name
        For messages.
    elements
        Atomic numbers the calculator knows, if it is known.
    prepare
        Changes a copy of the structure before the calculator sees it; by default it is told charge and spin in every
        form that ASE's calculators read.
    step
        Largest displacement of a coordinate in finite differences, A.
    sees_charge
        False for a calculator whose energy cannot depend on charge and spin.
    """

    batched = False
    cutoff: float | None = None
    elements: frozenset[int] | None
    dtype = torch.float64

    def __init__(
        self,
        factory: Callable[[], Any],
        name: str,
        *,
        elements: Iterable[int] | None = None,
        prepare: Callable[[Atoms], None] = tell_calculator,
        step: float = STEP,
        sees_charge: bool = True,
    ) -> None:
        self.factory, self.name, self.prepare = factory, name, prepare
        self.elements = None if elements is None else frozenset(elements)
        self.sees_charge = sees_charge
        self.device = torch.device("cpu")
        self.engine: Engine = FiniteDifference(two_sided=True, step=step)
        self._local = threading.local()

    @property
    def calculator(self) -> Any:
        """This thread's calculator."""
        if not hasattr(self._local, "calculator"):
            self._local.calculator = self.factory()
        return self._local.calculator

    def evaluate(self, structures: Sequence[Atoms], stress: bool = False) -> Predictions:
        """Evaluate one by one; see :class:`hint_plugins.potential.backends.protocol.Backend`."""
        energies, forces, stresses = [], [], []
        for index, atoms in enumerate(structures):
            neighbour_list(atoms.positions, MIN_DISTANCE, atoms.cell, atoms.pbc)  # refuses what nothing can treat
            copy = atoms.copy()
            try:
                if self.sees_charge:
                    self.prepare(copy)
                copy.calc = self.calculator
                energies.append(float(copy.get_potential_energy()))
                forces.append(np.array(copy.get_forces(apply_constraint=False), dtype=np.float64))
                periodic = stress and atoms.pbc.any()
                stresses.append(copy.get_stress(apply_constraint=False) if periodic else np.full(6, np.nan))
            except MemoryError:
                raise
            except Exception as error:
                raise PotentialError(self._describe(index, atoms, error)) from error
            if not np.isfinite(forces[-1]).all() or not np.isfinite(energies[-1]):
                raise PotentialError(self._describe(index, atoms, "energy or forces are not finite"))
        return Predictions(np.array(energies), forces, np.array(stresses).reshape(-1, 6) if stress else None)

    def view(self, structures: Sequence[Atoms]) -> tuple[ForceView, list[int]]:
        """Forces as a function of positions (numbers only: no autograd graph)."""
        sizes = [len(atoms) for atoms in structures]
        copies = [atoms.copy() for atoms in structures]

        def forces_at(positions: Tensor) -> Tensor:
            out = torch.empty_like(positions, requires_grad=False)
            for k, displaced in enumerate(positions.detach()):
                pieces = displaced.split(sizes)
                for atoms, piece in zip(copies, pieces, strict=True):
                    atoms.positions = piece.numpy()
                out[k] = torch.as_tensor(np.concatenate(self.evaluate(copies).forces))
            return out

        positions = torch.as_tensor(np.concatenate([atoms.positions for atoms in structures]), dtype=torch.float64)
        return ForceView(positions, forces_at), sizes

    def _describe(self, index: int, atoms: Atoms, error: object) -> str:
        return f"structure {index} ({atoms.get_chemical_formula()}): {self.name} failed: {error}"
