"""The smallest model of one's own that passes: pair energies whose strength follows the density around an atom."""

import torch
from conformance.suite import EnergyModelSuite

from hint_plugins.models import Graph, edge_vectors


class EmbeddedPairs(torch.nn.Module):
    """E_i = -sqrt(1 + rho_i) + sum_j repulsion, as in Finnis and Sinclair (10.1080/01418618408244210)."""

    cutoff = 4.0

    def __init__(self) -> None:
        super().__init__()
        self.strength = torch.nn.Embedding(100, 2)
        self.decay = torch.nn.Parameter(torch.tensor([1.0, 2.0]))

    def forward(self, graph: Graph) -> torch.Tensor:
        source, centre = graph.edge_index
        distance = edge_vectors(graph).square().sum(-1, keepdim=True).sqrt()
        switch = (1 - (distance / self.cutoff).clamp(max=1.0) ** 2) ** 4
        strength = self.strength(graph.numbers) ** 2
        pairs = switch * strength[source] * strength[centre] * torch.exp(-self.decay * distance)
        density = torch.zeros_like(strength).index_add(0, centre, pairs)
        atomic = density[:, 1] - torch.sqrt(1 + density[:, 0])
        return atomic.new_zeros(graph.num_graphs).index_add(0, graph.batch_index, atomic)


class TestEmbeddedPairs(EnergyModelSuite):
    elements = (1, 6, 8)

    def make(self) -> torch.nn.Module:
        return EmbeddedPairs()
