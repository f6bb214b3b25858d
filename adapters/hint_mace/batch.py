"""MACE's batches as the core sees them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from hint_mace.packed import LabelledBatch
from hint_plugins.curvature.engines import ForceView
from hint_plugins.training.protocol import GraphBatch, LabelledGraphs

#: Entry of MACE's predictions under which the labelled structures are found once the model has run.
LABELLED = "hint_labelled"
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


def forces_function(
    model: nn.Module, inputs: Callable[[], dict[str, Tensor]], num_atoms: int, num_graphs: int
) -> Callable[[Tensor], Tensor]:
    """``forces_at`` of :class:`ForceView` for a batch with the given inputs.

    Parameters
    ----------
    model
        A MACE model (not wrapped for distribution).
    inputs
        Gives its input dictionary.
    num_atoms, num_graphs
        Atoms and structures in the batch.

    Returns
    -------
    callable
        Maps (r, n, 3) positions to (r, n, 3) forces.
    """

    def forces_at(positions: Tensor) -> Tensor:
        data = replicate_inputs(inputs(), len(positions), num_atoms, num_graphs)
        data["positions"] = positions.reshape(-1, 3)
        with torch.enable_grad():
            output = model(data, training=True, compute_force=True, compute_virials=False, compute_stress=False)
        return output["forces"].view(len(positions), num_atoms, 3)

    return forces_at


def labelled_graphs(model: Any, batch: LabelledBatch) -> LabelledGraphs | None:
    """The labelled structures of a batch that lies on the model's device; None when there is none.

    Their inputs are cut from the batch when forces are first asked for, and not at all where the host's serve.
    """
    drawn = batch.drawn
    if drawn is None:
        return None
    index = drawn.tensors("index")
    atoms = index["atoms"] if len(drawn.sizes) < batch.num_graphs else None
    positions, weights = batch.positions.detach(), batch.weight
    if atoms is not None:
        positions, weights = positions.index_select(0, atoms), weights.index_select(0, index["structures"])
    inputs = cache(lambda: batch.inputs(NOT_INPUTS))
    return LabelledGraphs(
        view=ForceView(positions, forces_function(model, inputs, len(positions), len(drawn.sizes))),
        sizes=drawn.sizes,
        batch=index["batch"],
        num_atoms=index["num_atoms"],
        weights=weights,
        numbers=model.atomic_numbers[index["elements"]],
        labels=drawn.tensors("labels"),
        stored=drawn.stored,
        atoms=atoms,
    )


def graph_batch(model: nn.Module, batch: LabelledBatch, predictions: dict[str, Any]) -> GraphBatch:
    """A training batch and its predictions.

    The force graph that MACE has made already serves the Hessian too where that is cheaper.
    """
    forces = predictions.get("forces")
    labelled = predictions[LABELLED] if LABELLED in predictions else labelled_graphs(model, batch)
    if labelled is not None and forces is not None and forces.requires_grad:
        labelled.host = batch.positions, forces
        if labelled.atoms is None:
            labelled.view.graph = labelled.host
    return GraphBatch(batch.positions, forces, batch.batch, batch.num_graphs, labelled)


def on_device(model: nn.Module, batch: LabelledBatch | None, device: torch.device) -> LabelledGraphs:
    """A batch of labelled structures, on ``device``."""
    assert batch is not None
    graphs = labelled_graphs(model, batch.to(device))
    assert graphs is not None
    return graphs
