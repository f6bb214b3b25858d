"""Copies of labelled structures that ride in MACE's own forward pass.

Finite differences of forces need the forces of displaced copies. One pass over the batch and its copies costs less
than two passes, and on a GPU no more than the one over the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pluggy
import torch
from torch import Tensor, nn

from hint_mace.batch import LABELLED, NOT_INPUTS, labelled_graphs, replicate_inputs
from hint_mace.packed import WHOLE, LabelledBatch
from hint_plugins.training.protocol import LabelledGraphs, Progress


class JointForward:
    """While open, the model takes the copies that the plugins want along with each training batch.

    MACE gets the predictions for its batch, and the labelled structures with the forces of their copies under
    :data:`~hint_mace.batch.LABELLED`.

    Parameters
    ----------
    model
        The model that is trained (not wrapped for distribution).
    manager
        The plugins, asked with the hook ``positions_wanted``.
    progress
        Gives where training stands.
    """

    def __init__(self, model: nn.Module, manager: pluggy.PluginManager, progress: Callable[[], Progress]) -> None:
        self.model, self.manager, self.progress = model, manager, progress
        self.batch: LabelledBatch | None = None  #: the one on its way through the model
        self.labelled: LabelledGraphs | None = None
        self.positions: Tensor | None = None

    def __enter__(self) -> JointForward:
        self.handles = [
            self.model.register_forward_pre_hook(self._before, with_kwargs=True),
            self.model.register_forward_hook(self._after),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _before(self, _: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
        self.batch = args[0].get(WHOLE) if args else None
        if self.batch is None:
            return None  # the plugins' own call
        self.labelled = labelled_graphs(self.model, self.batch)
        self.positions = None
        if self.labelled is not None:
            self.positions = self.manager.hook.positions_wanted(labelled=self.labelled, progress=self.progress())
        if self.labelled is None or self.positions is None:
            return None
        own = self.labelled.num_graphs
        return (_joint(self.batch, args[0], self.positions, own), *args[1:]), kwargs

    def _after(self, _: nn.Module, __: tuple, output: dict[str, Any]) -> dict[str, Any] | None:
        if self.batch is None:
            return None
        batch, labelled, positions = self.batch, self.labelled, self.positions
        self.batch = self.labelled = self.positions = None
        if labelled is None or positions is None:
            return {**output, LABELLED: labelled}
        num_atoms, copies = len(batch.positions), positions.shape[:2]
        labelled.wanted = positions, output["forces"][num_atoms:].view(*positions.shape)
        atoms = (num_atoms + copies.numel(), num_atoms)
        structures = (batch.num_graphs + len(labelled.sizes) * len(positions), batch.num_graphs)
        own = {name: _first(value, atoms, structures) for name, value in output.items()}
        return {**own, LABELLED: labelled}


def _joint(batch: LabelledBatch, data: dict[str, Any], positions: Tensor, labelled: int) -> dict[str, Tensor]:
    """Inputs of the batch followed by those of copies of its ``labelled`` structures at ``positions`` (r, n, 3)."""
    num_atoms = len(batch.positions)
    copies = replicate_inputs(batch.inputs(NOT_INPUTS), len(positions), positions.shape[1], labelled)
    copies |= {
        "positions": positions.reshape(-1, 3),
        "edge_index": copies["edge_index"] + num_atoms,
        "batch": copies["batch"] + batch.num_graphs,
        "ptr": copies["ptr"][1:] + num_atoms,
    }
    batch.positions.requires_grad_(True)
    return {name: torch.cat([data[name], copy], dim=1 if name == "edge_index" else 0) for name, copy in copies.items()}


def _first(value: Any, *counts: tuple[int, int]) -> Any:
    """What a prediction says of the batch itself: of ``(all, own)`` atoms or structures, the own ones."""
    if isinstance(value, Tensor) and value.dim():
        for whole, own in counts:
            if len(value) == whole:
                return value[:own]
    return value
