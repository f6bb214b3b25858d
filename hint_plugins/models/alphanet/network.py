"""The AlphaNet energy model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hint_plugins.models.alphanet import checkpoint
from hint_plugins.models.alphanet.config import MAX_NUMBER, PUBLISHED_ELEMENTS, AlphaNetConfig
from hint_plugins.models.alphanet.frames import Edges
from hint_plugins.models.alphanet.published import PublishedBody
from hint_plugins.models.alphanet.smooth import SmoothBody
from hint_plugins.models.alphanet.zbl import Repulsion
from hint_plugins.models.graph import Graph

PUBLISHED_TABLE = 108


class AlphaNet(nn.Module):
    """AlphaNet, an energy model with local edge frames (arXiv:2501.07155).

    Satisfies :class:`hint_plugins.models.EnergyModel`.

    Parameters
    ----------
    config : AlphaNetConfig, optional
        Default: the smooth network of the published size.
    **options
        Instead of ``config``: its options by name.

    Attributes
    ----------
    elements : frozenset of int
        Atomic numbers that the network knows.
    scale, shift : tensor
        Factor (dimensionless) and offset (eV) of the atomic energies, indexed by atomic number. Buffers in
        ``smooth``, trainable in the published variants.
    """

    #: Hessian products of molecules take 0.3 (3 atoms) to 1.0 (27 atoms) of the time of ``reverse`` on a CPU.
    cpu_engine = "vmap"
    known: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, config: AlphaNetConfig | None = None, **options: Any) -> None:
        super().__init__()
        if config is not None and options:
            raise ValueError("AlphaNet: give either a config or options by name, not both")
        config = config or AlphaNetConfig(**options)
        self.config = config
        self.cutoff = float(config.cutoff)
        self.elements = frozenset(range(1, PUBLISHED_ELEMENTS) if config.published else config.elements)
        known = torch.zeros(MAX_NUMBER, dtype=torch.bool)
        known[list(self.elements)] = True
        self.register_buffer("known", known, persistent=False)
        self.body: nn.Module = PublishedBody(config) if config.published else SmoothBody(config)
        size = PUBLISHED_TABLE if config.published else MAX_NUMBER
        scale, shift = torch.full((size,), float(config.scale)), torch.full((size,), float(config.shift))
        if config.published:
            self.scale, self.shift = nn.Parameter(scale), nn.Parameter(shift)
        else:
            self.register_buffer("scale", scale)
            self.register_buffer("shift", shift)
        self.repulsion = Repulsion() if config.zbl else None

    def forward(self, graph: Graph) -> Tensor:
        """Energies of the structures, (B,) in eV.

        On a GPU a look at the numbers would make the host wait in every call. There an element that the network does
        not know gives NaN, or torch's own error from a table without a row for it; see :attr:`elements`.

        Raises
        ------
        ValueError
            If the structures contain an element the network does not know (on the CPU), or dtype or device differ
            from those of the parameters.
        """
        atomic = self.atomic_energies(graph)
        energy = atomic.new_zeros(graph.num_graphs).index_add(0, graph.batch_index, atomic)
        if self.config.readout == "mean":
            energy = energy / graph.offsets().diff()
        if self.config.use_sigmoid:
            energy = torch.sigmoid(5.0 * (energy - 0.5))
        return energy

    def atomic_energies(self, graph: Graph) -> Tensor:
        """Energies of the atoms, (N,) in eV; they add up to the energy of the structure."""
        self._check(graph)
        energy = self.scale[graph.numbers] * self.body(graph) + self.shift[graph.numbers]
        energy = energy + torch.where(self.known[graph.numbers], 0.0, torch.nan).to(energy.dtype)
        if self.repulsion is not None:
            energy = energy + self.repulsion(graph.numbers, Edges.of(graph))
        return energy

    def _check(self, graph: Graph) -> None:
        if torch.compiler.is_compiling():
            return
        if graph.positions.dtype != self.scale.dtype or graph.positions.device != self.scale.device:
            raise ValueError(
                f"AlphaNet: the graph is {graph.positions.dtype} on {graph.positions.device}, the parameters are "
                f"{self.scale.dtype} on {self.scale.device}; convert one with .to(...)"
            )
        if graph.numbers.device.type != "cpu":
            return
        inside = (graph.numbers > 0) & (graph.numbers < MAX_NUMBER)
        unknown = ~(inside & self.known[graph.numbers * inside])
        if unknown.any():
            atom = int(unknown.nonzero()[0])
            raise ValueError(
                f"AlphaNet: atom {atom} has atomic number {int(graph.numbers[atom])}, which this network does not "
                f"know; it knows {self.known.nonzero().flatten().tolist()}"
            )

    @torch.no_grad()
    def set_scale_shift(
        self,
        scale: float | Mapping[int, float] | None = None,
        shift: float | Mapping[int, float] | None = None,
    ) -> None:
        """Set factor and offset of the atomic energies, for all or by atomic number.

        Parameters
        ----------
        scale : float or mapping, optional
            For instance the root mean square of the forces of the training data.
        shift : float or mapping, optional
            For instance the energies of isolated atoms, eV.

        Raises
        ------
        ValueError
            For an element the network does not know.
        """
        for table, values in ((self.scale, scale), (self.shift, shift)):
            if values is None:
                continue
            if not isinstance(values, Mapping):
                table.fill_(float(values))
                continue
            for number, value in values.items():
                if not (0 < number < MAX_NUMBER and self.known[number]):
                    raise ValueError(f"AlphaNet: cannot set scale or shift of unknown atomic number {number}")
                table[number] = float(value)

    @classmethod
    def from_official(
        cls,
        state_dict: Mapping[str, Any],
        config: Mapping[str, Any],
        variant: str | None = None,
        rotary: bool | None = None,
        zbl: bool | None = None,
    ) -> AlphaNet:
        """Build a published network from its weights; see :func:`.checkpoint.from_official`."""
        return checkpoint.from_official(cls, state_dict, config, variant, rotary=rotary, zbl=zbl)

    def save(self, path: str | Path) -> None:
        """Write config and weights to a file; see :func:`.checkpoint.save`."""
        checkpoint.save(self, path)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> AlphaNet:
        """Read a file written by :meth:`save`; see :func:`.checkpoint.load`."""
        return checkpoint.load(cls, path, device)
