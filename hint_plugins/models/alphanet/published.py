"""The published networks (variants ``gauss``, ``bessel``, ``square``), for their weights.

The tensor contraction of an edge is affine in the edge's scalars, so its three linear steps (expansion,
contraction with the complex kernel, mixing over the phase channels) are multiplied out once per forward pass.
The dropout that the published training applies inside that contraction is left out: with it, energy, forces
and Hessian products would belong to different networks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from hint_plugins.models.alphanet.basis import BesselBasis, ExpNormalBasis, cosine_cutoff
from hint_plugins.models.alphanet.config import PUBLISHED_ELEMENTS, AlphaNetConfig
from hint_plugins.models.alphanet.frames import Edges, published_frame
from hint_plugins.models.alphanet.layers import LayerNorm, layer_norm, mlp, neighbour_sum, rotate, xavier
from hint_plugins.models.graph import Graph

SQUARE_EPS = 1e-9


class PublishedLayer(nn.Module):
    """One message step and one frame transition."""

    def __init__(self, config: AlphaNetConfig, last: bool) -> None:
        super().__init__()
        h, r, m, k, c = (
            config.hidden_channels,
            config.num_radial,
            config.mp_chi1,
            config.chi2,
            config.hidden_channels_chi,
        )
        self.config = config
        self.node_filter = mlp(h, h, 3 * h)
        self.node_norm = LayerNorm(h)
        self.edge_radial = nn.Linear(r, 3 * h)
        self.edge_direction = mlp(3 * h + r, 3 * h, 3 * h)
        self.expand = nn.Linear(h, 2 * c)
        shape = (config.head + 1, c // config.head, k)
        self.kernel_real = nn.Parameter(torch.randn(shape))
        self.kernel_imag = nn.Parameter(torch.randn(shape))
        self.gate = mlp(3 * h, c // 2, k)
        self.mix = nn.Linear(m, m)
        self.mix_vector = nn.Parameter(torch.randn(m))
        self.angle = nn.Linear(m, m)
        self.rotation = None if last else nn.Linear(m, h // 2)
        norm_size = m + h if config.has_norm_before_flag else m
        has_norm = config.has_norm_before_flag or config.has_norm_after_flag
        self.message_norm = LayerNorm(norm_size) if has_norm else None
        self.vector_mix = nn.Linear(h, 2 * h, bias=False)
        self.vector_gate = mlp(2 * h, h, 3 * h)
        for part in (self.node_filter, self.edge_radial, self.edge_direction, self.vector_mix, self.vector_gate):
            xavier(part)

    def contraction(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Affine map from edge scalars (H) to the contracted tensor [Re h | Im h] (2K), and its two mixers (M)."""
        config = self.config
        c = config.hidden_channels_chi
        norm = math.sqrt(config.hidden_channels // config.head)
        real, imag = self.kernel_real / norm, self.kernel_imag / norm
        body_real, body_imag = real[1:].reshape(c, -1).t(), imag[1:].reshape(c, -1).t()
        complex_map = torch.cat([torch.cat([body_real, -body_imag], dim=1), torch.cat([body_imag, body_real], dim=1)])
        constant = torch.cat([real[0].sum(0), imag[0].sum(0)])
        weight = complex_map @ self.expand.weight
        bias = complex_map @ self.expand.bias + constant
        gated = self.angle.weight @ (self.mix.weight @ self.mix_vector)
        plain = self.angle.weight @ (self.mix.weight.sum(1) + self.mix.bias)
        return weight, bias, gated, plain

    def phase_message(self, scalars: Tensor, filters: Tensor) -> Tensor:
        """Phases (E, M) of edges with scalars (E, H) and filters (E, 3H)."""
        weight, bias, gated, plain = self.contraction()
        real, imag = nn.functional.linear(scalars, weight, bias).chunk(2, dim=-1)
        alpha = silu(self.gate(filters))
        parts = []
        for h in (real, imag):
            parts.append((h * alpha).sum(-1, keepdim=True) * gated + h.sum(-1, keepdim=True) * plain + self.angle.bias)
        return torch.atan2(parts[1], parts[0])

    def forward(
        self,
        scalars: Tensor,
        vectors: Tensor,
        rotation: tuple[Tensor, Tensor] | None,
        edges: Edges,
        radial: Tensor,
        descriptor: Tensor,
        phase_step: PhaseStep,
        phase: Tensor,
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None, Tensor]:
        """Scalars (N, H), vectors (N, 3, H), rotation and phase state (N, 2X) after this layer."""
        config, n, h = self.config, scalars.shape[0], self.config.hidden_channels
        turned = scalars if rotation is None else rotate(scalars, rotation)
        source_filter = self.node_filter(self.node_norm(turned)).index_select(0, edges.source)
        filters = self.edge_radial(radial) * self.edge_direction(descriptor)
        x, y, z = (source_filter * filters).split(h, dim=-1)
        y = y / math.sqrt(3.0)
        theta = self.phase_message(x, filters)
        vector = vectors.index_select(0, edges.source) * y[:, None] + edges.unit[:, :, None] * z[:, None]
        message = neighbour_sum(torch.cat([theta, x], dim=-1), edges.centre, n)
        if config.reduce_mode == "mean":
            count = neighbour_sum(torch.ones_like(edges.distance), edges.centre, n)
            message = message / count.clamp(min=1.0)
        if config.has_norm_before_flag and self.message_norm is not None:
            message = self.message_norm(message)
        theta, delta = message.split([config.mp_chi1, h], dim=-1)
        if config.has_norm_after_flag and self.message_norm is not None:
            theta = self.message_norm(theta)
        if self.rotation is not None:
            angle = self.rotation(theta)
            rotation = (torch.cos(angle), torch.sin(angle)) if config.rotary else None
        scalars = scalars + delta
        vectors = vectors + neighbour_sum(vector, edges.centre, n) / math.sqrt(h)
        phase = phase_step(scalars, phase)
        scalars, vectors = self.transition(scalars, vectors)
        return scalars, vectors, rotation, phase

    def transition(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Frame transition: scalars and vectors mix through gates."""
        h = self.config.hidden_channels
        p, q = self.vector_mix(vectors).split(h, dim=-1)
        invariant = p.square().sum(1) if self.config.variant == "square" else p.abs().sum(1)
        dot = (p * q).sum(1) / math.sqrt(h)
        f1, f2, f3 = self.vector_gate(torch.cat([scalars, invariant], dim=-1)).split(h, dim=-1)
        return scalars + (f1 + f2 + dot) / math.sqrt(2.0), vectors + f3[:, None] * q


class PhaseStep(nn.Module):
    """Bilinear recurrence of the complex phase state, normalised per component."""

    def __init__(self, config: AlphaNetConfig) -> None:
        super().__init__()
        shape = (config.hidden_channels, config.main_chi1, config.main_chi1)
        self.real = nn.Parameter(torch.randn(shape))
        self.imag = nn.Parameter(torch.randn(shape))
        self.eps = SQUARE_EPS if config.variant == "square" else 0.0

    def forward(self, scalars: Tensor, phase: Tensor) -> Tensor:
        """Next state (N, 2X), real parts first, from scalars (N, H) and state (N, 2X)."""
        size = self.real.shape[-1]
        kernels = torch.cat([self.real, self.imag], dim=1).flatten(1)
        maps = (scalars @ kernels).view(-1, 2 * size, size)
        by_real, by_imag = (maps @ phase.view(-1, 2, size).transpose(1, 2)).unbind(-1)
        real = by_real[:, :size] - by_imag[:, size:]
        imag = by_real[:, size:] + by_imag[:, :size]
        norm = (real.square() + imag.square()).sqrt() + self.eps
        return torch.cat([real / norm, imag / norm], dim=-1)


class PublishedBody(nn.Module):
    """Atomic energies of the published networks before per-element scale and shift."""

    def __init__(self, config: AlphaNetConfig) -> None:
        super().__init__()
        h, r = config.hidden_channels, config.num_radial
        self.config = config
        self.element = nn.Embedding(PUBLISHED_ELEMENTS, h)
        self.neighbour = nn.Embedding(PUBLISHED_ELEMENTS, h)
        basis = ExpNormalBasis if config.variant == "gauss" else BesselBasis
        self.radial = basis(r, config.cutoff)
        self.radial_filter = mlp(r, h, h)
        self.direction = nn.Linear(h, h)
        self.scalarise = mlp(3, h // 4, 1)
        self.initial_phase = nn.Parameter(torch.randn(h, 2 * config.main_chi1))
        self.layers = nn.ModuleList(
            PublishedLayer(config, last=t == config.num_layers - 1) for t in range(config.num_layers)
        )
        self.phase_steps = nn.ModuleList(PhaseStep(config) for _ in range(config.num_layers))
        self.scalar_readout = nn.Linear(h, 1)
        self.phase_readout = nn.Linear(2 * config.main_chi1, 1)

    def forward(self, graph: Graph) -> Tensor:
        """Dimensionless atomic energies, (N,)."""
        config, n, h = self.config, graph.positions.shape[0], self.config.hidden_channels
        square = config.variant == "square"
        edges = Edges.of(graph, SQUARE_EPS if square else config.eps)
        source = edges.source
        cut = cosine_cutoff(edges.distance, config.cutoff)
        radial = self.radial(edges.distance)
        radial_scalars = cut * self.radial_filter(radial)
        species = layer_norm(self.element(graph.numbers))
        neighbour = layer_norm(self.neighbour(graph.numbers)).index_select(0, source)
        scalars = species + neighbour_sum(radial_scalars * neighbour, edges.centre, n)
        strength = silu(layer_norm(self.direction(scalars))).index_select(0, source)
        directions = neighbour_sum(edges.unit[:, :, None] * (radial_scalars * strength)[:, None], edges.centre, n)
        frame = published_frame(graph, edges, edge_mean=square).transpose(1, 2)
        scalarised = [cut * self.scalarised(frame @ directions.index_select(0, end)) for end in (edges.centre, source)]
        descriptor = torch.cat([*scalarised, radial_scalars, radial], dim=-1)
        phase = species @ self.initial_phase
        vectors = scalars.new_zeros(n, 3, h)
        rotation: tuple[Tensor, Tensor] | None = None
        for layer, step in zip(self.layers, self.phase_steps, strict=True):
            scalars, vectors, rotation, phase = layer(
                scalars, vectors, rotation, edges, radial, descriptor, step, phase
            )
        return (self.scalar_readout(scalars) + self.phase_readout(phase) / config.main_chi1).squeeze(-1)

    def scalarised(self, components: Tensor) -> Tensor:
        """Invariants (E, H) of frame components (E, 3, H)."""
        along, normal, across = components.unbind(1)
        normal = normal.square() if self.config.variant == "square" else normal.abs()
        invariants = torch.stack([along, normal, across], dim=-1)
        return (self.scalarise(invariants).squeeze(-1) + along) / math.sqrt(self.config.hidden_channels)
