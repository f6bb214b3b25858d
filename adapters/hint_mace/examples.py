"""Labelled structures of a run for measurements and the self-test before it starts."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from hint_mace.batch import on_device
from hint_mace.data import Collate, stored_labels
from hint_plugins.training.protocol import LabelledGraphs

if TYPE_CHECKING:
    from hint_mace.session import Session


def largest_example(session: Session) -> LabelledGraphs:
    """The labelled structures of the batch of the coming epoch that holds most of their atoms."""
    batches: list[list[int]] = []
    if session.sampler is not None:
        session.sampler.set_epoch(session.epoch)
        batches = [[index for index in batch if session.flags[index]] for batch in session.sampler]
    largest = max(batches, key=lambda batch: sum(session.dataset.sizes[index] for index in batch), default=[])
    return _batch(session, largest or _labelled(session, session.call["train_loader"].batch_size or 1))


def _labelled(session: Session, most: int) -> list[int]:
    return [index for index, flag in enumerate(session.flags) if flag][:most]


def _batch(
    session: Session, indices: list[int], model: nn.Module | None = None, dtype: torch.dtype | None = None
) -> LabelledGraphs:
    items = []
    for index in indices:
        data = session.dataset[index][1]
        if dtype is not None:
            data = copy.copy(data)
            data.apply(lambda x: x.to(dtype) if torch.is_tensor(x) and x.is_floating_point() else x)
            assert stored_labels(data)
        items.append((index, data))
    batch = Collate(session.manager, epoch=0).labelled(items)
    return on_device(session.model if model is None else model, batch, session.device)


def double_example(session: Session, most: int) -> tuple[nn.Module, LabelledGraphs]:
    """A float64 copy of the model, and at most ``most`` labelled structures in float64."""
    model = copy.deepcopy(session.model).double()
    return model, _batch(session, _labelled(session, most), model, torch.float64)
