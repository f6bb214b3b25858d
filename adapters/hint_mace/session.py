"""One training run: MACE's loop calls in, the plugins answer."""

from __future__ import annotations

import argparse
import copy
import logging
from collections.abc import Iterator, Sequence, Sized
from typing import Any, cast

import pluggy
import torch
import torch.distributed as dist
from mace.tools import CheckpointHandler
from torch import Tensor, nn
from torch.optim import LBFGS
from torch.utils.data import DataLoader

from hint_mace.batch import graph_batch, labelled_graphs
from hint_mace.checkpoint import load_side_file, save_side_file
from hint_mace.data import SUB_BATCH, Collate, LabelledDataset, labelled_loader, stored_labels
from hint_plugins.batching.view import LabelledGraphs, Progress
from hint_plugins.hookspecs import TrainingRun

log = logging.getLogger(__name__)


class PluginLoss(nn.Module):
    """MACE's loss function plus the plugins' terms; in validation MACE's alone."""

    def __init__(self, base: nn.Module, session: Session) -> None:
        super().__init__()
        self.base = base
        self.session = [session]  # in a list, so that it is no submodule

    def forward(self, ref: Any, pred: dict[str, Tensor], ddp: bool | None = None) -> Tensor:
        """Loss of a batch ``ref`` with predictions ``pred``."""
        loss = self.base(ref=ref, pred=pred) if ddp is None else self.base(ref=ref, pred=pred, ddp=ddp)
        return loss + self.session[0].loss_terms(ref, pred, loss)

    def extra_repr(self) -> str:
        return "with plugin terms"


class Session:
    """Everything that lives from the first to the last step of ``mace.tools.train``.

    Parameters
    ----------
    manager
        The plugins.
    args
        MACE's parsed arguments.
    call
        Keyword arguments of ``mace.tools.train``; those that must change are changed in place.
    """

    def __init__(self, manager: pluggy.PluginManager, args: argparse.Namespace, call: dict[str, Any]) -> None:
        self.manager, self.args, self.call = manager, args, call
        self.model: nn.Module = call["model"]
        self.device: torch.device = call["device"]
        self.training = False
        self.history: list[dict[str, Any]] = []
        self.epoch, self.step = call["start_epoch"], 0
        distributed = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if distributed else 0
        self.world_size = dist.get_world_size() if distributed else 1
        self.last_valid_loss: float | None = None
        self._loaders()
        self._restart()
        self.step = self.epoch * self.steps_per_epoch
        call["optimizer"].register_step_post_hook(self._count)
        call["loss_fn"] = PluginLoss(call["loss_fn"], self)
        if call.get("swa") is not None:
            call["swa"].loss_fn = PluginLoss(call["swa"].loss_fn, self)
        self._save_beside(call["checkpoint_handler"])

    def _loaders(self) -> None:
        loader: DataLoader = self.call["train_loader"]
        self.dataset = LabelledDataset(cast(Sequence, loader.dataset))
        self.flags = self.dataset.labelled(progress=self.rank == 0)
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

    def _restart(self) -> None:
        """Continue with the epoch after the checkpoint's, its average and its plugin state."""
        content = load_side_file(self.call["checkpoint_handler"])
        if content is None:
            return
        self.epoch = content["epoch"] + 1
        self.call["start_epoch"] = self.epoch
        self.history = content["history"]
        self.manager.hook.restore_state(state=content["plugins"])
        ema = self.call.get("ema")
        if ema is not None and content["ema"] is not None:
            ema.load_state_dict(content["ema"])
            if ema.collected_params is not None:
                ema.restore()
        swa = self.call.get("swa")
        if content["valid_loss"] is not None and (swa is None or self.epoch < swa.start):
            self.call["lr_scheduler"].step(metrics=content["valid_loss"])
        log.info("restarted after epoch %d", content["epoch"])

    def _save_beside(self, handler: CheckpointHandler) -> None:
        save = handler.save

        def save_both(*args: Any, **kwargs: Any) -> None:
            save(*args, **kwargs)
            ema = self.call.get("ema")
            state: dict[str, Any] = {}
            for part in self.manager.hook.checkpoint_state():
                state.update(part or {})
            content = {
                "epoch": self.epoch,
                "ema": None if ema is None else ema.state_dict(),
                "plugins": state,
                "history": self.history,
                "valid_loss": self.last_valid_loss,
            }
            save_side_file(handler, content)

        setattr(handler, "save", save_both)  # noqa: B010

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

    def start_epoch(self, epoch: int) -> None:
        """Choose the order and the probes of ``epoch``."""
        self.epoch = epoch
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

    def validate(self, loader: DataLoader, valid_loss: float, metrics: dict[str, Any]) -> float:
        """Add the plugins' numbers to MACE's ``metrics``; give the validation loss with their share."""
        graphs = self._validation_graphs(loader)
        extra: dict[str, float] = {}
        states = [p.requires_grad for p in self.model.parameters()]
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        try:
            for answer in self.manager.hook.validation_metrics(model=self.model, loader=graphs, progress=self.progress):
                extra.update(answer or {})
        finally:
            for parameter, state in zip(self.model.parameters(), states, strict=True):
                parameter.requires_grad_(state)
        share = extra.pop("loss", 0.0)
        # MACE's validation loss is a sum over batches divided by the number of structures, both of all processes.
        sampler = cast(Sized, loader.sampler)
        valid_loss = valid_loss + share * len(loader) / max(1, len(sampler))
        metrics.update(extra)
        self.last_valid_loss = valid_loss
        if self.rank == 0 and extra:
            self._report(next((k for k, v in self.call["valid_loaders"].items() if v is loader), "valid"), extra)
        return valid_loss

    def _report(self, head: str, extra: dict[str, float]) -> None:
        """Numbers of one validation: to the log, the history and, if asked for, Weights & Biases."""
        numbers = ", ".join(f"{name}={value:.4g}" for name, value in extra.items())
        log.info("Epochs done %.4g: head: %s, %s", self.progress.epochs, head, numbers)
        self.history.append({"epoch": self.progress.epochs, "head": head, **extra})
        if getattr(self.args, "wandb", False):
            import wandb

            wandb.log({head: extra}, commit=False)

    def _validation_graphs(self, loader: DataLoader) -> Iterator[LabelledGraphs]:
        collate = Collate(self.manager, epoch=None)
        shadow = labelled_loader(loader, collate, batch_size=loader.batch_size, sampler=loader.sampler)
        for batch in shadow:
            packed = batch.__dict__[SUB_BATCH]
            if packed is not None:
                yield labelled_graphs(self.model, packed, self.device)

    def run(self) -> TrainingRun:
        """What the plugins may see of this run."""
        cueq = any(getattr(self.args, name, False) for name in ("enable_cueq", "only_cueq", "enable_oeq"))
        labelled = any(self.flags)
        return TrainingRun(
            model=self.model,
            num_labelled=sum(self.flags),
            num_structures=len(self.flags),
            labelled_example=self._example if labelled else None,
            double_example=self._double_example if labelled else None,
            exact_derivatives=not cueq,
            directory=self.args.results_dir,
            name=self.args.name,
            progress=self.progress,
            history=self.history,
        )

    def _example(self, most: int, model: nn.Module | None = None, dtype: torch.dtype | None = None) -> LabelledGraphs:
        chosen = [index for index, flag in enumerate(self.flags) if flag][:most]
        items = []
        for index in chosen:
            data = self.dataset[index][1]
            if dtype is not None:
                data = copy.copy(data)
                data.apply(lambda x: x.to(dtype) if torch.is_tensor(x) and x.is_floating_point() else x)
                assert stored_labels(data)
            items.append((index, data))
        packed = Collate(self.manager, epoch=0).labelled(items)
        assert packed is not None
        return labelled_graphs(self.model if model is None else model, packed, self.device)

    def _double_example(self, most: int) -> tuple[nn.Module, LabelledGraphs]:
        model = copy.deepcopy(self.model).double()
        return model, self._example(most, model, torch.float64)
