"""What an adapter shows the core of one host batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from hint_plugins.curvature.engines import ForceView

#: Names of what the plugin ``hint`` draws from a stored label, both (n, m, 3): directions z, and H z in eV/A^2.
DRAWN_PROBES, DRAWN_PRODUCTS = "drawn_probes", "drawn_products"


@dataclass
class LabelledGraphs:
    """The structures of a batch that carry labels, as a batch of their own.

    What needs derivatives beyond the host's own runs on these alone, so structures without a label cost nothing;
    or on the host's whole batch, where that is cheaper (:mod:`hint_plugins.objective.products`).

    Attributes
    ----------
    view
        Positions (n, 3) of these structures and their forces as a function of positions.
    sizes
        Atoms of each structure, on the CPU (control flow without device synchronisation).
    batch
        (n,) index of the structure of each atom, 0..len(sizes)-1.
    num_atoms
        (G,) atoms of each structure, floating point, on the device.
    weights
        (G,) weight of each structure in the loss.
    numbers
        (n,) atomic numbers.
    labels
        Tensors drawn by the plugins (hook ``draw_labels``), concatenated along atoms.
    stored
        What each structure's labels hold (hook ``read_labels``), one dictionary a structure, on the CPU. Only in
        validation; in training it may be empty.
    atoms
        (n,) index of these atoms in the host's batch; None where that holds labelled structures only.
    host
        Positions and forces (N, 3) of the host's batch, joined by an autograd graph, where they exist.
    wanted
        Positions (r, n, 3) that a plugin asked for with the hook ``positions_wanted``, and the forces there.
    """

    view: ForceView
    sizes: Sequence[int]
    batch: Tensor
    num_atoms: Tensor
    weights: Tensor
    numbers: Tensor
    labels: dict[str, Tensor] = field(default_factory=dict)
    stored: Sequence[dict] = ()
    atoms: Tensor | None = None
    host: tuple[Tensor, Tensor] | None = None
    wanted: tuple[Tensor, Tensor] | None = None

    @property
    def num_graphs(self) -> int:
        return len(self.sizes)

    @property
    def probes(self) -> Tensor:
        """Probes (m, n, 3) that the plugin ``hint`` drew."""
        return self.labels[DRAWN_PROBES].transpose(0, 1).contiguous()

    @property
    def products(self) -> Tensor:
        """Reference products (m, n, 3) of :attr:`probes`, eV/A^2; NaN in components without a reference."""
        return self.labels[DRAWN_PRODUCTS].transpose(0, 1)


@dataclass
class GraphBatch:
    """One batch of the host.

    Attributes
    ----------
    positions, forces
        (N, 3) A and eV/A, joined by an autograd graph in training.
    batch
        (N,) index of the structure of each atom.
    num_graphs
        Structures in the batch.
    labelled
        The labelled ones among them, or None.
    """

    positions: Tensor
    forces: Tensor | None
    batch: Tensor
    num_graphs: int
    labelled: LabelledGraphs | None


@dataclass(frozen=True)
class Progress:
    """Where training stands.

    Attributes
    ----------
    epoch
        Current epoch, from 0.
    step
        Optimiser steps made since the beginning of training, restarts included.
    steps_per_epoch, max_epochs
        Length of an epoch, and of the run in epochs (a fraction where the host counts steps).
    rank, world_size
        This process and their number.
    """

    epoch: int = 0
    step: int = 0
    steps_per_epoch: int = 1
    max_epochs: float = 1
    rank: int = 0
    world_size: int = 1

    @property
    def epochs(self) -> float:
        """Epochs passed, with the fraction of the current one."""
        return self.step / max(1, self.steps_per_epoch)
