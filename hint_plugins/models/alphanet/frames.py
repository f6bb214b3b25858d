"""Edge geometry and edge frames."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hint_plugins.models.alphanet.layers import neighbour_sum
from hint_plugins.models.graph import Graph, edge_vectors


class Edges(NamedTuple):
    """Geometry of the directed edges j -> i.

    Attributes
    ----------
    source, centre : (E,)
        Atoms j and i.
    vector : (E, 3)
        From i to j, Angstrom.
    distance : (E, 1)
        Angstrom.
    unit : (E, 3)
    """

    source: Tensor
    centre: Tensor
    vector: Tensor
    distance: Tensor
    unit: Tensor

    @classmethod
    def of(cls, graph: Graph, eps: float = 0.0) -> Edges:
        """Geometry of ``graph``; ``eps`` (Angstrom) is added to the distance in the unit vector."""
        vector = edge_vectors(graph)
        distance = vector.square().sum(-1, keepdim=True).sqrt()
        return cls(graph.edge_index[0], graph.edge_index[1], vector, distance, vector / (distance + eps))


def frame_columns(unit: Tensor, normal: Tensor) -> Tensor:
    """Frame [u, k, u x k] as columns, (E, 3, 3), from unit vector u and normal k.

    Neither k nor u x k is normalised, so that nothing is singular for collinear atoms.
    """
    return torch.stack([unit, normal, torch.linalg.cross(unit, normal, dim=-1)], dim=-1)


def published_frame(graph: Graph, edges: Edges, edge_mean: bool) -> Tensor:
    """Frames of the published networks, (E, 3, 3).

    Parameters
    ----------
    graph, edges
        Structure and its edges.
    edge_mean : bool
        Reference point from the mean edge vector (``square``); else from the mean of the neighbours' positions
        as stored, which is not periodic (``gauss``, ``bessel``).
    """
    n = graph.positions.shape[0]
    ones = torch.ones_like(edges.distance)
    count = neighbour_sum(ones, edges.centre, n).clamp(min=1.0)
    if edge_mean:
        mean = neighbour_sum(edges.vector, edges.centre, n) / count
        normal = torch.linalg.cross(edges.vector, mean[edges.centre], dim=-1)
    else:
        mean = neighbour_sum(graph.positions[edges.source], edges.centre, n) / count
        reference = mean[edges.centre]
        normal = torch.linalg.cross(
            graph.positions[edges.centre] - reference, graph.positions[edges.source] - reference, dim=-1
        )
    return frame_columns(edges.unit, normal)
