"""A tiny smooth many-body potential, batched over disconnected structures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hint_plugins.curvature.engines import ForceView


class ToyPotential(nn.Module):
    """Energy from a small network on pair distances, summed over atoms: has all derivatives."""

    def __init__(self, norm: nn.Module | None = None, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Linear(4, width)
        self.norm = norm or nn.Identity()
        self.second = nn.Linear(width, 1)

    def forward(self, positions: Tensor, same: Tensor) -> Tensor:
        """Total energy of positions (n, 3); ``same`` (n, n) marks pairs of one structure."""
        delta = positions[:, None] - positions[None]
        square = delta.square().sum(-1)
        basis = torch.stack([torch.exp(-square / w) for w in (0.5, 1.0, 2.0, 4.0)], dim=-1)
        mask = same & ~torch.eye(len(positions), dtype=torch.bool, device=positions.device)
        features = (basis * mask[..., None]).sum(1)
        return self.second(torch.nn.functional.silu(self.norm(self.first(features)))).sum()


def toy_view(model: nn.Module, positions: Tensor, sizes: Sequence[int]) -> ForceView:
    """View of structures that lie one after the other in ``positions``."""
    graph = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(list(sizes))).to(positions.device)
    same = graph[:, None] == graph[None]

    def forces_at(copies: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = copies if copies.requires_grad else copies.detach().requires_grad_(True)
            energy = torch.stack([model(x, same) for x in leaf]).sum()
            return -torch.autograd.grad(energy, leaf, create_graph=True)[0]

    return ForceView(positions, forces_at)
