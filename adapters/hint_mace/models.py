"""Any :class:`~hint_plugins.models.EnergyModel` as a model of MACE's trainer."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mace.modules.utils import get_outputs, get_symmetric_displacement
from torch import Tensor, nn

from hint_mace.leaving import exit_with
from hint_plugins.config import ConfigError
from hint_plugins.models import Graph
from hint_plugins.models.registry import ModelSettings, Pretrained

if TYPE_CHECKING:
    from hint_mace.adapter import Adapter

log = logging.getLogger(__name__)


class HostedModel(nn.Module):
    """An energy model with the interface of MACE's own models.

    The energy is that of the isolated atoms, plus ``scale`` times the model's, plus ``shift`` for every atom,
    as in MACE's ScaleShiftMACE. Scale, shift and isolated-atom energies come from MACE's options and data, or with the
    weights (:class:`~hint_plugins.models.registry.Pretrained`).

    Parameters
    ----------
    inner
        The energy model.
    atomic_numbers
        (Z,) elements in the order of MACE's one-hot attributes.
    atomic_energies
        (heads, Z) energies of isolated atoms, eV.
    scale, shift
        (heads,) factor and offset of the atomic energies, eV.
    heads
        Names of the heads; they share all weights.
    """

    atomic_numbers: Tensor
    r_max: Tensor
    atomic_energies: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        inner: Any,
        atomic_numbers: list[int],
        atomic_energies: np.ndarray,
        scale: list[float],
        shift: list[float],
        heads: list[str],
    ) -> None:
        super().__init__()
        self.inner = inner
        self.heads = list(heads)
        dtype = torch.get_default_dtype()
        self.register_buffer("atomic_numbers", torch.tensor(atomic_numbers, dtype=torch.long))
        self.register_buffer("r_max", torch.tensor(float(inner.cutoff), dtype=dtype))
        energies = torch.as_tensor(np.atleast_2d(atomic_energies), dtype=dtype)
        self.register_buffer("atomic_energies", energies.expand(len(heads), -1).clone())
        self.register_buffer("scale", torch.tensor(scale, dtype=dtype).expand(len(heads)).clone())
        self.register_buffer("shift", torch.tensor(shift, dtype=dtype).expand(len(heads)).clone())

    def forward(
        self,
        data: dict[str, Tensor],
        training: bool = False,
        compute_force: bool = True,
        compute_virials: bool = False,
        compute_stress: bool = False,
        compute_displacement: bool = False,
        compute_hessian: bool = False,
        **_: Any,
    ) -> dict[str, Tensor | None]:
        """Energies (B,), forces (N, 3) and, on demand, virials and stresses (B, 3, 3) of a MACE batch."""
        data["positions"].requires_grad_(True)
        positions, shifts, displacement = data["positions"], data["shifts"], None
        num_graphs = data["ptr"].numel() - 1
        moved = positions
        if compute_virials or compute_stress or compute_displacement:
            moved, shifts, displacement = get_symmetric_displacement(
                positions=positions,
                unit_shifts=data["unit_shifts"],
                cell=data["cell"],
                edge_index=data["edge_index"],
                num_graphs=num_graphs,
                batch=data["batch"],
            )
        element = data["node_attrs"].argmax(dim=1)
        # MACE's edge vectors point from the source to the centre, ours from the centre to the source.
        graph = Graph(moved, self.atomic_numbers[element], data["edge_index"], -shifts, None, data["batch"], num_graphs)
        head = data["head"] if "head" in data else data["ptr"].new_zeros(num_graphs)
        own = self.atomic_energies[head[data["batch"]], element]
        isolated = own.new_zeros(num_graphs).index_add(0, data["batch"], own)
        interaction = self.scale[head] * self.inner(graph) + self.shift[head] * data["ptr"].diff()
        energy = isolated + interaction
        forces, virials, stress, hessian, _edge_forces = get_outputs(
            energy=energy,
            positions=positions,
            cell=data["cell"],
            displacement=displacement,
            training=training,
            compute_force=compute_force,
            compute_virials=compute_virials,
            compute_stress=compute_stress,
            compute_hessian=compute_hessian,
        )
        return {
            "energy": energy,
            "interaction_energy": interaction,
            "forces": forces,
            "virials": virials,
            "stress": stress,
            "displacement": displacement,
            "hessian": hessian,
        }


def wrap_models(adapter: Adapter) -> None:
    """Let ``--model`` name a registered model, build it, and give its parameters to the optimiser."""
    registered = registered_models(adapter)
    if not registered:
        return

    def choices(original: Callable) -> Callable:
        def build_default_arg_parser() -> argparse.ArgumentParser:
            parser = original()
            action = next(a for a in parser._actions if a.dest == "model")
            action.choices = [*(action.choices or []), *(n for n in registered if n not in (action.choices or []))]
            return parser

        return build_default_arg_parser

    adapter.patches.function("build_default_arg_parser", choices, "mace.tools.arg_parser", "mace.tools")

    def building(original: Callable) -> Callable:
        def _build_model(args: Any, model_config: dict, model_config_foundation: Any, heads: Any) -> nn.Module:
            if args.model not in registered:
                return original(args, model_config, model_config_foundation, heads)
            try:
                return build(registered[args.model], args, model_config, heads)
            except ConfigError as error:
                exit_with(error)

        return _build_model

    adapter.patches.function("_build_model", building, "mace.tools.model_script_utils")

    def grouping(original: Callable) -> Callable:
        def get_params_options(args: Any, model: nn.Module) -> dict[str, Any]:
            return parameter_groups(args, model) if isinstance(model, HostedModel) else original(args, model)

        return get_params_options

    adapter.patches.function("get_params_options", grouping, "mace.tools.scripts_utils")


def registered_models(adapter: Adapter) -> dict[str, Callable]:
    """Model factories of the loaded plugins by name."""
    models: dict[str, Callable] = {}
    for answer in adapter.manager.hook.register_models():
        models.update(answer or {})
    return models


def build(factory: Callable, args: argparse.Namespace, model_config: dict[str, Any], heads: list[str]) -> HostedModel:
    """Make a registered model from MACE's options.

    Raises
    ------
    ConfigError
        For options that only MACE's own models have.
    """
    for option in ("foundation_model", "freeze", "lora", "enable_cueq", "only_cueq", "enable_oeq"):
        if getattr(args, option, None):
            raise ConfigError(f"--{option} is for MACE's own models; {args.model} has no such thing")
    numbers = [int(z) for z in model_config["atomic_numbers"]]
    settings = ModelSettings(
        cutoff=float(args.r_max), elements=tuple(numbers), avg_num_neighbors=float(args.avg_num_neighbors)
    )
    inner: Any = factory(settings)
    scale, shift = _per_head(args.std, 1.0), _per_head(args.mean, 0.0)
    atomic_energies = model_config["atomic_energies"]
    if isinstance(inner, Pretrained):
        scale, shift = [inner.scale], [inner.shift]
        log.info("Scale %g and shift %g eV come with the weights", scale[0], shift[0])
        if inner.total:
            log.info("The weights predict total energies: those of the isolated atoms (--E0s) are not added")
            atomic_energies = np.zeros_like(atomic_energies)
        inner = inner.model
    log.info("Building %s: %d parameters", args.model, sum(p.numel() for p in inner.parameters()))
    return HostedModel(inner, numbers, atomic_energies, scale, shift, heads)


def _per_head(value: Any, default: float) -> list[float]:
    return np.atleast_1d(np.asarray(default if value is None else value, dtype=float)).tolist()


def parameter_groups(args: argparse.Namespace, model: HostedModel) -> dict[str, Any]:
    """Optimiser settings: weight decay on matrices, none on vectors, embeddings and scalars."""
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in trainable if p.dim() >= 2 and "embed" not in name]
    others = [p for name, p in trainable if p.dim() < 2 or "embed" in name]
    groups = [
        {"name": "matrices", "params": matrices, "weight_decay": args.weight_decay},
        {"name": "others", "params": others, "weight_decay": 0.0},
    ]
    return {
        "params": [group for group in groups if group["params"]],
        "lr": args.lr,
        "amsgrad": args.amsgrad,
        "betas": (args.beta, 0.999),
    }
