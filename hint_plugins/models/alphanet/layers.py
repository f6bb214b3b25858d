"""Parts shared by the published networks and the smooth one."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def layer_norm(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Layer norm over the last axis without affine part, in elementary operations.

    torch's fused ``layer_norm`` has a wrong third derivative, which the gradient of a Hessian loss needs.
    """
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)


class LayerNorm(nn.Module):
    """:func:`layer_norm` with a trainable factor and offset.

    Parameters
    ----------
    channels : int
    eps : float
        Added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis of ``x``."""
        return torch.addcmul(self.bias, layer_norm(x, self.eps), self.weight)


def mlp(inputs: int, hidden: int, outputs: int, bias: bool = True) -> nn.Sequential:
    """Linear, silu, Linear."""
    return nn.Sequential(nn.Linear(inputs, hidden, bias=bias), nn.SiLU(), nn.Linear(hidden, outputs, bias=bias))


def xavier(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every linear layer of ``module``."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def neighbour_sum(edge_values: Tensor, centre: Tensor, num_atoms: int) -> Tensor:
    """Sum (E, ...) values of the edges of each centre, giving (N, ...)."""
    return edge_values.new_zeros(num_atoms, *edge_values.shape[1:]).index_add(0, centre, edge_values)


def rotate(scalars: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the halves of (N, H) features, taken as real and imaginary parts, by (cos, sin) of (N, H/2) angles."""
    real, imag = scalars.chunk(2, dim=-1)
    cos, sin = rotation
    return torch.cat([real * cos - imag * sin, real * sin + imag * cos], dim=-1)
