"""What a host and a model that it can train say to each other (hook ``register_models``)."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Pretrained:
    """A model whose energies already have their scale: the host takes these numbers instead of its data's.

    Attributes
    ----------
    model
        The energy model.
    scale, shift
        Factor (dimensionless) and offset (eV) of the energies of the atoms.
    total
        Whether the model's energies hold those of the isolated atoms, which the host must then not add.
    """

    model: EnergyModel
    scale: float = 1.0
    shift: float = 0.0
    total: bool = False
