"""A smooth many-body energy model of any elements, for tests of what stands on the EnergyModel protocol."""

from __future__ import annotations

import torch
from torch import nn

from hint_plugins.models import Graph, edge_vectors


class Pairs(nn.Module):
    """Finnis-Sinclair energies with a smooth cutoff; float64."""

    def __init__(self, cutoff: float = 4.0, elements: tuple[int, ...] | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.cutoff = cutoff
        self.strength = nn.Parameter(0.5 + torch.rand(100, 2, generator=generator, dtype=torch.float64))
        self.decay = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
        if elements is not None:
            self.elements = elements

    def forward(self, graph: Graph) -> torch.Tensor:
        source, centre = graph.edge_index
        distance = edge_vectors(graph).square().sum(-1, keepdim=True).sqrt()
        switch = (1 - (distance / self.cutoff).clamp(max=1.0) ** 2) ** 4
        strength = self.strength[graph.numbers]
        pairs = switch * strength[source] * strength[centre] * torch.exp(-self.decay * distance)
        density = torch.zeros_like(strength).index_add(0, centre, pairs)
        atomic = density[:, 1] - torch.sqrt(1 + density[:, 0])
        return atomic.new_zeros(graph.num_graphs).index_add(0, graph.batch_index, atomic)


def make_pairs() -> Pairs:
    """Factory for ``helpers.pairs:make_pairs``."""
    return Pairs()
