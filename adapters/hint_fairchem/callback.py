"""The callback that joins HINT to a fairchem run: self-test, curriculum, loss, metrics."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairchem.core.common import distutils
from fairchem.core.datasets.atomic_data import AtomicData
from fairchem.core.units.mlip_unit.mlip_unit import MLIPTrainEvalUnit
from torch import Tensor, nn
from torchtnt.framework.callback import Callback
from torchtnt.framework.state import State

from hint_fairchem.checks import check_plugins, check_sampler, check_unit, exact_derivatives, force_outputs, inner_model
from hint_fairchem.dataset import TARGET, hessian_datasets, labelled_flags
from hint_fairchem.graphs import graph_batch, labelled_graphs
from hint_fairchem.loading import labelled_batches
from hint_fairchem.options import no_unknown, read_block
from hint_fairchem.references import ABSURD, energy_error, keep_numbers
from hint_fairchem.resume import HISTORY_FILE, STATE_FILE, kept_history, kept_state
from hint_fairchem.views import Examples, Predictions
from hint_fairchem.watched import WatchedDatasets
from hint_plugins.curvature.layer_norm import swap_layer_norms
from hint_plugins.hookspecs import TrainingRun
from hint_plugins.plugins import describe_plugins
from hint_plugins.runs.files import write_csv, write_json
from hint_plugins.training.protocol import Progress

log = logging.getLogger(__name__)


class HintCallback(Callback):
    """Add to ``runner.callbacks``: ``{_target_: hint_fairchem.callback.HintCallback, hint: ${hint}}``.

    The weight of the Hessian loss follows the unit's ``num_steps_completed``, which fairchem keeps in its
    checkpoints, so a resumed run continues the curriculum. The probes follow epoch and structure.

    Parameters
    ----------
    hint
        The ``hint:`` block.
    metrics_every_n_steps
        Compute the Hessian metrics at a validation only if so many steps have passed since the last ones (and
        at the end of the run). The host validates after every epoch, which is often when the data set is small.

    Raises
    ------
    ConfigError
        At construction for misspelt options; when training starts, for settings Hessians cannot be trained
        under.
    SelfTestError
        When the model's derivatives are wrong.
    """

    def __init__(self, hint: Mapping[str, Any] | None = None, metrics_every_n_steps: int = 1, **unknown: Any) -> None:
        no_unknown("HintCallback", unknown, ["hint", "metrics_every_n_steps"])
        self.metrics_every = metrics_every_n_steps
        self.hint = read_block(hint)
        self.progress = Progress()
        self.history: list[dict[str, Any]] = []
        self.checkpoints: Path | None = None
        self.last_loss: Tensor | None = None
        self._saved: dict[str, Any] = {}
        self._handles: list[Any] = []
        self._run: TrainingRun | None = None
        self.datasets = WatchedDatasets(self.hint)
        self._energies_seen = False
        log.info("HINT plugins: %s", ", ".join(describe_plugins(self.hint.manager)))

    def set_runner_callbacks(self, save: Any, load: Any, checkpoint_dir: str) -> None:
        """Taken from the runner: where checkpoints go."""
        self.checkpoints = Path(checkpoint_dir)

    # --- start and end -------------------------------------------------------------------------------------

    def on_train_start(self, state: State, unit: MLIPTrainEvalUnit) -> None:
        """Check the set-up, restore what an earlier run knew, let the plugins look at model and data."""
        assert state.train_state is not None
        loader = state.train_state.dataloader
        check_unit(unit)
        check_plugins(self.hint)
        for phase in (state.train_state, state.eval_state):
            if phase is not None:
                self.datasets.take(phase.dataloader.dataset)
        check_sampler(self.hint, loader.batch_sampler)
        names = sorted({name.rsplit(".", 1)[0] for name in loader.dataset.dataset_names})
        self.outputs = force_outputs(unit, names)
        self.unit, self.model = unit, inner_model(unit.model)
        flags = labelled_flags(loader.dataset)
        self.datasets.report_labels()
        self.datasets.report_dropped()
        self._take_progress(state, unit)
        if self.progress.rank == 0:
            self.datasets.judge_energies()
        self._restore(unit)
        self._keep_references(unit)
        examples = Examples(self.model, self.outputs, loader) if flags.any() else None
        self._run = TrainingRun(
            model=self.model,
            num_labelled=int(flags.sum()),
            num_structures=len(flags),
            labelled_example=examples.largest if examples else None,
            double_example=examples.double if examples else None,
            exact_derivatives=exact_derivatives(self.model),
            directory=str(getattr(unit.job_config.metadata, "results_dir", ".")),
            name=str(getattr(unit.job_config, "run_name", "run") or "run"),
            progress=self.progress,
            history=self.history,
        )
        self.hint.hook.training_started(run=self._run)
        averaged = inner_model(unit.eval_unit.model)
        swap_layer_norms(averaged)
        for model in {id(m): m for m in (self.model, averaged)}.values():
            self._handles.append(model.register_forward_hook(self._add_loss))
        for dataset in hessian_datasets(loader.dataset):
            dataset.set_epoch(unit.train_progress.num_epochs_completed)

    def _keep_references(self, unit: MLIPTrainEvalUnit) -> None:
        """Fitted element references go into the run's config, and with it into the checkpoints."""
        path = Path(str(unit.job_config.metadata.config_path))
        if self.progress.rank == 0 and path.is_file():
            keep_numbers(path)
        distutils.synchronize()

    def on_train_epoch_start(self, state: State, unit: MLIPTrainEvalUnit) -> None:
        """Fresh probes for the epoch."""
        assert state.train_state is not None
        for dataset in hessian_datasets(state.train_state.dataloader.dataset):
            dataset.set_epoch(unit.train_progress.num_epochs_completed)

    def on_train_end(self, state: State, unit: MLIPTrainEvalUnit) -> None:
        """Plots; the model is the host's again."""
        self.datasets.report_dropped()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self._run is not None:
            self.hint.hook.training_finished(run=self._run)

    # --- training step -------------------------------------------------------------------------------------

    def on_train_step_start(self, state: State, unit: MLIPTrainEvalUnit) -> None:
        """Where training stands, from the unit's own counters."""
        self._take_progress(state, unit)

    def on_train_step_end(self, state: State, unit: MLIPTrainEvalUnit) -> None:
        """Log the weighted Hessian loss as often as the unit logs its own."""
        self._keep_state()
        step = unit.train_progress.num_steps_completed - 1
        if self.last_loss is None or step % unit.print_every:
            return
        values = {"train/hessian_loss_weighted": float(distutils.all_reduce(self.last_loss.clone(), average=True))}
        log.info("step %d: %s", step, values)
        if unit.logger:
            unit.logger.log(values, step=step, commit=False)

    def _take_progress(self, state: State, unit: MLIPTrainEvalUnit) -> None:
        assert state.train_state is not None
        length = max(1, len(state.train_state.dataloader))
        done = unit.train_progress
        epochs = [state.train_state.max_epochs or np.inf, (state.train_state.max_steps or np.inf) / length]
        self.progress = Progress(
            epoch=done.num_epochs_completed,
            step=done.num_steps_completed,
            steps_per_epoch=length,
            max_epochs=min(epochs) if np.isfinite(min(epochs)) else 1,
            rank=distutils.get_rank(),
            world_size=distutils.get_world_size(),
        )

    def _add_loss(self, model: nn.Module, args: tuple, outputs: dict) -> dict:
        """Forward hook of the host's model: put the Hessian loss among its outputs."""
        if getattr(model, "hint_quiet", False):
            return outputs
        data: AtomicData = args[0]
        graphs = data.natoms.numel()
        shares = torch.zeros(graphs, dtype=data.pos.dtype, device=data.pos.device)
        if model.training:
            self._check_energies(outputs, data)
            answers = self.hint.hook.loss_terms(
                model=model,
                batch=graph_batch(model, data, self.outputs, outputs),
                predictions=Predictions(outputs, self.unit, data),
                progress=self.progress,
            )
            terms = [term for answer in answers for term in (answer or {}).values()]
            self.last_loss = shares.new_zeros(())
            if terms:
                total = torch.stack([term.to(shares.dtype) for term in terms]).sum()
                self.last_loss, shares = total.detach(), (total / graphs).expand(graphs)
        return {**outputs, TARGET: {TARGET: shares}}

    def _check_energies(self, outputs: dict, data: AtomicData) -> None:
        """Name total energies that were left as they are: the first step of a new run shows them."""
        if self._energies_seen or self.progress.step:
            return
        self._energies_seen = True
        error = energy_error(self.unit, outputs, data)
        if error > ABSURD:
            log.warning(
                "the first energy error is %.3g eV per atom, which is that of total energies: the energies of the "
                "elements are learned first, slowly, and spoil hessian_balance. Give the energy task "
                "element_references: {_target_: hint_fairchem.references.fitted, src: ${train_data}}",
                error,
            )

    # --- validation ----------------------------------------------------------------------------------------

    def on_eval_epoch_end(self, state: State, unit: MLIPTrainEvalUnit) -> None:
        """Hessian, eigenvalue and frequency errors of the averaged model on the validation set."""
        assert state.eval_state is not None
        self.datasets.report_dropped()
        step = unit.train_progress.num_steps_completed
        last = self.history[-1]["step"] if self.history else -self.metrics_every
        final = state.train_state is not None and step == state.train_state.max_steps
        if step == last or (step - last < self.metrics_every and not final):
            return
        loader = state.eval_state.dataloader
        model = inner_model(unit.eval_unit.model)
        batches = (
            labelled_graphs(model, data, self.outputs, scale=self.outputs.scale, stored=stored)
            for data, stored in labelled_batches(loader, self.progress.rank, self.progress.world_size)
        )
        several = len(self.hint.hook.validation_metrics.get_hookimpls()) > 1
        batches_left = list(batches) if several else batches
        with torch.enable_grad():  # the host evaluates under no_grad
            answers = self.hint.hook.validation_metrics(model=model, loader=batches_left, progress=self.progress)
        metrics = {name: float(value) for answer in answers for name, value in (answer or {}).items()}
        if "loss" in metrics:
            metrics["hessian_loss_weighted"] = metrics.pop("loss")
        log.info("Hessian metrics: %s", {f"val/{name}": round(value, 6) for name, value in metrics.items()})
        self.history.append({"epoch": round(step / self.progress.steps_per_epoch, 4), "step": step, **metrics})
        if self.progress.rank == 0 and self._run is not None:
            write_csv(Path(self._run.directory) / HISTORY_FILE, self.history)
            if unit.logger:
                unit.logger.log({f"val/{name}": value for name, value in metrics.items()}, commit=False)

    # --- state beside the checkpoints ----------------------------------------------------------------------

    def _keep_state(self) -> None:
        state: dict[str, Any] = {}
        for answer in self.hint.hook.checkpoint_state():
            state.update(answer or {})
        if state != self._saved and self.progress.rank == 0 and self.checkpoints is not None:
            write_json(self.checkpoints / STATE_FILE, state)
        self._saved = state

    def _restore(self, unit: MLIPTrainEvalUnit) -> None:
        if unit.lazy_state_location is None:
            return
        checkpoint = Path(unit.lazy_state_location)
        state = kept_state(checkpoint)
        if state is not None:
            self.hint.hook.restore_state(state=state)
        self.history[:] = kept_history(checkpoint, self.progress.step)
