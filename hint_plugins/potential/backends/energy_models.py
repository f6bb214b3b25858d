"""Any :class:`~hint_plugins.models.EnergyModel` as a backend: exact forces, stresses and Hessians by autograd."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress
from torch import Tensor

from hint_plugins.curvature.engines import Engine, ForceView, get_engine
from hint_plugins.models import EnergyModel, Graph, energy_and_forces, energy_forces_stress, graph_from_atoms
from hint_plugins.potential.backends.protocol import Predictions
from hint_plugins.potential.products import exact_engine


class EnergyModelBackend:
    """Batched evaluation of an autograd model.

    Parameters
    ----------
    model
        An :class:`~hint_plugins.models.EnergyModel`. It is moved to ``device`` and ``dtype``, put into
        evaluation mode, and its parameters are frozen.
    name
        For messages.
    device, dtype
        Where and in which precision to compute.
    elements
        Atomic numbers the model knows; by default its attribute ``elements``, if it has one.
    engine
        How Hessian-vector products are made; by default exactly, on a CPU by the engine that the model's attribute
        ``cpu_engine`` names, if it has one.
    """

    batched = True
    sees_charge = False

    def __init__(
        self,
        model: EnergyModel,
        name: str,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
        *,
        elements: Iterable[int] | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.name, self.device, self.dtype = name, torch.device(device), dtype
        self.engine = engine or exact_engine(self.device, get_engine(getattr(model, "cpu_engine", "reverse")))
        self.model = model
        if isinstance(model, torch.nn.Module):
            model.to(device=self.device, dtype=dtype).eval().requires_grad_(False)
        self.cutoff: float | None = float(model.cutoff)
        known = elements if elements is not None else getattr(model, "elements", None)
        self.elements = None if known is None else frozenset(int(z) for z in known)

    def graph(self, structures: Sequence[Atoms]) -> Graph:
        """Batch with neighbour lists on this backend's device."""
        assert self.cutoff is not None
        return graph_from_atoms(structures, self.cutoff, self.device, self.dtype)

    def evaluate(self, structures: Sequence[Atoms], stress: bool = False) -> Predictions:
        """See :class:`hint_plugins.potential.backends.protocol.Backend`."""
        graph = self.graph(structures)
        stresses = None
        if stress:
            stresses = np.full((len(structures), 6), np.nan)
        if stress and graph.cell is not None:
            energies, forces, tensor = energy_forces_stress(self.model, graph)
            periodic = np.array([atoms.pbc.any() for atoms in structures])
            voigt = full_3x3_to_voigt_6_stress(tensor.detach().double().cpu().numpy())
            assert stresses is not None
            stresses[periodic] = voigt[periodic]
        else:
            energies, forces = energy_and_forces(self.model, graph)
        sizes = [len(atoms) for atoms in structures]
        pieces = forces.detach().double().cpu().split(sizes)
        return Predictions(energies.detach().double().cpu().numpy(), [p.numpy() for p in pieces], stresses)

    def view(self, structures: Sequence[Atoms]) -> tuple[ForceView, list[int]]:
        """See :class:`~hint_plugins.potential.backends.protocol.Backend`; neighbours: of the given positions."""
        graph = self.graph(structures)
        trainable = isinstance(self.model, torch.nn.Module) and any(p.requires_grad for p in self.model.parameters())

        def forces_at(positions: Tensor) -> Tensor:
            moved = graph.repeated(len(positions)).with_positions(positions.reshape(-1, 3))
            keep = positions.requires_grad or trainable
            return energy_and_forces(self.model, moved, create_graph=keep)[1].view_as(positions)

        return ForceView(graph.positions, forces_at), [len(atoms) for atoms in structures]
