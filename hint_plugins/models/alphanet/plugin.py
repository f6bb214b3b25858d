"""The plugin ``alphanet``: AlphaNet as a model that hosts can train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field

from hint_plugins.config import ConfigError
from hint_plugins.hookspecs import Options, hookimpl
from hint_plugins.models.alphanet import AlphaNet, AlphaNetConfig
from hint_plugins.models.energy_model import EnergyModel
from hint_plugins.models.registry import ModelSettings, Pretrained


class AlphaNetOptions(BaseModel):
    """Options of AlphaNet in a host's command line."""

    alphanet_config: str | None = Field(
        None, description="YAML file with AlphaNet options (hidden_channels, num_layers, ...)."
    )
    alphanet_checkpoint: str | None = Field(
        None,
        description="File whose weights training starts from, of AlphaNet.save or a .model of an earlier training "
        "(unpickled: only from sources you trust); its options replace alphanet_config.",
    )


class AlphaNetPlugin:
    """Adds ``--model AlphaNet`` and its options."""

    def __init__(self) -> None:
        self.options = AlphaNetOptions()

    @hookimpl
    def add_options(self, options: Options) -> None:
        options.add("alphanet", AlphaNetOptions)

    @hookimpl
    def configure(self, values: Mapping[str, Any]) -> None:
        self.options = AlphaNetOptions(**{k: v for k, v in values.items() if k in AlphaNetOptions.model_fields})

    @hookimpl
    def register_models(self) -> dict[str, Callable]:
        return {"AlphaNet": lambda settings: make_alphanet(settings, self.options)}


def make_alphanet(settings: ModelSettings, options: AlphaNetOptions) -> EnergyModel | Pretrained:
    """AlphaNet for a host: sizes from the YAML file, cutoff, elements and neighbours from the host.

    Raises
    ------
    ConfigError
        If the file does not exist, an option is unknown, or a checkpoint does not fit the data.
    """
    import yaml

    if options.alphanet_checkpoint is not None:
        return _read_weights(Path(options.alphanet_checkpoint), settings)
    values: dict[str, Any] = {}
    if options.alphanet_config is not None:
        path = Path(options.alphanet_config)
        if not path.exists():
            raise ConfigError(f"--alphanet_config {path}: no such file")
        values = yaml.safe_load(path.read_text()) or {}
    given = {"cutoff": settings.cutoff, "elements": settings.elements, "avg_neighbours": settings.avg_num_neighbors}
    if values.get("variant", "smooth") != "smooth":
        given = {"cutoff": settings.cutoff}
    try:
        return AlphaNet(AlphaNetConfig.from_dict({**given, **values, "cutoff": settings.cutoff}))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"AlphaNet: {error}") from None


def _read_weights(path: Path, settings: ModelSettings) -> Pretrained:
    """AlphaNet, in the default dtype, from its own file or from the whole model that a trainer stored."""
    if not path.is_file():
        raise ConfigError(f"--alphanet_checkpoint {path}: no such file")
    try:
        model = AlphaNet.load(path)
        found = Pretrained(model, total=bool(model.shift.any()))
    except Exception as own:  # torch raises many kinds for a file of another make
        try:
            whole = torch.load(path, map_location="cpu", weights_only=False)
        except Exception as error:
            raise ConfigError(
                f"--alphanet_checkpoint {path} cannot be read, neither as a .model file ({error}) nor as a file of "
                f"AlphaNet.save ({own})"
            ) from None
        if not isinstance(getattr(whole, "inner", None), AlphaNet):
            raise ConfigError(
                f"--alphanet_checkpoint {path} holds a {type(whole).__name__}, no AlphaNet; take a file of "
                "AlphaNet.save or the .model file of a training with --model AlphaNet"
            ) from None
        if len(whole.scale.unique()) > 1 or len(whole.shift.unique()) > 1:
            raise ConfigError(f"--alphanet_checkpoint {path}: its heads differ in scale or shift") from None
        model = whole.inner
        found = Pretrained(model, float(whole.scale[0]), float(whole.shift[0]))
    if model.cutoff != settings.cutoff:
        raise ConfigError(f"{path} has a cutoff of {model.cutoff:g} A: use --r_max {model.cutoff:g}")
    missing = [z for z in settings.elements if not bool(model.known[z])]
    if missing:
        raise ConfigError(f"{path} does not know the elements {missing}")
    model.to(torch.get_default_dtype()).requires_grad_(True).train()
    return found
