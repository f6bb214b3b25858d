"""The plugins' numbers beside MACE's in every validation."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sized
from typing import TYPE_CHECKING, Any, cast

from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from hint_mace.batch import on_device
from hint_mace.data import Collate, labelled_loader
from hint_plugins.objective.metrics import NotFiniteError
from hint_plugins.training.protocol import LabelledGraphs

if TYPE_CHECKING:
    from hint_mace.session import Session

log = logging.getLogger(__name__)


def validate(session: Session, loader: DataLoader, valid_loss: float, metrics: dict[str, Any]) -> float:
    """Add the plugins' numbers to MACE's ``metrics``; give the validation loss with their share.

    Raises
    ------
    NotFiniteError
        If MACE's loss or a number of the plugins is not finite: MACE would take such a model for its best.
    """
    if not math.isfinite(valid_loss):
        raise NotFiniteError(
            f"{session.when}: the validation loss is {valid_loss}, so the model no longer gives finite energies and "
            "forces; training stops, and earlier checkpoints are kept. Lower the learning rate (--lr) or the "
            "weight of the Hessian loss, or look for wrong labels (hint check)"
        )
    extra = plugin_errors(session, loader)
    share = extra.pop("loss", 0.0)
    # MACE's validation loss is a sum over batches divided by the number of structures, both of all processes.
    sampler = cast(Sized, loader.sampler)
    valid_loss = float(valid_loss + share * len(loader) / max(1, len(sampler)))
    metrics.update(extra)
    session.last_valid_loss = valid_loss
    if session.rank == 0 and extra:
        _report(session, next((k for k, v in session.call["valid_loaders"].items() if v is loader), "valid"), extra)
    return valid_loss


def plugin_errors(session: Session, loader: DataLoader) -> dict[str, float]:
    """The plugins' numbers on the structures of a loader."""
    extra: dict[str, float] = {}
    states = [p.requires_grad for p in session.model.parameters()]
    for parameter in session.model.parameters():
        parameter.requires_grad_(False)
    try:
        for answer in session.manager.hook.validation_metrics(
            model=session.model, loader=_labelled_graphs(session, loader), progress=session.progress
        ):
            extra.update({name: float(value) for name, value in (answer or {}).items()})
    except NotFiniteError as error:
        raise NotFiniteError(f"{session.when}: {error}") from None
    finally:
        for parameter, state in zip(session.model.parameters(), states, strict=True):
            parameter.requires_grad_(state)
    return extra


def _report(session: Session, head: str, extra: dict[str, float]) -> None:
    """Numbers of one validation: to the log, the history and, if asked for, Weights & Biases."""
    numbers = ", ".join(f"{name}={value:.4g}" for name, value in extra.items())
    log.info("%s: head: %s, %s", session.when, head, numbers)
    if session.started or not session.continued:  # the history knows the model that a continued run begins with
        session.history.append({"epoch": session.progress.epochs, "head": head, **extra})
    if getattr(session.args, "wandb", False):
        import wandb

        wandb.log({head: extra}, commit=False)


def _labelled_graphs(session: Session, loader: DataLoader) -> Iterator[LabelledGraphs]:
    collate = Collate(session.manager, epoch=None)
    # the order of the file, of which the first structures are measured whole; processes keep their shares
    sampler = loader.sampler if isinstance(loader.sampler, DistributedSampler) else None
    shadow = labelled_loader(loader, collate.labelled, batch_size=loader.batch_size, sampler=sampler)
    for batch in shadow:
        if batch is not None:
            yield on_device(session.model, batch, session.device)
