"""One training run: MACE's loop calls in, the plugins answer."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
from collections.abc import Iterator, Sequence, Sized
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from mace.tools import CheckpointHandler, CheckpointState
from torch import Tensor, nn
from torch.optim import LBFGS
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from hint_mace.batch import graph_batch, labelled_graphs
from hint_mace.checkpoint import write_checkpoint
from hint_mace.data import Collate, LabelledDataset, labelled_loader, stored_labels
from hint_mace.joint import JointForward
from hint_mace.kernels import exact_derivatives
from hint_mace.packed import LabelledBatch
from hint_plugins.hookspecs import TrainingRun
from hint_plugins.objective.metrics import NotFiniteError
from hint_plugins.training.protocol import LabelledGraphs, Progress

if TYPE_CHECKING:
    from hint_mace.adapter import Adapter

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

    def _restart(self) -> None:
        """Continue with the epoch after the checkpoint's, its average and its plugin state."""
        path, content = getattr(self.call["checkpoint_handler"].io, "hint_loaded", (None, None))
        if content is None:
            if path is not None:
                log.warning(
                    "%s was written without plugins: its epoch is trained again, and moving average, history and "
                    "plugin state start anew",
                    path,
                )
            return
        self.adapter.accept_changes(content.get("data", {}), self.data)
        self.continued = True
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
        """Let ``handler`` write checkpoints whole or not at all, each with a file beside it."""

        def save(state: CheckpointState, epochs: int, keep_last: bool = False) -> None:
            checkpoint = handler.builder.create_checkpoint(state)
            write_checkpoint(handler.io, checkpoint, self._state(), epochs, keep_last)

        self.adapter.patches.put(handler, "save", save)

    def _state(self) -> dict[str, Any]:
        """What stands beside a checkpoint: numbers, text and tensors."""
        ema = self.call.get("ema")
        state: dict[str, Any] = {}
        for part in self.manager.hook.checkpoint_state():
            state.update(part or {})
        return {
            "epoch": self.epoch,
            "settings": self.adapter.settings,
            "data": self.data,
            "ema": None if ema is None else ema.state_dict(),
            "plugins": state,
            "history": self.history,
            "valid_loss": self.last_valid_loss,
        }

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

    def validate(self, loader: DataLoader, valid_loss: float, metrics: dict[str, Any]) -> float:
        """Add the plugins' numbers to MACE's ``metrics``; give the validation loss with their share.

        Raises
        ------
        NotFiniteError
            If MACE's loss or a number of the plugins is not finite: MACE would take such a model for its best.
        """
        if not math.isfinite(valid_loss):
            raise NotFiniteError(
                f"{self.when}: the validation loss is {valid_loss}, so the model no longer gives finite energies and "
                "forces; training stops, and earlier checkpoints are kept. Lower the learning rate (--lr) or the "
                "weight of the Hessian loss, or look for wrong labels (hint check)"
            )
        extra = self.errors(loader)
        share = extra.pop("loss", 0.0)
        # MACE's validation loss is a sum over batches divided by the number of structures, both of all processes.
        sampler = cast(Sized, loader.sampler)
        valid_loss = float(valid_loss + share * len(loader) / max(1, len(sampler)))
        metrics.update(extra)
        self.last_valid_loss = valid_loss
        if self.rank == 0 and extra:
            self._report(next((k for k, v in self.call["valid_loaders"].items() if v is loader), "valid"), extra)
        return valid_loss

    @property
    def when(self) -> str:
        """Where training stands, in the words of MACE's log."""
        return f"Epoch {self.epoch}" if self.started else "Initial"

    def errors(self, loader: DataLoader) -> dict[str, float]:
        """The plugins' numbers on the structures of a loader."""
        extra: dict[str, float] = {}
        states = [p.requires_grad for p in self.model.parameters()]
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        try:
            for answer in self.manager.hook.validation_metrics(
                model=self.model, loader=self._validation_graphs(loader), progress=self.progress
            ):
                extra.update({name: float(value) for name, value in (answer or {}).items()})
        except NotFiniteError as error:
            raise NotFiniteError(f"{self.when}: {error}") from None
        finally:
            for parameter, state in zip(self.model.parameters(), states, strict=True):
                parameter.requires_grad_(state)
        return extra

    def _report(self, head: str, extra: dict[str, float]) -> None:
        """Numbers of one validation: to the log, the history and, if asked for, Weights & Biases."""
        numbers = ", ".join(f"{name}={value:.4g}" for name, value in extra.items())
        log.info("%s: head: %s, %s", self.when, head, numbers)
        if self.started or not self.continued:  # the history knows the model that a continued run begins with
            self.history.append({"epoch": self.progress.epochs, "head": head, **extra})
        if getattr(self.args, "wandb", False):
            import wandb

            wandb.log({head: extra}, commit=False)

    def _validation_graphs(self, loader: DataLoader) -> Iterator[LabelledGraphs]:
        collate = Collate(self.manager, epoch=None)
        # the order of the file, of which the first structures are measured whole; processes keep their shares
        sampler = loader.sampler if isinstance(loader.sampler, DistributedSampler) else None
        shadow = labelled_loader(loader, collate.labelled, batch_size=loader.batch_size, sampler=sampler)
        for batch in shadow:
            if batch is not None:
                yield self._graphs(self.model, batch)

    def _graphs(self, model: nn.Module, batch: LabelledBatch | None) -> LabelledGraphs:
        """A batch of labelled structures, on the device."""
        assert batch is not None
        graphs = labelled_graphs(model, batch.to(self.device))
        assert graphs is not None
        return graphs

    def run(self) -> TrainingRun:
        """What the plugins may see of this run."""
        labelled = any(self.flags)
        return TrainingRun(
            model=self.model,
            num_labelled=sum(self.flags),
            num_structures=len(self.flags),
            labelled_example=self._largest_example if labelled else None,
            double_example=self._double_example if labelled else None,
            exact_derivatives=exact_derivatives(self.args),
            directory=self.args.results_dir,
            name=self.args.name,
            progress=self.progress,
            history=self.history,
        )

    def _largest_example(self) -> LabelledGraphs:
        """The labelled structures of the batch of the coming epoch that holds most of their atoms."""
        batches: list[list[int]] = []
        if self.sampler is not None:
            self.sampler.set_epoch(self.epoch)
            batches = [[index for index in batch if self.flags[index]] for batch in self.sampler]
        largest = max(batches, key=lambda batch: sum(self.dataset.sizes[index] for index in batch), default=[])
        return self._batch(largest or self._labelled(self.call["train_loader"].batch_size or 1))

    def _labelled(self, most: int) -> list[int]:
        return [index for index, flag in enumerate(self.flags) if flag][:most]

    def _batch(
        self, indices: list[int], model: nn.Module | None = None, dtype: torch.dtype | None = None
    ) -> LabelledGraphs:
        items = []
        for index in indices:
            data = self.dataset[index][1]
            if dtype is not None:
                data = copy.copy(data)
                data.apply(lambda x: x.to(dtype) if torch.is_tensor(x) and x.is_floating_point() else x)
                assert stored_labels(data)
            items.append((index, data))
        return self._graphs(self.model if model is None else model, Collate(self.manager, epoch=0).labelled(items))

    def _double_example(self, most: int) -> tuple[nn.Module, LabelledGraphs]:
        model = copy.deepcopy(self.model).double()
        return model, self._batch(self._labelled(most), model, torch.float64)
