"""Radial basis functions and cutoff functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def cosine_cutoff(distance: Tensor, cutoff: float) -> Tensor:
    """``(cos(pi d / rc) + 1) / 2``, not masked beyond the cutoff; distances in Angstrom."""
    return 0.5 * (torch.cos(distance * (math.pi / cutoff)) + 1.0)


def envelope(distance: Tensor, cutoff: float) -> Tensor:
    """``1 - 35 x^4 + 84 x^5 - 70 x^6 + 20 x^7`` with ``x = d / rc``; zero from the cutoff on.

    Value and three derivatives vanish at the cutoff, so energies, forces and Hessians are continuous there,
    and so are third derivatives.
    """
    x = distance / cutoff
    x4 = (x * x).square()
    value = 1.0 + x4 * (-35.0 + x * (84.0 + x * (-70.0 + 20.0 * x)))
    return torch.where(x < 1.0, value, torch.zeros_like(value))


class BesselBasis(nn.Module):
    """``2/rc sin(w_n d / rc) / d`` with trainable frequencies, first ``n pi``.

    Parameters
    ----------
    num_radial : int
    cutoff : float
        Angstrom.
    """

    def __init__(self, num_radial: int, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.frequencies = nn.Parameter(math.pi * torch.arange(1, num_radial + 1, dtype=torch.get_default_dtype()))

    def forward(self, distance: Tensor) -> Tensor:
        """Basis functions (E, R) at distances (E, 1) in Angstrom."""
        return (2.0 / self.cutoff) * torch.sin(self.frequencies * (distance / self.cutoff)) / distance


class ExpNormalBasis(nn.Module):
    """Gaussians in ``exp(-d)`` times the cosine cutoff, with fixed centres and widths.

    Parameters
    ----------
    num_radial : int
    cutoff : float
        Angstrom.
    """

    means: Tensor
    betas: Tensor

    def __init__(self, num_radial: int, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        start = math.exp(-cutoff)
        self.register_buffer("means", torch.linspace(start, 1.0, num_radial))
        self.register_buffer("betas", torch.full((num_radial,), (2.0 / num_radial * (1.0 - start)) ** -2))

    def forward(self, distance: Tensor) -> Tensor:
        """Basis functions (E, R) at distances (E, 1) in Angstrom."""
        cut = torch.where(distance < self.cutoff, cosine_cutoff(distance, self.cutoff), torch.zeros_like(distance))
        return cut * torch.exp(-self.betas * (torch.exp(-distance) - self.means) ** 2)


class EnvelopedBessel(nn.Module):
    """``sqrt(2/rc) sin(n pi d / rc) / d`` times :func:`envelope`.

    Parameters
    ----------
    num_radial : int
    cutoff : float
        Angstrom.
    """

    orders: Tensor

    def __init__(self, num_radial: int, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.register_buffer("orders", torch.arange(1.0, num_radial + 1.0), persistent=False)

    def forward(self, distance: Tensor) -> Tensor:
        """Basis functions (E, R) at distances (E, 1) in Angstrom."""
        front = math.sqrt(2.0 / self.cutoff) * envelope(distance, self.cutoff) / distance
        return front * torch.sin(self.orders * (math.pi / self.cutoff * distance))
