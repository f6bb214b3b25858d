"""AlphaNet as backbone and head of fairchem's ``HydraModel``.

In a config::

    model:
      _target_: fairchem.core.models.base.HydraModel
      pass_through_head_outputs: true
      backbone: {model: hint_fairchem.alphanet.AlphaNetBackbone, hidden_channels: 128, cutoff: 5.0}
      heads: {efs: {module: hint_fairchem.alphanet.AlphaNetHead}}

A checkpoint of such a model loads in fairchem's own predict unit and calculator where this package is installed.
"""

from __future__ import annotations

from typing import Any

import torch
from ase import Atoms
from fairchem.core.datasets.atomic_data import AtomicData
from fairchem.core.graph.compute import generate_graph
from fairchem.core.models.base import BackboneInterface, HeadInterface
from fairchem.core.models.uma.escn_md import GradRegressConfig, eSCNMDBackbone
from fairchem.core.models.uma.outputs import compute_forces, compute_forces_and_stress
from fairchem.core.units.mlip_unit.api.inference import InferenceSettings
from fairchem.core.units.mlip_unit.mlip_unit import Task
from torch import Tensor, nn

from hint_plugins.models import Graph
from hint_plugins.models.alphanet import AlphaNet


class AlphaNetBackbone(nn.Module, BackboneInterface):
    """AlphaNet with neighbour lists made by fairchem on the device.

    Parameters
    ----------
    regress_forces, regress_stress
        Whether the head derives forces and stresses.
    max_neighbors
        Neighbours kept of an atom. Fewer than there are makes forces and Hessians jump.
    radius_pbc_version
        Neighbour search of fairchem: 1, 2 (its own) or 3 (NVIDIA's).
    **options
        Of :class:`~hint_plugins.models.alphanet.AlphaNetConfig`.
    """

    sees_charge = False

    def __init__(
        self,
        regress_forces: bool = True,
        regress_stress: bool = False,
        max_neighbors: int = 300,
        radius_pbc_version: int = 2,
        **options: Any,
    ) -> None:
        super().__init__()
        self.regress_config = GradRegressConfig(forces=regress_forces, stress=regress_stress)
        self.max_neighbors, self.radius_pbc_version = max_neighbors, radius_pbc_version
        self.otf_graph = True
        self.network = AlphaNet(**options)
        self.cutoff = self.network.cutoff

    @property
    def elements(self) -> frozenset[int]:
        """Atomic numbers the network knows."""
        return self.network.elements

    def forward(self, data: AtomicData) -> dict[str, Tensor]:
        """Energies of the atoms, (N,), for the head to add up and differentiate."""
        with torch.enable_grad():
            data["batch_full"], data["atomic_numbers_full"] = data["batch"], data["atomic_numbers"]
            if not data["pos"].requires_grad:
                data["pos"].requires_grad_(True)
            if self.regress_config.stress and not data["cell"].requires_grad:
                data["cell"].requires_grad_(True)
            found = generate_graph(
                data,
                cutoff=self.cutoff,
                max_neighbors=self.max_neighbors,
                enforce_max_neighbors_strictly=False,
                radius_pbc_version=self.radius_pbc_version,
                pbc=data["pbc"],
            )
            graph = Graph(
                positions=data["pos"],
                numbers=data["atomic_numbers"].long(),
                edge_index=found["edge_index"],
                shifts=found["offset_distances"],
                batch=data["batch"],
                num_graphs=data["natoms"].numel(),
            )
            return {"atomic_energies": self.network.atomic_energies(graph), "batch": data["batch"]}

    @classmethod
    def build_inference_settings(cls, settings: InferenceSettings) -> dict:
        """Overrides of the backbone's options for inference."""
        return {"radius_pbc_version": settings.internal_graph_gen_version}

    def get_default_untrained_tasks(
        self, checkpoint_tasks: dict[str, Task], inference_settings: InferenceSettings
    ) -> list[Task]:
        """Stress wherever there is an energy, as fairchem's own backbones offer."""
        return eSCNMDBackbone.get_default_untrained_tasks(self, checkpoint_tasks, inference_settings)

    def validate_tasks(self, dataset_to_tasks: dict[str, list]) -> None:
        """Every data set is welcome: the network has no embedding of data sets."""

    def prepare_for_inference(self, data: AtomicData, settings: InferenceSettings) -> AlphaNetBackbone:
        """Nothing to prepare."""
        return self

    def on_predict_check(self, data: AtomicData) -> None:
        """Nothing to check."""

    def validate_atoms_data(self, atoms: Atoms, task_name: str) -> None:
        """The network reads positions and elements only; charge and spin are set for the host's bookkeeping."""
        atoms.info.setdefault("charge", 0)
        atoms.info.setdefault("spin", 0)


class AlphaNetHead(nn.Module, HeadInterface):
    """Energy, and forces and stress as its derivatives.

    Parameters
    ----------
    backbone
        An :class:`AlphaNetBackbone`.
    prefix
        Put before the names of the outputs, as fairchem's heads do.
    """

    def __init__(self, backbone: AlphaNetBackbone, prefix: str | None = None) -> None:
        super().__init__()
        self.regress_config = backbone.regress_config
        self.prefix = f"{prefix}_" if prefix else ""

    def forward(self, data: AtomicData, emb: dict[str, Tensor]) -> dict[str, Any]:
        """``{name: {property: value}}``; raw values, in the unit of the tasks' normaliser."""
        with torch.enable_grad():
            atomic = emb["atomic_energies"]
            energy = atomic.new_zeros(data["natoms"].numel()).index_add(0, emb["batch"], atomic)
            out: dict[str, Any] = {f"{self.prefix}energy": {"energy": energy}}
            if self.regress_config.stress:
                forces, stress = compute_forces_and_stress(
                    energy, data["pos"], data["cell"], data["batch_full"], training=self.training
                )
                out[f"{self.prefix}stress"] = {"stress": stress}
            elif self.regress_config.forces:
                forces = compute_forces(energy, data["pos"], training=self.training)
            else:
                return out
        out[f"{self.prefix}forces"] = {"forces": forces}
        return out
