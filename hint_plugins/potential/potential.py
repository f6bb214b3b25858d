"""One object for all studies: energies, forces, stresses, Hessian products and Hessians of any potential."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms

from hint_plugins.curvature.engines import Engine, FiniteDifference, get_engine
from hint_plugins.curvature.full import full_hessians
from hint_plugins.potential.backends.loading import load_backend
from hint_plugins.potential.backends.protocol import Backend, PotentialError, Predictions
from hint_plugins.potential.calculator import PotentialCalculator
from hint_plugins.potential.checks import StructureChecks, require_finite, with_index
from hint_plugins.potential.memory import MemoryBudget, largest_first, next_batch, run_in_batches, structure_cost
from hint_plugins.potential.products import MOST_PRODUCTS, Fitting, Products, allowed_cost, grows
from hint_plugins.structures.frozen import coordinate_masks


@dataclass
class Calls:
    """What a potential was asked for; finite-difference forces inside a Hessian or product are not counted again.

    Attributes
    ----------
    forces
        Structures whose energy and forces were evaluated.
    hessians
        Whole Hessians.
    products
        Hessian-vector products outside whole Hessians.
    """

    forces: int = 0
    hessians: int = 0
    products: int = 0

    def reset(self) -> None:
        """Count from zero."""
        self.forces = self.hessians = self.products = 0


class Potential:
    """A potential energy surface, whatever computes it.

    Parameters
    ----------
    backend
        See :class:`hint_plugins.potential.backends.Backend`; :meth:`load` makes one from a file or a name.

    Attributes
    ----------
    calls
        :class:`Calls`: how often it was asked.
    origin
        What it was loaded from: text or an object; None if it was made from a backend.
    """

    def __init__(self, backend: Backend, origin: Any = None) -> None:
        self.backend = backend
        self.origin = origin
        self.calls = Calls()
        self._checks = StructureChecks(backend)
        self._budgets: dict[Any, MemoryBudget] = {k: MemoryBudget(backend.device) for k in ("forces", "hessians")}
        self._hvp = Products(backend, self._budgets)

    @classmethod
    def load(
        cls,
        spec: Any,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
    ) -> Potential:
        """Load a potential.

        Parameters
        ----------
        spec
            A model file (MACE ``.model``, AlphaNet or fairchem checkpoint; ``file#head`` chooses a head),
            ``tblite:GFN2-xTB``, ``emt``, ``lj``, ``module:factory`` (a function that makes an ASE calculator
            or an EnergyModel), or such an object, or a Potential. Model files may run code when they are
            read (they are pickles): load only what you trust.
        device
            ``cpu``, ``cuda``, ``cuda:1``; by default the GPU when there is one.
        dtype
            ``float64`` or ``float32``; by default that of the model. Hessians and vibrations want float64.

        Raises
        ------
        PotentialError
            If the file is missing or its format unknown; the message says what was tried.
        """
        if isinstance(spec, Potential):
            return spec
        return cls(load_backend(spec, device, dtype), spec)

    @property
    def name(self) -> str:
        """Name for tables and messages."""
        return self.backend.name

    @property
    def device(self) -> torch.device:
        return self.backend.device

    @property
    def dtype(self) -> torch.dtype:
        return self.backend.dtype

    @property
    def cutoff(self) -> float | None:
        """Radius of the neighbour list, A; None for calculators."""
        return self.backend.cutoff

    @property
    def exact_hessian(self) -> bool:
        """Whether Hessians are exact rather than finite differences."""
        return not isinstance(self.backend.engine, FiniteDifference)

    def why_not(self, atoms: Atoms) -> str | None:
        """Why this structure cannot be evaluated (what is seen without trying); None when nothing is wrong."""
        return self._checks.why_not(atoms)

    def evaluate(
        self, atoms_list: Sequence[Atoms] | Atoms, *, stress: bool = False, progress: bool = False
    ) -> Predictions:
        """Energies, forces and, on request, stresses.

        Parameters
        ----------
        atoms_list
            Structures of any size, molecules and crystals mixed; batched by memory.
        stress
            Compute stresses too.
        progress
            Show a bar.

        Returns
        -------
        Predictions
            In the order of ``atoms_list``.

        Raises
        ------
        PotentialError
            For an unknown element, non-finite positions, overlapping atoms, a failed calculation, or results that
            are not finite; the message names the structure by its index.
        MemoryError
            If one structure alone does not fit into memory.
        """
        structures = self._checks.checked(atoms_list)
        energies = np.zeros(len(structures))
        forces: list[np.ndarray] = [np.zeros((0, 3))] * len(structures)
        stresses = np.full((len(structures), 6), np.nan) if stress else None

        def work(chosen: list[int]) -> list[tuple[float, np.ndarray, np.ndarray | None]]:
            def evaluated(part: list[Atoms]) -> Predictions:
                found = self.backend.evaluate(part, stress)
                require_finite("energy", [found.energies])
                require_finite("forces", found.forces)
                return found

            batch = with_index(evaluated, structures, chosen)
            rows = batch.stresses if batch.stresses is not None else [None] * len(chosen)
            return [(float(e), f, s) for e, f, s in zip(batch.energies, batch.forces, rows, strict=True)]

        with _bar(len(structures), progress, "energy and forces") as bar:
            costs = [structure_cost(atoms, self.cutoff) for atoms in structures]
            for k, (energy, force, tensor) in run_in_batches(
                costs, work, self._budgets["forces"], max_size=256 if self.backend.batched else 1
            ):
                energies[k], forces[k] = energy, force
                if stresses is not None and tensor is not None:
                    stresses[k] = tensor
                self.calls.forces += 1
                bar.update()
        return Predictions(energies, forces, stresses)

    def hvp(self, atoms: Atoms, vectors: np.ndarray) -> np.ndarray:
        """Products of the Hessian with vectors, as many at a time as fit into memory.

        Exact for autograd models; central differences of forces for calculators, and where one exact product does not
        fit into memory.

        Parameters
        ----------
        atoms
            The structure.
        vectors
            (3N,), (m, 3N), (N, 3) or (m, N, 3), any unit.

        Returns
        -------
        numpy.ndarray
            ``H v``, float64, in the shape of ``vectors``, eV/A^2 times their unit.

        Raises
        ------
        ValueError
            If the vectors do not fit the structure.
        PotentialError
            As :meth:`evaluate`.
        MemoryError
            If the forces at the two structures of a central difference do not fit into memory either.
        """
        values = np.asarray(vectors, dtype=np.float64)
        n = len(atoms)
        if values.shape[-1:] != (3 * n,) and values.shape[-2:] != (n, 3):
            raise ValueError(f"vectors of shape {values.shape} do not fit {n} atoms: expected (3N,) or (m, 3N)")
        structures = self._checks.checked([atoms])
        if values.size == 0:
            return np.zeros_like(values)

        def compute(chosen: list[int], engine: Fitting) -> list[np.ndarray]:
            def work(part: list[Atoms]) -> np.ndarray:
                view, _ = self._hvp.view(part)
                like = view.positions
                probes = torch.as_tensor(values.reshape(-1, n, 3), dtype=like.dtype, device=like.device)
                found = engine(view, probes).double().cpu().numpy()
                require_finite("Hessian products", [found])
                return found

            return [with_index(work, structures, chosen)]

        products = self._hvp.made(structures, [0], self.backend.engine, compute)[0]
        self.calls.products += len(products)
        return products.reshape(values.shape)

    def hessian(
        self,
        atoms: Atoms,
        *,
        symmetrise: bool = True,
        step: float | None = None,
        engine: str | None = None,
        free: bool | np.ndarray = False,
    ) -> np.ndarray:
        """The Hessian of one structure; see :meth:`hessians`.

        ``free`` may also be (N,) or (N, 3) truth values: the atoms, or their coordinates, whose block is wanted.
        """
        wanted = free if isinstance(free, (bool, np.bool_)) else [np.asarray(free)]
        return self.hessians([atoms], symmetrise=symmetrise, step=step, engine=engine, free=wanted)[0]

    def hessians(
        self,
        atoms_list: Sequence[Atoms],
        *,
        progress: bool = False,
        symmetrise: bool = True,
        step: float | None = None,
        engine: str | None = None,
        free: bool | Sequence[np.ndarray] = False,
    ) -> list[np.ndarray]:
        """Whole Hessians ``H[3i+a, 3j+b] = d2E/dr_ia dr_jb``.

        Exact for autograd models; central differences of forces for calculators. Structures of like size are done
        together, and as many columns at a time as fit into memory. A structure of which one exact column does not fit
        is done by finite differences of the same model's forces.

        Parameters
        ----------
        atoms_list
            Structures; batched by memory.
        progress
            Show a bar.
        symmetrise
            Give ``(H + H^T) / 2``; without it, finite-difference noise and the asymmetry of direct-force
            models stay visible.
        step
            Displacement of finite differences, A (calculators: 0.005 by default); for an autograd model a
            step asks for finite differences instead of the exact Hessian.
        engine
            Name of an HVP engine (:attr:`hint_plugins.registries.Registries.engines`) instead of the backend's.
        free
            True: of each structure the block of the coordinates that its ``FixAtoms`` and ``FixCartesian`` leave free,
            with products for these alone. Or for each structure (N,) or (N, 3) truth values.

        Returns
        -------
        list of numpy.ndarray
            (3N, 3N) float64, eV/A^2; (b, b) for b free coordinates.

        Raises
        ------
        PotentialError, MemoryError
            As :meth:`evaluate`.
        LabelError
            For ``free=True`` and another constraint, or nothing free.
        """
        structures = self._checks.checked(atoms_list)
        masks: dict[int, np.ndarray] | None = None
        counts = [3 * len(atoms) for atoms in structures]
        if free is not False:
            structures = [atoms.copy() for atoms in structures]  # a mask belongs to one place in the list
            wanted = coordinate_masks(structures, free)
            masks = {id(atoms): mask for atoms, mask in zip(structures, wanted, strict=True)}
            counts = [int(mask.sum()) for mask in wanted]
        products: Engine = self.backend.engine if engine is None else get_engine(engine, step)
        if step is not None:
            products = FiniteDifference(two_sided=True, step=step)

        def compute(chosen: list[int], how: Fitting) -> list[np.ndarray]:
            def work(part: list[Atoms]) -> list[np.ndarray]:
                view, sizes = self._hvp.view(part)
                rows = None if masks is None else [masks[id(atoms)] for atoms in part]
                matrices = [h.double().cpu().numpy() for h in full_hessians(view, sizes, how, MOST_PRODUCTS, rows)]
                require_finite("Hessian", matrices)
                return matrices

            return with_index(work, structures, chosen)

        out: list[np.ndarray] = [np.zeros((0, 0))] * len(structures)
        costs = [
            structure_cost(atoms, self.cutoff) * (count if grows(products) else 1)
            for atoms, count in zip(structures, counts, strict=True)
        ]
        most = 32 if self.backend.batched else 1
        order = largest_first(costs)
        with _bar(len(structures), progress, "Hessians") as bar:
            while order:
                chosen = next_batch(order, costs, allowed_cost(products, self._hvp.budget(products)), most)
                for k, hessian in zip(chosen, self._hvp.made(structures, chosen, products, compute), strict=True):
                    out[k] = 0.5 * (hessian + hessian.T) if symmetrise else hessian
                    self.calls.hessians += 1
                    bar.update()
                order = order[len(chosen) :]
        return out

    def calculator(self) -> PotentialCalculator:
        """A fresh ASE calculator on this potential, with ``get_hessian``."""
        return PotentialCalculator(self)

    def __repr__(self) -> str:
        return f"Potential({self.name!r}, device={str(self.device)!r}, dtype={str(self.dtype)!r})"


def _bar(total: int, show: bool, text: str) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc=text, unit="structure", disable=not show)


__all__ = ["Calls", "Potential", "PotentialError", "Predictions"]
