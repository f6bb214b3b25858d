"""The smooth network: energy, forces, Hessian and third derivatives are continuous everywhere.

What AlphaNet does is kept: learned vectors of an atom are resolved in the frame of each edge, the resulting
invariants filter the messages, an edge tensor is contracted to phases that rotate the scalar features, a complex
phase state follows each atom, and gates mix scalars and vectors. Different from the published networks:

* Every message carries the radial basis times an envelope with three vanishing derivatives at the cutoff.
* Frames come from a learned reference vector of the centre, periodic by construction, and are not normalised by
  anything that can vanish. Pseudo-scalars enter in pairs, so the network is exactly O(3) invariant.
* Angles, phases and norms go through ``x / sqrt(1 + |x|^2)``-like maps without branch cuts or cusps.
* Layer norms act only where their input cannot vanish; sums over neighbours are divided by a constant.
* The edge descriptor is one trunk for all layers; a layer adds two linear maps of it per edge.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from hint_plugins.models.alphanet.basis import EnvelopedBessel
from hint_plugins.models.alphanet.config import MAX_NUMBER, AlphaNetConfig
from hint_plugins.models.alphanet.frames import Edges, frame_columns
from hint_plugins.models.alphanet.layers import LayerNorm, mlp, neighbour_sum, rotate, xavier
from hint_plugins.models.graph import Graph


def soften(x: Tensor, dim: int) -> Tensor:
    """``x / sqrt(1 + |x|^2)``: direction for large, identity for small vectors along ``dim``."""
    return x * torch.rsqrt(1.0 + x.square().sum(dim, keepdim=True))


class Descriptor(nn.Module):
    """Initial node scalars and the edge descriptor shared by all layers."""

    def __init__(self, config: AlphaNetConfig) -> None:
        super().__init__()
        h, r, f = config.hidden_channels, config.num_radial, config.frame_channels
        self.frames = f
        self.scale = config.avg_neighbours**-0.5
        self.neighbour = nn.Embedding(len(config.elements), h)
        self.radial_filter = mlp(r, h, h + f + 1, bias=False)
        self.direction = nn.Linear(h, f + 1)
        self.invariants = nn.Linear(7 * f, h)
        self.radial = nn.Linear(r, h, bias=False)
        self.ends = nn.Linear(h, 2 * h, bias=False)

    def forward(self, species: Tensor, rows: Tensor, radial: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
        """Scalars (N, H) and descriptor (E, H) from species features (N, H), their rows and radial basis (E, R)."""
        n, h, f = species.shape[0], species.shape[1], self.frames
        source, centre = edges.source, edges.centre
        strength, directed = self.radial_filter(radial).split([h, f + 1], dim=-1)
        neighbour = self.neighbour(rows).index_select(0, source)
        scalars = species + self.scale * neighbour_sum(strength * neighbour, centre, n)
        directed = directed * silu(self.direction(scalars)).index_select(0, source)
        vectors = self.scale * neighbour_sum(edges.unit[:, :, None] * directed[:, None], centre, n)
        reference = soften(vectors[:, :, 0], dim=-1).index_select(0, centre)
        frame = frame_columns(edges.unit, torch.linalg.cross(edges.unit, reference, dim=-1)).transpose(1, 2)
        vectors = vectors[:, :, 1:].contiguous()
        a1, a2, a3 = (frame @ vectors.index_select(0, centre)).unbind(1)
        b1, b2, b3 = (frame @ vectors.index_select(0, source)).unbind(1)
        invariants = torch.cat([a1, a3, b1, b3, a2 * a2, a2 * b2, b2 * b2], dim=-1)
        by_centre, by_source = self.ends(scalars).split(h, dim=-1)
        descriptor = (
            self.invariants(invariants)
            + self.radial(radial)
            + by_centre.index_select(0, centre)
            + by_source.index_select(0, source)
        )
        return scalars, silu(descriptor)


class PhaseMessage(nn.Module):
    """Phases of the edges: a gated contraction of the message to 2K numbers, then to M smooth angles."""

    def __init__(self, config: AlphaNetConfig) -> None:
        super().__init__()
        h, k, m = config.hidden_channels, config.chi2, config.mp_chi1
        self.contract = nn.Linear(h, 2 * k, bias=False)
        self.gate = nn.Linear(h, 2 * k)
        self.angle = nn.Linear(2 * k, 2 * m, bias=False)
        self.rotation = nn.Linear(m, h // 2, bias=False)

    def forward(self, message: Tensor, descriptor: Tensor) -> Tensor:
        """Angles (E, M), zero where the message (E, H) is."""
        gated = self.contract(message) * self.gate(descriptor)
        real, imag = self.angle(gated).chunk(2, dim=-1)
        return imag * torch.rsqrt(1.0 + real.square() + imag.square())


class PhaseStep(nn.Module):
    """Bilinear recurrence of the complex phase state with a saturating norm per component."""

    def __init__(self, config: AlphaNetConfig) -> None:
        super().__init__()
        h, x = config.hidden_channels, config.main_chi1
        self.size = x
        self.kernels = nn.Parameter(torch.randn(h, 2 * x * x) / math.sqrt(h * x))

    def forward(self, scalars: Tensor, phase: Tensor) -> Tensor:
        """Next state (N, 2, X), real parts first, from scalars (N, H) and state (N, 2, X)."""
        x = self.size
        maps = (scalars @ self.kernels).view(-1, 2 * x, x)
        by_real, by_imag = (maps @ phase.transpose(1, 2)).view(-1, 2, x, 2).unbind(-1)
        real = by_real[:, 0] - by_imag[:, 1]
        imag = by_real[:, 1] + by_imag[:, 0]
        return soften(torch.stack([real, imag], dim=1), dim=1)


class SmoothLayer(nn.Module):
    """One message step, one step of the phase state, one mixing of scalars and vectors."""

    def __init__(self, config: AlphaNetConfig, first: bool, last: bool) -> None:
        super().__init__()
        h, r = config.hidden_channels, config.num_radial
        self.channels, self.first, self.last = h, first, last
        self.scale = config.avg_neighbours**-0.5
        parts = 2 if first else 3
        self.node_norm = LayerNorm(h)
        self.node_filter = mlp(h, h, parts * h)
        self.edge_radial = nn.Linear(r, parts * h, bias=False)
        self.edge_direction = nn.Linear(h, parts * h)
        self.phase_message = None if last else PhaseMessage(config)
        self.phase_step = PhaseStep(config)
        self.vector_mix = nn.Linear(h, (1 if last else 2) * h, bias=False)
        self.vector_gate = mlp(2 * h, h, (1 if last else 3) * h)
        for part in (self.node_filter, self.edge_direction, self.vector_mix, self.vector_gate):
            xavier(part)

    def forward(
        self,
        scalars: Tensor,
        vectors: Tensor | None,
        rotation: tuple[Tensor, Tensor] | None,
        edges: Edges,
        radial: Tensor,
        descriptor: Tensor,
        phase: Tensor,
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor, Tensor] | None, Tensor]:
        """Scalars (N, H), vectors (N, 3, H), rotation (cos, sin) and phase state (N, 2, X) after this layer."""
        n, h = scalars.shape[0], self.channels
        turned = scalars if rotation is None else rotate(scalars, rotation)
        filters = self.edge_radial(radial) * self.edge_direction(descriptor)
        message = filters * self.node_filter(self.node_norm(turned)).index_select(0, edges.source)
        x, z, *y = message.split(h, dim=-1)
        vector = edges.unit[:, :, None] * z[:, None]
        if vectors is not None:
            vector = torch.addcmul(vector, vectors.index_select(0, edges.source), y[0][:, None])
        if self.phase_message is None:
            scalars = scalars + self.scale * neighbour_sum(x, edges.centre, n)
            rotation = None
        else:
            both = torch.cat([x, self.phase_message(x, descriptor)], dim=-1)
            delta, theta = (self.scale * neighbour_sum(both, edges.centre, n)).tensor_split([h], dim=-1)
            angle = self.phase_message.rotation(theta)
            rotation = torch.cos(angle), torch.sin(angle)
            scalars = scalars + delta
        new = self.scale * neighbour_sum(vector, edges.centre, n)
        vectors = new if vectors is None else vectors + new
        phase = self.phase_step(scalars, phase)
        scalars, vectors = self.transition(scalars, vectors)
        return scalars, vectors, rotation, phase

    def transition(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor | None]:
        """Gates between scalars and vectors; the last layer needs no vectors afterwards."""
        h = self.channels
        p, *q = self.vector_mix(vectors).split(h, dim=-1)
        length = torch.sqrt(1.0 + p.square().sum(1)) - 1.0
        f1, *rest = self.vector_gate(torch.cat([scalars, length], dim=-1)).split(h, dim=-1)
        scalars = scalars + f1
        if self.last:
            return scalars, None
        dot = (p * q[0]).sum(1) * h**-0.5
        return scalars + rest[0] * dot, vectors + rest[1][:, None] * q[0]


class SmoothBody(nn.Module):
    """Atomic energies of the smooth network before scale and shift."""

    row: Tensor

    def __init__(self, config: AlphaNetConfig) -> None:
        super().__init__()
        h, x = config.hidden_channels, config.main_chi1
        row = torch.zeros(MAX_NUMBER, dtype=torch.long)
        row[list(config.elements)] = torch.arange(len(config.elements))
        self.register_buffer("row", row, persistent=False)
        self.size = x
        self.radial = EnvelopedBessel(config.num_radial, config.cutoff)
        self.element = nn.Embedding(len(config.elements), h)
        self.initial_phase = nn.Linear(h, 2 * x, bias=False)
        self.descriptor = Descriptor(config)
        last = config.num_layers - 1
        self.layers = nn.ModuleList(SmoothLayer(config, t == 0, t == last) for t in range(config.num_layers))
        self.scalar_readout = mlp(h, h // 2, 1)
        self.phase_readout = nn.Linear(2 * x, 1, bias=False)

    def forward(self, graph: Graph) -> Tensor:
        """Dimensionless atomic energies, (N,)."""
        edges = Edges.of(graph)
        radial = self.radial(edges.distance)
        rows = self.row[graph.numbers]
        species = self.element(rows)
        scalars, descriptor = self.descriptor(species, rows, radial, edges)
        phase = self.initial_phase(species).view(-1, 2, self.size)
        vectors: Tensor | None = None
        rotation: tuple[Tensor, Tensor] | None = None
        for layer in self.layers:
            scalars, vectors, rotation, phase = layer(scalars, vectors, rotation, edges, radial, descriptor, phase)
        return (self.scalar_readout(scalars) + self.phase_readout(phase.flatten(1))).squeeze(-1)
