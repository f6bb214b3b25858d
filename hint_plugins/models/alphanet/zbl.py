"""Screened nuclear repulsion at short range, as one published version of AlphaNet adds it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hint_plugins.models.alphanet.frames import Edges
from hint_plugins.models.alphanet.layers import neighbour_sum

# The constants of the published network: its weights were trained beside them.
COULOMB = 14.399645478425
"""e^2 / (4 pi eps0) in eV Angstrom."""
BOHR = 0.529177210903
WEIGHTS = (0.187, 0.3769, 0.189, 0.081, 0.003, 0.037, 0.0546, 0.0715)
DECAYS = (3.20, 1.10, 0.102, 0.958, 1.28, 1.14, 1.69, 5.0)
GAMMA = 1.001
ALPHA = 0.6032
TAPER = 1.0
"""Angstrom."""


class Repulsion(nn.Module):
    """``1/2 sum_e Z_i Z_j e^2 phi(d/a) / d`` with a cosine taper to zero at 1 Angstrom.

    ``phi(x) = sum_m w_m exp(-b_m x)`` and ``a = 0.8854 gamma a_0 / (Z_i^alpha + Z_j^alpha)``.
    """

    def forward(self, numbers: Tensor, edges: Edges) -> Tensor:
        """Repulsion per atom in eV, (N,), from atomic numbers (N,)."""
        charge = numbers.to(edges.distance.dtype)
        source, centre = charge[edges.source], charge[edges.centre]
        d = edges.distance.squeeze(-1)
        length = GAMMA * 0.8854 * BOHR / (source**ALPHA + centre**ALPHA)
        screening = sum(w / sum(WEIGHTS) * torch.exp(-b * d / length) for w, b in zip(WEIGHTS, DECAYS, strict=True))
        taper = torch.where(d < TAPER, 0.5 * (torch.cos(math.pi * d / TAPER) + 1.0), torch.zeros_like(d))
        pair = source * centre * COULOMB * screening / d * taper
        return neighbour_sum(0.5 * pair, edges.centre, numbers.shape[0])
