"""MACE's batches as the core sees them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hint_mace.data import SUB_BATCH
from hint_plugins.batching.view import GraphBatch, LabelledGraphs
from hint_plugins.curvature.engines import ForceView

#: Fields of a batch that MACE's models do not read: reference values and their weights.
NOT_INPUTS = frozenset(
    [
        "energy",
        "forces",
        "stress",
        "virials",
        "dipole",
        "charges",
        "polarizability",
        "weight",
        "energy_weight",
        "forces_weight",
        "stress_weight",
        "virials_weight",
        "dipole_weight",
        "charges_weight",
        "polarizability_weight",
    ]
)


def replicate_inputs(inputs: dict[str, Tensor], copies: int, num_atoms: int, num_graphs: int) -> dict[str, Tensor]:
    """Inputs of ``copies`` disconnected copies of a batch."""
    if copies == 1:
        return dict(inputs)
    out = {}
    for name, tensor in inputs.items():
        copy = torch.arange(copies, device=tensor.device)
        if name == "edge_index":
            out[name] = (tensor[:, None, :] + num_atoms * copy[None, :, None]).reshape(2, -1)
        elif name == "batch":
            out[name] = (tensor[None] + num_graphs * copy[:, None]).reshape(-1)
        elif name == "ptr":
            ends = (tensor[None, 1:] + num_atoms * copy[:, None]).reshape(-1)
            out[name] = torch.cat([tensor[:1], ends])
        else:
            out[name] = tensor.repeat(copies, *[1] * (tensor.dim() - 1))
    return out


def forces_function(model: nn.Module, inputs: dict[str, Tensor], num_graphs: int) -> Any:
    """``forces_at`` of :class:`ForceView` for a batch with the given inputs.

    Parameters
    ----------
    model
        A MACE model (not wrapped for distribution).
    inputs
        Its input dictionary.
    num_graphs
        Structures in the batch.

    Returns
    -------
    callable
        Maps (r, n, 3) positions to (r, n, 3) forces.
    """
    num_atoms = len(inputs["positions"])

    def forces_at(positions: Tensor) -> Tensor:
        data = replicate_inputs(inputs, len(positions), num_atoms, num_graphs)
        data["positions"] = positions.reshape(-1, 3)
        with torch.enable_grad():
            output = model(data, training=True, compute_force=True, compute_virials=False, compute_stress=False)
        return output["forces"].view(len(positions), num_atoms, 3)

    return forces_at


def labelled_graphs(model: Any, packed: dict[str, Any], device: torch.device) -> LabelledGraphs:
    """The labelled structures that :class:`hint_mace.data.Collate` packed, on ``device``."""
    batch = packed["batch"].to(device)
    inputs = {name: value for name, value in batch.to_dict().items() if name not in NOT_INPUTS}
    sizes = packed["sizes"]
    node_attrs = inputs["node_attrs"]
    return LabelledGraphs(
        view=ForceView(inputs["positions"].detach(), forces_function(model, inputs, len(sizes))),
        sizes=sizes,
        batch=inputs["batch"],
        num_atoms=inputs["ptr"].diff().to(node_attrs.dtype),
        weights=batch.weight,
        numbers=model.atomic_numbers[node_attrs.argmax(dim=1)],
        labels={name: tensor.to(device, non_blocking=True) for name, tensor in packed["labels"].items()},
        stored=packed["stored"],
    )


def graph_batch(model: nn.Module, batch: Any, predictions: dict[str, Tensor]) -> GraphBatch:
    """A training batch and its predictions.

    When every structure is labelled, the force graph that MACE has made already serves the Hessian too.
    """
    packed = batch.__dict__.get(SUB_BATCH)
    forces = predictions.get("forces")
    labelled = None
    if packed is not None:
        labelled = labelled_graphs(model, packed, batch.positions.device)
        if labelled.num_graphs == batch.num_graphs and forces is not None and forces.requires_grad:
            labelled.view.graph = batch.positions, forces
    return GraphBatch(batch.positions, forces, batch.batch, batch.num_graphs, labelled)
