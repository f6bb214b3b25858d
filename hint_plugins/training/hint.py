"""The plugin named ``hint``: the hooks answered with the parts of this package."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from torch import Tensor, nn

from hint_plugins.config import ConfigError, HintConfig, make_config
from hint_plugins.curvature.engines import EXACT, Engine, get_engine
from hint_plugins.curvature.layer_norm import restore_layer_norms
from hint_plugins.hookspecs import Options, TrainingRun, hookimpl
from hint_plugins.objective.curriculum import Curriculum
from hint_plugins.objective.loss import global_mean
from hint_plugins.objective.products import wanted_positions
from hint_plugins.objective.validation import HessianValidation
from hint_plugins.training.hessian_term import balancing_scale, hessian_losses
from hint_plugins.training.label_arrays import LABEL, LabelReader, draw
from hint_plugins.training.numerics import Numerics, prepare_determinism
from hint_plugins.training.preparation import require_right_derivatives, settled_engine
from hint_plugins.training.protocol import GraphBatch, LabelledGraphs, Progress
from hint_plugins.training.ramp import require_acting_ramp
from hint_plugins.training.ranks import alone, together
from hint_plugins.training.sampler import HeterogeneousBatchSampler

log = logging.getLogger(__name__)


class HintPlugin:
    """Hessian-informed training (arXiv:2603.25373).

    Attributes
    ----------
    brings
        Plugins that are loaded with this one.
    """

    brings = ("alphanet",)

    def __init__(self, config: HintConfig | None = None, seed: int = 0) -> None:
        self.config = config or HintConfig()
        self.seed = seed
        self.engine: Engine | None = None
        self.engine_name = self.config.hessian_engine
        self.scale: float | None = None
        self.ramp_end: float | None = None  #: of the first part of a run that was continued
        self._repeat: TrainingRun | None = None  #: the self-test is repeated once, after some steps
        self._numerics = Numerics()
        self._device = ""  #: kind of device that the engine was chosen on
        self._wanted: Tensor | None = None  #: positions asked of the host for the step that is under way
        self.labels = LabelReader()

    @hookimpl
    def add_options(self, options: Options) -> None:
        options.add("hint", HintConfig)

    @hookimpl
    def configure(self, values: Mapping[str, Any]) -> None:
        known = {name: value for name, value in values.items() if name in HintConfig.model_fields}
        config = make_config(HintConfig, known)
        assert isinstance(config, HintConfig)
        self.config = config
        self.engine_name = config.hessian_engine
        if config.hessian_reproducible:
            prepare_determinism()
        self.seed = int(values.get("seed", self.seed))

    @hookimpl
    def read_labels(self, atoms: Atoms, forces: np.ndarray | None) -> dict[str, np.ndarray] | None:
        return self.labels.read(self.config, atoms, forces)

    @hookimpl
    def check_labels(self, labels: Mapping[str, np.ndarray], atoms: Atoms, forces: np.ndarray | None) -> bool | None:
        if not any(name.startswith(LABEL) for name in labels):
            return None
        return self.labels.passes(self.config, labels, atoms, forces)

    @hookimpl
    def draw_labels(
        self, labels: Mapping[str, np.ndarray], num_atoms: int, epoch: int | None, index: int
    ) -> dict[str, np.ndarray] | None:
        return draw(self.config, labels, num_atoms, epoch, index, self.seed)

    @hookimpl
    def batch_sampler(
        self,
        labelled: Sequence[bool],
        batch_size: int,
        world_size: int,
        rank: int,
        seed: int,
    ) -> HeterogeneousBatchSampler:
        config = self.config
        return HeterogeneousBatchSampler(
            labelled,
            batch_size,
            fraction=config.hessian_batch_fraction,
            every=config.hessian_every,
            recycle=config.hessian_recycle,
            world_size=world_size,
            rank=rank,
            seed=seed,
        )

    @property
    def curriculum(self) -> Curriculum:
        """Schedule of the weight; a continued run keeps the end of its ramp."""
        return self.config.curriculum_until(self.ramp_end)

    @property
    def _balancing(self) -> bool:
        return self.config.hessian_balance is not None and self.scale is None

    @hookimpl
    def positions_wanted(self, labelled: LabelledGraphs, progress: Progress) -> Tensor | None:
        self._wanted = None
        if self.curriculum.weight(progress) != 0.0 or self._balancing:
            self._numerics.before_products(labelled)
            self._wanted = wanted_positions(self._product_engine, labelled, labelled.probes)
        return self._wanted

    @hookimpl
    def loss_terms(
        self, model: nn.Module, batch: GraphBatch, predictions: Mapping[str, Tensor], progress: Progress
    ) -> dict[str, Tensor]:
        weight = self.curriculum.weight(progress)
        if weight == 0.0 and not self._balancing:
            return {}
        if batch.labelled is None:
            loss = global_mean(batch.positions.new_zeros(0))
        else:
            loss = global_mean(self.structure_losses(batch.labelled), batch.labelled.weights)
        if self._balancing and not (batch.labelled is None and alone()):  # otherwise there is nothing to balance yet
            self.scale = balancing_scale(loss.detach(), predictions["loss"], self.config.hessian_balance)
        return {"hessian": (weight * (self.scale or 1.0)) * loss}

    @property
    def _product_engine(self) -> Engine:
        return self.engine or get_engine("reverse")

    def structure_losses(self, graphs: LabelledGraphs) -> Tensor:
        """Hessian loss (G,) of labelled structures whose labels have been drawn."""
        self._numerics.before_products(graphs)
        exact = self.engine_name in EXACT
        return hessian_losses(graphs, self.config, self._product_engine, exact=exact, wanted=self._wanted)

    @hookimpl
    def validation_metrics(
        self, model: nn.Module, loader: Iterable[LabelledGraphs], progress: Progress
    ) -> dict[str, float]:
        config = self.config
        if self._repeat is not None and progress.step > 0:
            require_right_derivatives(self._repeat)
            self._repeat = None
        metrics = {"hessian_weight": self.curriculum.weight(progress)}
        if config.hessian_metrics == "none" and not config.hessian_valid_loss:
            return metrics
        validation = HessianValidation(
            self._product_engine,
            whole=config.hessian_metrics == "full",
            max_whole=config.hessian_metrics_max,
            loss=config.hessian_loss,
            huber_delta=config.hessian_huber_delta,
        )
        together(lambda: validation.update_all(loader))
        metrics.update(validation.compute())
        if config.hessian_valid_loss and "hessian_loss" in metrics:
            metrics["loss"] = config.hessian_weight * (self.scale or 1.0) * metrics["hessian_loss"]
        return metrics

    @hookimpl
    def training_started(self, run: TrainingRun) -> None:
        config = self.config
        ramp = self.curriculum
        require_acting_ramp(ramp, run.progress)
        if self.ramp_end is None:
            self.ramp_end = ramp.default_end(run.progress)
        if self.labels.dropped:
            log.warning("%d Hessian labels failed their checks and were dropped", len(self.labels.dropped))
        if not run.num_labelled:
            if config.hessian_weight or config.hessian_weight_start:
                raise ConfigError(
                    f"none of the {run.num_structures} training structures carries a Hessian label under "
                    f"{config.hessian_key!r}: name the right hessian_key, label some structures (hint label), "
                    "or train without Hessians (hessian_weight 0)"
                )
            return
        log.info("%d of %d training structures carry a Hessian label", run.num_labelled, run.num_structures)
        device = next(run.model.parameters()).device.type
        if config.hessian_engine == "auto" and self._device not in ("", device):
            log.info("HVP engine %s was chosen on %s; on %s it is chosen anew", self.engine_name, self._device, device)
            self.engine_name = "auto"
        self._device = device
        if config.hessian_reproducible:
            self._numerics.be_deterministic()
        self.engine_name = settled_engine(self.engine_name, config, run)
        exact = self.engine_name in EXACT
        self._repeat = run if exact and config.hessian_selftest else None
        self.engine = get_engine(self.engine_name, config.hessian_fd_step)
        self._numerics.start(run.model, differences=not exact or config.hessian_symmetry_weight > 0)
        log.info("HVP engine: %s, %d %s probes", self.engine_name, config.hessian_num_probes, config.hessian_probes)

    @hookimpl
    def training_finished(self, run: TrainingRun) -> None:
        self._repeat = None
        self._numerics.stop()
        restore_layer_norms(run.model)
        if run.progress.rank == 0 and run.history:
            from hint_plugins.training.plots import plot_history

            path = Path(run.directory) / f"{run.name}_hessian.png"
            plot_history(run.history, path)
            log.info("Hessian metrics against epoch: %s", path)

    @hookimpl
    def checkpoint_state(self) -> dict[str, Any]:
        state = {"engine": self.engine_name, "device": self._device, "scale": self.scale, "ramp_end": self.ramp_end}
        return {"hint": state}

    @hookimpl
    def restore_state(self, state: Mapping[str, Any]) -> None:
        mine = state.get("hint", {})
        self.scale, self.ramp_end = mine.get("scale"), mine.get("ramp_end")
        if self.engine_name == "auto" and mine.get("engine"):
            self.engine_name, self._device = mine["engine"], mine.get("device", "")


def create_plugin() -> HintPlugin:
    """A fresh plugin for one run."""
    return HintPlugin()
