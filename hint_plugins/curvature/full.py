"""Whole Hessians of a batch, in chunks of columns that bound the memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hint_plugins.curvature.engines import Engine, ForceView, reverse
from hint_plugins.curvature.precision import coarse_products, full_precision


def full_hessians(
    view: ForceView,
    sizes: Sequence[int],
    engine: Engine = reverse,
    chunk: int = 16,
    coordinates: Sequence[np.ndarray] | None = None,
) -> list[Tensor]:
    """Hessians of all structures of a batch.

    Column j of every structure comes from one product with a probe that is 1 at coordinate j of each, so a
    batch needs ``3 max(N)`` products, not ``3 sum(N)``.

    Parameters
    ----------
    view
        The batch: positions of its structures one after the other.
    sizes
        Number of atoms of each structure; they add up to n.
    engine
        How products are made.
    chunk
        Products made at a time: memory grows with it for ``vmap``, ``replicate`` and finite differences.
    coordinates
        Of each structure (3N,) truth values: the coordinates whose rows and columns are wanted; None for all.

    Returns
    -------
    list of torch.Tensor
        One (3N, 3N) tensor in eV/A^2 per structure, or (b, b) of its b wanted coordinates, detached, not symmetrised.
        Row j is
        ``-d F_j / dr`` for ``reverse`` and ``vmap``, column j for finite differences (equal up to
        the error of the engine unless forces are predicted directly).
    """
    positions = view.positions
    counts = 3 * np.asarray(list(sizes), dtype=np.int64)
    if counts.sum() != positions.numel():
        raise ValueError(f"sizes add up to {counts.sum() // 3} atoms, positions hold {len(positions)}")
    if coarse_products(positions):  # a force graph that exists already is as coarse
        view = replace(view, graph=None)
    wanted = [np.ones(count, dtype=bool) for count in counts] if coordinates is None else coordinates
    # of each coordinate, -1 where none is wanted; made on the host
    own_row = np.concatenate([np.where(mask, np.cumsum(mask) - 1, -1) for mask in wanted])
    largest = max(int(mask.sum()) for mask in wanted)
    blocks = []
    for first in range(0, largest, chunk):
        columns = np.arange(first, min(first + chunk, largest))
        probes = torch.from_numpy(own_row == columns[:, None]).to(positions.device).to(positions.dtype)
        with full_precision(positions):
            products = engine(view, probes.view(len(columns), -1, 3), create_graph=False)
        blocks.append(products.detach().reshape(len(columns), -1))
    rows = torch.cat(blocks)
    pieces = rows.split(counts.tolist(), dim=1)
    found = []
    for piece, mask in zip(pieces, wanted, strict=True):
        piece = piece[: int(mask.sum())]
        found.append(piece.clone() if mask.all() else piece[:, torch.from_numpy(np.flatnonzero(mask)).to(piece.device)])
    return found
