"""Batches of the host as the plugins see them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from fairchem.core.common.distutils import get_device_for_local_rank
from fairchem.core.datasets.atomic_data import AtomicData
from fairchem.core.units.mlip_unit.mlip_unit import MLIPTrainEvalUnit, compute_loss
from torch import Tensor, nn

from hint_fairchem.dataset import TARGET
from hint_fairchem.graphs import labelled_graphs
from hint_fairchem.loading import example_batch, largest_labelled_batch
from hint_plugins.training.protocol import LabelledGraphs


class Predictions(dict):
    """The host's outputs; ``loss``, when a plugin asks for it, is the host's own loss of this batch."""

    def __init__(self, outputs: dict, unit: MLIPTrainEvalUnit, data: AtomicData) -> None:
        super().__init__(outputs)
        self._unit, self._data = unit, data

    def __missing__(self, key: str) -> Tensor:
        if key != "loss":
            raise KeyError(key)
        tasks = [task for task in self._unit.tasks if task.name != TARGET]
        return torch.stack([loss.float() for loss in compute_loss(tasks, self, self._data).values()]).sum()


class Examples:
    """Labelled structures of the training loader, for measurements and the self-test.

    Parameters
    ----------
    model
        That will be trained.
    outputs
        Its forces (:func:`hint_fairchem.checks.force_outputs`).
    loader
        Of the training.
    """

    def __init__(self, model: nn.Module, outputs: Any, loader: Any) -> None:
        self.model, self.outputs, self.loader = model, outputs, loader
        self._spare: nn.Module | None = None

    def largest(self) -> LabelledGraphs:
        """The labelled structures of the batch that holds most of their atoms."""
        return self._example(self.model, largest_labelled_batch(self.loader))

    def double(self, most: int) -> tuple[nn.Module, LabelledGraphs]:
        """A float64 copy of the model as it is now, and at most ``most`` labelled structures in float64."""
        if self._spare is None:  # before the first step: no hook and no forward pass have left anything in the model
            self._spare = deepcopy(self.model).cpu()
        model = deepcopy(self._spare).to(get_device_for_local_rank())
        model.load_state_dict(self.model.state_dict())
        return model.double(), self._example(model, example_batch(self.loader, most, torch.float64))

    def _example(self, model: nn.Module, data: AtomicData) -> LabelledGraphs:
        graphs = labelled_graphs(model, data, self.outputs)
        assert graphs is not None
        return graphs
