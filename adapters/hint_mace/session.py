"""One training run: MACE's loop calls in, the plugins answer."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import LBFGS
from torch.utils.data import DataLoader

from hint_mace.batch import graph_batch
from hint_mace.continuation import restart, save_beside
from hint_mace.data import Collate, LabelledDataset, labelled_loader
from hint_mace.examples import double_example, largest_example
from hint_mace.joint import JointForward
from hint_mace.kernels import exact_derivatives
from hint_mace.plugin_loss import PluginLoss
from hint_plugins.hookspecs import TrainingRun
from hint_plugins.training.protocol import Progress

if TYPE_CHECKING:
    from hint_mace.adapter import Adapter

log = logging.getLogger(__name__)


class Session:
    """Everything that lives from the first to the last step of ``mace.tools.train``.

    Parameters
    ----------
    adapter
        The plugins and MACE's parsed arguments.
    call
        Keyword arguments of ``mace.tools.train``; those that must change are changed in place.
    """

    def __init__(self, adapter: Adapter, call: dict[str, Any]) -> None:
        self.adapter, self.manager, self.args, self.call = adapter, adapter.manager, adapter.args, call
        self.model: nn.Module = call["model"]
        self.device: torch.device = call["device"]
        self.training, self.started, self.continued = False, False, False
        self.history: list[dict[str, Any]] = []
        self.epoch, self.step = call["start_epoch"], 0
        distributed = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if distributed else 0
        self.world_size = dist.get_world_size() if distributed else 1
        self.last_valid_loss: float | None = None
        self._loaders()
        restart(self)
        self.step = self.epoch * self.steps_per_epoch
        call["optimizer"].register_step_post_hook(self._count)
        call["loss_fn"] = PluginLoss(call["loss_fn"], self)
        if call.get("swa") is not None:
            call["swa"].loss_fn = PluginLoss(call["swa"].loss_fn, self)
        save_beside(self)

    def _loaders(self) -> None:
        loader: DataLoader = self.call["train_loader"]
        self.dataset = LabelledDataset(cast(Sequence, loader.dataset))
        self.flags, train = self.dataset.survey(progress=self.rank == 0)
        valid = [LabelledDataset(cast(Sequence, v.dataset)).survey(False) for v in self.call["valid_loaders"].values()]
        #: what was trained on, compared when a run is continued
        self.data = {
            "training data": f"{len(self.flags)} structures, {sum(self.flags)} labelled, digest {train}",
            "validation data": ", ".join(f"{len(f)} structures, {sum(f)} labelled, digest {d}" for f, d in valid),
            "structures per step": str((loader.batch_size or 0) * self.world_size),
        }
        self.collate = Collate(self.manager, epoch=0)
        sampler = self.manager.hook.batch_sampler(
            labelled=self.flags,
            batch_size=loader.batch_size,
            world_size=self.world_size,
            rank=self.rank,
            seed=self.args.seed,
        )
        settings: dict[str, Any] = {"batch_sampler": sampler}
        if sampler is None:
            settings = {"batch_size": loader.batch_size, "sampler": loader.sampler, "drop_last": loader.drop_last}
        self.sampler = sampler
        self.train_loader = labelled_loader(loader, self.collate, **settings)
        self.call["train_loader"] = self.train_loader
        self.lbfgs = isinstance(self.call["optimizer"], LBFGS)
        self.steps_per_epoch = 1 if self.lbfgs else len(self.train_loader)

    def _count(self, *_: Any) -> None:
        self.step += 1

    @property
    def progress(self) -> Progress:
        """Where training stands."""
        return Progress(
            self.epoch,
            self.step,
            self.steps_per_epoch,
            self.call["max_num_epochs"],
            self.rank,
            self.world_size,
        )

    @contextlib.contextmanager
    def epoch_under_way(self, epoch: int) -> Iterator[None]:
        """Within, MACE's loop makes the training steps of ``epoch``."""
        self._start_epoch(epoch)
        self.training = True
        try:
            with JointForward(self.model, self.manager, lambda: self.progress):
                yield
        finally:
            self.training = False

    def _start_epoch(self, epoch: int) -> None:
        """Choose the order and the probes of ``epoch``."""
        self.epoch, self.started = epoch, True
        self.step = epoch * self.steps_per_epoch
        self.collate.epoch = epoch
        if self.sampler is not None:
            self.sampler.set_epoch(epoch)

    def loss_terms(self, batch: Any, predictions: dict[str, Tensor], loss: Tensor) -> Tensor | float:
        """Sum of the plugins' terms for a training batch; 0 outside training."""
        if not self.training:
            return 0.0
        view = graph_batch(self.model, batch, predictions)
        answers = self.manager.hook.loss_terms(
            model=self.model, batch=view, predictions={**predictions, "loss": loss.detach()}, progress=self.progress
        )
        terms = [value for answer in answers for value in (answer or {}).values()]
        total: Tensor | float = sum(terms) if terms else 0.0
        if self.lbfgs and view.labelled is not None:
            # MACE weights every batch by its share of the structures; the plugins' mean wants the share of the labels.
            labelled_share = view.labelled.num_graphs / max(1, sum(self.flags))
            total = total * (labelled_share * len(self.flags) / batch.num_graphs)
        return total

    @property
    def when(self) -> str:
        """Where training stands, in the words of MACE's log."""
        return f"Epoch {self.epoch}" if self.started else "Initial"

    def run(self) -> TrainingRun:
        """What the plugins may see of this run."""
        labelled = any(self.flags)
        return TrainingRun(
            model=self.model,
            num_labelled=sum(self.flags),
            num_structures=len(self.flags),
            labelled_example=(lambda: largest_example(self)) if labelled else None,
            double_example=(lambda most: double_example(self, most)) if labelled else None,
            exact_derivatives=exact_derivatives(self.args),
            directory=self.args.results_dir,
            name=self.args.name,
            progress=self.progress,
            history=self.history,
        )
