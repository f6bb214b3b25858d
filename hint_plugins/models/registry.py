"""Models that hosts can train, by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from hint_plugins.config import ConfigError
from hint_plugins.models.energy_model import EnergyModel


@dataclass(frozen=True)
class ModelSettings:
    """What a host knows when it builds a model.

    Attributes
    ----------
    cutoff
        Radius of the host's neighbour lists, A.
    elements
        Atomic numbers of the data.
    avg_num_neighbors
        Mean number of neighbours within the cutoff.
    """

    cutoff: float
    elements: tuple[int, ...]
    avg_num_neighbors: float


class AlphaNetOptions(BaseModel):
    """Options of AlphaNet in a host's command line."""

    alphanet_config: str | None = Field(
        None, description="YAML file with AlphaNet options (hidden_channels, num_layers, ...)."
    )
    alphanet_checkpoint: str | None = Field(
        None, description="AlphaNet file whose weights training starts from; its options replace alphanet_config."
    )


def make_alphanet(settings: ModelSettings, options: AlphaNetOptions) -> EnergyModel:
    """AlphaNet for a host: sizes from the YAML file, cutoff, elements and neighbours from the host.

    Raises
    ------
    ConfigError
        If the file does not exist, an option is unknown, or a checkpoint does not fit the data.
    """
    import yaml

    from hint_plugins.models.alphanet import AlphaNet, AlphaNetConfig

    if options.alphanet_checkpoint is not None:
        model = AlphaNet.load(options.alphanet_checkpoint)
        if model.cutoff != settings.cutoff:
            raise ConfigError(
                f"{options.alphanet_checkpoint} has a cutoff of {model.cutoff:g} A: use --r_max {model.cutoff:g}"
            )
        missing = [z for z in settings.elements if not bool(model.known[z])]
        if missing:
            raise ConfigError(f"{options.alphanet_checkpoint} does not know the elements {missing}")
        return model
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
