"""The hooks between a trainer and its plugins: one sentence each.

An adapter calls them; the plugins named in the options answer. All are optional.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:  # hooks are known without the libraries of training
    import torch
    from ase import Atoms
    from numpy import ndarray
    from pydantic import BaseModel
    from torch import Tensor

    from hint_plugins.training.protocol import GraphBatch, LabelledGraphs, Progress

PROJECT = "hint"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass
class Options:
    """Option groups of the plugins; an adapter turns every field into a flag or key of its host."""

    groups: dict[str, type[BaseModel]] = field(default_factory=dict)

    def add(self, plugin: str, model: type[BaseModel]) -> None:
        """Add the options of ``plugin``: a pydantic model whose fields carry defaults and descriptions."""
        self.groups[plugin] = model


@dataclass
class TrainingRun:
    """What a plugin may see when training starts or ends.

    Attributes
    ----------
    model
        The model that will be trained (not wrapped for distribution).
    num_labelled, num_structures
        Training structures with labels, and all of them.
    labelled_example
        Makes a batch of labelled structures, those of the batch of the coming epoch that holds most of their atoms;
        None when there is no labelled structure.
    double_example
        Makes the first labelled structures of the training set (at most the given number) as a batch in float64 for a
        copy of the model: gives ``(copy, batch)``.
    exact_derivatives
        Whether the host's kernels have third derivatives. False for cuEquivariance and for OpenEquivariance before
        0.6.7; None where the self-test must tell.
    directory, name
        Where results go, and the name of the run.
    progress
        Where training starts or stands.
    history
        Validation metrics so far: one dictionary a validation.
    """

    model: torch.nn.Module
    num_labelled: int
    num_structures: int
    labelled_example: Callable[[], LabelledGraphs] | None
    double_example: Callable[[int], tuple[torch.nn.Module, LabelledGraphs]] | None
    exact_derivatives: bool | None
    directory: str
    name: str
    progress: Progress
    history: list[dict[str, Any]] = field(default_factory=list)


class HookSpecs:
    """Specifications of all hooks."""

    @hookspec
    def add_options(self, options: Options) -> None:
        """Add option groups, before the host parses its command line or config."""

    @hookspec
    def configure(self, values: Mapping[str, Any]) -> None:
        """Take the parsed options of this plugin's groups and refuse, with ``ConfigError``, what does not fit."""

    @hookspec
    def read_labels(self, atoms: Atoms, forces: ndarray | None) -> dict[str, ndarray] | None:
        """Give the label arrays of a structure as it is loaded (``forces``: those the host trains on), or None."""

    @hookspec
    def check_labels(self, labels: Mapping[str, ndarray], atoms: Atoms, forces: ndarray | None) -> bool | None:
        """Judge label arrays that come back from a prepared file: raise ``LabelError``, or give False to drop them."""

    @hookspec
    def draw_labels(
        self, labels: Mapping[str, ndarray], num_atoms: int, epoch: int | None, index: int
    ) -> dict[str, ndarray] | None:
        """Turn the stored labels of structure ``index`` into per-atom arrays for this epoch (None: validation)."""

    @hookspec(firstresult=True)
    def batch_sampler(
        self,
        labelled: Sequence[bool],
        batch_size: int,
        world_size: int,
        rank: int,
        seed: int,
    ) -> Any | None:
        """Make the batch sampler of the train loader (``set_epoch``, ``__iter__``, ``__len__``), or None."""

    @hookspec(firstresult=True)
    def positions_wanted(self, labelled: LabelledGraphs, progress: Progress) -> Tensor | None:
        """Give positions (r, n, 3), detached, whose forces ``loss_terms`` will need (``labelled.wanted``), or None."""

    @hookspec
    def loss_terms(
        self, model: torch.nn.Module, batch: GraphBatch, predictions: Mapping[str, Tensor], progress: Progress
    ) -> dict[str, Tensor] | None:
        """Give named loss terms of a training step, already weighted; called on every rank in every step."""

    @hookspec
    def validation_metrics(
        self, model: torch.nn.Module, loader: Iterable[LabelledGraphs], progress: Progress
    ) -> dict[str, float] | None:
        """Give named numbers for the host's log; the one named ``loss`` is added to its validation loss."""

    @hookspec
    def training_started(self, run: TrainingRun) -> None:
        """Look at model and data before the first step; raise to refuse."""

    @hookspec
    def training_finished(self, run: TrainingRun) -> None:
        """Clean up and report after the last step."""

    @hookspec
    def checkpoint_state(self) -> dict[str, Any] | None:
        """Give what a restarted run must know (numbers and strings), by plugin name."""

    @hookspec
    def restore_state(self, state: Mapping[str, Any]) -> None:
        """Take back what ``checkpoint_state`` gave."""

    @hookspec
    def register_probe_laws(self) -> dict[str, Callable]:
        """Add probe laws: ``(count, dim, rng) -> (count, dim)``, or with ``structure`` as a fourth parameter."""

    @hookspec
    def register_engines(self) -> dict[str, Callable]:
        """Add HVP engines: ``(view, probes, create_graph) -> products``."""

    @hookspec
    def register_schedules(self) -> dict[str, Callable]:
        """Add curriculum shapes: ``fraction passed -> fraction of the way``."""

    @hookspec
    def register_models(self) -> dict[str, Callable]:
        """Add models that hosts can train: ``(ModelSettings) -> EnergyModel``, or ``Pretrained`` with its own scale."""

    @hookspec
    def register_label_makers(self) -> dict[str, Callable | str]:
        """Add engines of ``hint label``: classes, or their ``module:name``."""

    @hookspec
    def register_readers(self) -> dict[str, Callable | str]:
        """Add dataset readers of ``hint convert``: functions, or their ``module:name``."""

    @hookspec
    def register_selectors(self) -> dict[str, Callable | str]:
        """Add ways of ``hint select`` to choose structures: functions, or their ``module:name``."""
