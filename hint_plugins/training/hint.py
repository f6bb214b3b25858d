"""The plugin named ``hint``: the hooks answered with the parts of this package."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ase import Atoms
from torch import Tensor, nn

from hint_plugins.config import ConfigError, HintConfig, make_config
from hint_plugins.curvature.engines import EXACT, Engine, get_engine, reverse
from hint_plugins.curvature.layer_norm import restore_layer_norms
from hint_plugins.curvature.probes import sees_structure, structure_rng
from hint_plugins.hookspecs import Options, TrainingRun, hookimpl
from hint_plugins.labels.checks import check_label
from hint_plugins.labels.hessian_label import HessianLabel, LabelError
from hint_plugins.models.registry import AlphaNetOptions, make_alphanet
from hint_plugins.objective.curriculum import Curriculum
from hint_plugins.objective.loss import global_mean, structure_losses
from hint_plugins.objective.products import hessian_products, wanted_positions
from hint_plugins.objective.validation import HessianValidation
from hint_plugins.structures.frozen import free_components
from hint_plugins.training.numerics import Numerics, prepare_determinism
from hint_plugins.training.preparation import require_right_derivatives, settled_engine
from hint_plugins.training.protocol import GraphBatch, LabelledGraphs, Progress
from hint_plugins.training.ranks import alone, together
from hint_plugins.training.sampler import HeterogeneousBatchSampler

log = logging.getLogger(__name__)

#: Default key of a label in a structure file.
KEY = HintConfig.model_fields["hessian_key"].default
#: Name of a label's arrays while they ride through the host.
LABEL = "hessian"
#: Seed and counter of the validation probes: fixed for every run and epoch.
VALIDATION_SEED, VALIDATION_EPOCH = 20_260_325, 2**20


def label_keys(config: HintConfig) -> tuple[str, ...]:
    """Where a label is looked for: under the chosen key; the default one is called ``hessian`` in databases."""
    return (KEY, "hessian") if config.hessian_key == KEY else (config.hessian_key,)


class HintPlugin:
    """Hessian-informed training (arXiv:2603.25373)."""

    def __init__(self, config: HintConfig | None = None, seed: int = 0) -> None:
        self.config = config or HintConfig()
        self.seed = seed
        self.engine: Engine | None = None
        self.engine_name = self.config.hessian_engine
        self.alphanet = AlphaNetOptions()
        self.scale: float | None = None
        self.ramp_end: float | None = None  #: of the first part of a run that was continued
        self._repeat: TrainingRun | None = None  #: the self-test is repeated once, after some steps
        self._numerics = Numerics()
        self._device = ""  #: kind of device that the engine was chosen on
        self._wanted: Tensor | None = None  #: positions asked of the host for the step that is under way
        self.dropped: set[str] = set()

    @hookimpl
    def add_options(self, options: Options) -> None:
        options.add("hint", HintConfig)
        options.add("hint: model AlphaNet", AlphaNetOptions)

    @hookimpl
    def register_models(self) -> dict[str, Callable]:
        return {"AlphaNet": lambda settings: make_alphanet(settings, self.alphanet)}

    @hookimpl
    def configure(self, values: Mapping[str, Any]) -> None:
        known = {name: value for name, value in values.items() if name in HintConfig.model_fields}
        config = make_config(HintConfig, known)
        assert isinstance(config, HintConfig)
        self.config = config
        alphanet = {name: value for name, value in values.items() if name in AlphaNetOptions.model_fields}
        self.alphanet = AlphaNetOptions(**alphanet)
        self.engine_name = config.hessian_engine
        if config.hessian_reproducible:
            prepare_determinism()
        self.seed = int(values.get("seed", self.seed))

    @hookimpl
    def read_labels(self, atoms: Atoms, forces: np.ndarray | None) -> dict[str, np.ndarray] | None:
        label = self._judged(atoms, forces, lambda: self._find_label(atoms))
        if label is None:
            return None
        stored: dict[str, np.ndarray] = {f"{LABEL}_pbc": np.array(atoms.pbc, dtype=np.int8)}
        label.to_info(stored, LABEL)
        free = free_components(atoms)
        if not free.all():
            stored[f"{LABEL}_free"] = free.astype(np.int8)
        if sees_structure(self.config.hessian_probes):
            stored |= {LABEL + name: values for name, values in _structure_arrays(atoms).items()}
        return stored

    @hookimpl
    def check_labels(self, labels: Mapping[str, np.ndarray], atoms: Atoms, forces: np.ndarray | None) -> bool | None:
        if not any(name.startswith(LABEL) for name in labels):
            return None
        return self._judged(atoms, forces, lambda: HessianLabel.from_info(labels, len(atoms), LABEL)) is not None

    def _judged(
        self, atoms: Atoms, forces: np.ndarray | None, find: Callable[[], HessianLabel | None]
    ) -> HessianLabel | None:
        """The label that ``find`` gives, once it has passed its checks; None without one, or when it is dropped."""
        source = atoms.info.get("hint_source", atoms.get_chemical_formula())
        try:
            label = find()
            if label is None:
                return None
            free_components(atoms)  # refuses constraints that leave no block of free atoms
            reasons = check_label(label, atoms, forces).reasons
        except LabelError as error:
            reasons = [str(error)]
        if not reasons:
            return label
        message = f"bad Hessian label: {source}: {'; '.join(reasons)}"
        if self.config.hessian_on_bad_label == "error":
            raise LabelError(f"{message}. Mend the label, or train without the bad ones: hessian_on_bad_label drop")
        if source not in self.dropped:
            log.warning("%s (label dropped)", message)
        self.dropped.add(source)
        return None

    def _find_label(self, atoms: Atoms) -> HessianLabel | None:
        """The label under the chosen key."""
        labels = (HessianLabel.from_info(atoms.info, len(atoms), key) for key in label_keys(self.config))
        return next((label for label in labels if label is not None), None)

    @hookimpl
    def draw_labels(
        self, labels: Mapping[str, np.ndarray], num_atoms: int, epoch: int | None, index: int
    ) -> dict[str, np.ndarray] | None:
        label = HessianLabel.from_info(labels, num_atoms, LABEL)
        if label is None:
            return None
        if epoch is None:
            rng = structure_rng(VALIDATION_SEED, VALIDATION_EPOCH, index)
        else:
            rng = structure_rng(self.seed, epoch, index)
        config = self.config
        law = config.hessian_probes
        structure = _structure(labels) if sees_structure(law) else None
        try:
            z, hz = label.pairs(config.hessian_num_probes, law, rng, structure)
        except ValueError as error:
            raise ConfigError(f"hessian_probes {law}: {error}") from None
        if f"{LABEL}_free" in labels:
            z, hz = _of_free_atoms(label, z, hz, np.asarray(labels[f"{LABEL}_free"]).reshape(-1).astype(bool))
        return {f"{LABEL}_probes": _per_atom(z), f"{LABEL}_products": _per_atom(hz)}

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
            self._wanted = wanted_positions(self._product_engine, labelled, _probes(labelled))
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
            self._balance(loss.detach(), predictions["loss"])
        return {"hessian": (weight * (self.scale or 1.0)) * loss}

    @property
    def _product_engine(self) -> Engine:
        return self.engine or get_engine("reverse")

    def structure_losses(self, graphs: LabelledGraphs) -> Tensor:
        """Hessian loss (G,) of labelled structures whose labels have been drawn."""
        config = self.config
        self._numerics.before_products(graphs)
        probes = _probes(graphs)
        reference = graphs.labels[f"{LABEL}_products"].transpose(0, 1)
        products = hessian_products(self._product_engine, graphs, probes, self._wanted)
        losses = structure_losses(
            products,
            reference,
            graphs.batch,
            graphs.num_atoms,
            config.hessian_loss,
            config.hessian_huber_delta,
        )
        if config.hessian_symmetry_weight:
            exact = self.engine_name in EXACT
            rows = products if exact else hessian_products(reverse, graphs, probes)
            columns = hessian_products(get_engine("finite_difference"), graphs, probes) if exact else products
            penalty = structure_losses(rows, columns, graphs.batch, graphs.num_atoms)
            losses = losses + config.hessian_symmetry_weight * penalty
        return losses

    def _balance(self, hessian: Tensor, host: Tensor) -> None:
        pair = torch.stack([hessian.float(), host.detach().float()])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(pair)
        first, other = pair.tolist()
        if first > 0.0 and other > 0.0:
            assert self.config.hessian_balance is not None
            self.scale = self.config.hessian_balance * other / first
            log.info(
                "Hessian loss scaled by %.4g to %.3g of the host's first loss",
                self.scale,
                self.config.hessian_balance,
            )

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
        if ramp.end is None and ramp.start > 0 and ramp.start >= ramp.default_end(run.progress):
            raise ConfigError(
                f"the ramp of the Hessian weight begins at {ramp.start:g} {ramp.unit}, but without hessian_ramp_end "
                f"it ends at half of the run, {ramp.default_end(run.progress):g}: give an end, or begin earlier"
            )
        self._require_weight(run)
        if self.ramp_end is None:
            self.ramp_end = ramp.default_end(run.progress)
        if self.dropped:
            log.warning("%d Hessian labels failed their checks and were dropped", len(self.dropped))
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
        self.engine_name = settled_engine(self.engine_name, config, run, _probes)
        exact = self.engine_name in EXACT
        self._repeat = run if exact and config.hessian_selftest else None
        self.engine = get_engine(self.engine_name, config.hessian_fd_step)
        self._numerics.start(run.model, differences=not exact or config.hessian_symmetry_weight > 0)
        log.info("HVP engine: %s, %d %s probes", self.engine_name, config.hessian_num_probes, config.hessian_probes)

    def _require_weight(self, run: TrainingRun) -> None:
        """A Hessian loss that was asked for must act within the run."""
        course = self.curriculum.course(run.progress)
        if run.progress.max_epochs <= 0 or not self.config.hessian_weight:
            return
        if not any(course):
            raise ConfigError(
                f"the ramp of the Hessian weight lies after the end of the run ({run.progress.max_epochs:g} epochs of "
                f"{run.progress.steps_per_epoch} steps), so no step would see a Hessian: begin the ramp "
                "(hessian_ramp_start, hessian_ramp_end) earlier, or train longer"
            )
        if course[-1] < 0.99 * self.config.hessian_weight and self.config.hessian_weight_start < course[-1]:
            log.warning(
                "the Hessian weight reaches %.3g of %.3g within the run: its ramp ends later",
                course[-1],
                self.config.hessian_weight,
            )

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


def _of_free_atoms(
    label: HessianLabel, z: np.ndarray, hz: np.ndarray, free: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Probes and products (m, 3N) where only the components ``free`` (3N,) move and are compared.

    A whole Hessian is probed along free components; columns and projections keep the directions they were made
    with. Products of frozen components become NaN, which the loss leaves out.
    """
    if label.kind == "full":
        z = np.where(free, z, 0.0)
        hz = z @ label.products.T
    return z, np.where(free, hz, np.nan)


def _structure_arrays(atoms: Atoms) -> dict[str, np.ndarray]:
    """What a probe law may ask about a structure, as arrays that ride with its label."""
    return {
        "_numbers": atoms.numbers,
        "_positions": atoms.positions,
        "_cell": atoms.cell.array,
        "_masses": atoms.get_masses(),
    }


def _structure(labels: Mapping[str, np.ndarray]) -> Atoms | None:
    """The structure of :func:`_structure_arrays`; None where the label was read for another law."""
    if f"{LABEL}_numbers" not in labels:
        return None
    names = ("numbers", "positions", "cell", "masses", "pbc")
    return Atoms(**{name: np.asarray(labels[f"{LABEL}_{name}"]) for name in names})


def _per_atom(values: np.ndarray) -> np.ndarray:
    """(m, 3N) as (N, m, 3), which batches concatenate along atoms."""
    return np.ascontiguousarray(values.reshape(len(values), -1, 3).transpose(1, 0, 2))


def _probes(graphs: LabelledGraphs) -> Tensor:
    """Drawn probes of labelled structures, (m, n, 3)."""
    return graphs.labels[f"{LABEL}_probes"].transpose(0, 1).contiguous()
