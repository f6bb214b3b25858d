"""The batch of atomic structures that every model reads."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Graph:
    """Atomic structures of one batch with their neighbour list.

    The vector of edge ``e`` is ``positions[j] - positions[i] + shifts[e]`` with ``j = edge_index[0, e]``
    (source, neighbour) and ``i = edge_index[1, e]`` (centre). Shapes, dtypes and devices are checked when
    the object is made; :meth:`validate` also checks values, which on a GPU waits for the device.

    Attributes
    ----------
    positions : (N, 3) float tensor
        Cartesian positions in Angstrom.
    numbers : (N,) long tensor
        Atomic numbers.
    edge_index : (2, E) long tensor
        Row 0 the source j, row 1 the centre i.
    shifts : (E, 3) float tensor
        Cartesian shift of the source's periodic image in Angstrom (zero without periodicity).
    cell : (B, 3, 3) float tensor, optional
        Lattice vectors as rows in Angstrom; a zero matrix marks a molecule in a mixed batch.
    batch : (N,) long tensor, optional
        Structure each atom belongs to, ascending. Default: all atoms form one structure.
    num_graphs : int, optional
        Number of structures B; 0: taken from ``cell`` or ``batch``.

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit, or the batch holds no structure.
    """

    positions: Tensor
    numbers: Tensor
    edge_index: Tensor
    shifts: Tensor
    cell: Tensor | None = None
    batch: Tensor | None = None
    num_graphs: int = 0

    def __post_init__(self) -> None:
        n = self.positions.shape[0] if self.positions.ndim else 0
        if n == 0:
            raise ValueError("graph: the batch is empty; it needs at least one structure with one atom")
        if self.batch is None:
            object.__setattr__(self, "batch", torch.zeros_like(self.numbers))
            object.__setattr__(self, "num_graphs", self.num_graphs or 1)
        if not self.num_graphs:
            count = self.cell.shape[0] if self.cell is not None else int(self.batch_index.max()) + 1
            object.__setattr__(self, "num_graphs", count)
        self._check("positions", self.positions, (n, 3), True)
        self._check("numbers", self.numbers, (n,), False)
        self._check("batch", self.batch_index, (n,), False)
        e = self.edge_index.shape[-1]
        self._check("edge_index", self.edge_index, (2, e), False)
        self._check("shifts", self.shifts, (e, 3), True)
        if self.cell is not None:
            self._check("cell", self.cell, (self.num_graphs, 3, 3), True)

    def _check(self, name: str, tensor: Tensor, shape: tuple[int, ...], floating: bool) -> None:
        if tuple(tensor.shape) != shape:
            raise ValueError(f"graph: {name} has shape {tuple(tensor.shape)}, expected {shape}")
        if floating and tensor.dtype != self.positions.dtype:
            raise ValueError(f"graph: {name} is {tensor.dtype}, positions are {self.positions.dtype}")
        if floating and not tensor.is_floating_point():
            raise ValueError(f"graph: {name} must be floating point, got {tensor.dtype}")
        if not floating and tensor.dtype != torch.long:
            raise ValueError(f"graph: {name} must be int64, got {tensor.dtype}")
        if tensor.device != self.positions.device:
            raise ValueError(f"graph: {name} is on {tensor.device}, positions on {self.positions.device}")

    @property
    def batch_index(self) -> Tensor:
        """Structure of each atom, (N,)."""
        assert self.batch is not None
        return self.batch

    def offsets(self) -> Tensor:
        """First atom of each structure, and the number of atoms last: (B + 1,), without waiting for a GPU."""
        edges = torch.arange(self.num_graphs + 1, device=self.positions.device)
        return torch.searchsorted(self.batch_index, edges)

    def validate(self) -> Graph:
        """Check values as well as shapes.

        Returns
        -------
        Graph
            This graph, so that the call can be chained.

        Raises
        ------
        ValueError
            For non-finite numbers, indices out of range, edges between structures, a batch vector that is not
            ascending, structures without atoms, or edges of zero length.
        """
        for name in ("positions", "shifts", "cell"):
            tensor = getattr(self, name)
            if tensor is not None and not torch.isfinite(tensor).all():
                raise ValueError(f"graph: {name} contains non-finite values")
        n = self.positions.shape[0]
        if self.edge_index.numel() and not (0 <= int(self.edge_index.min()) <= int(self.edge_index.max()) < n):
            raise ValueError(f"graph: edge_index must lie in [0, {n})")
        if (self.batch_index.diff() < 0).any() or int(self.batch_index[0]) < 0:
            raise ValueError("graph: batch must be ascending, atoms of a structure next to each other")
        count = torch.bincount(self.batch_index, minlength=self.num_graphs)
        if count.numel() != self.num_graphs or (count == 0).any():
            raise ValueError(f"graph: batch must name each of the {self.num_graphs} structures at least once")
        source, centre = self.edge_index
        if (self.batch_index[source] != self.batch_index[centre]).any():
            raise ValueError("graph: an edge connects atoms of two different structures")
        if (edge_vectors(self).norm(dim=-1) == 0).any():
            raise ValueError("graph: an edge has zero length (overlapping atoms, or a self-edge without shift)")
        return self

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Graph:
        """Copy on another device and, for the floating-point tensors, in another dtype."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)

        return replace(
            self,
            positions=move(self.positions),
            numbers=move(self.numbers),
            edge_index=move(self.edge_index),
            shifts=move(self.shifts),
            cell=None if self.cell is None else move(self.cell),
            batch=move(self.batch_index),
        )

    def with_positions(self, positions: Tensor) -> Graph:
        """Same atoms and edges at other positions, (N, 3) in Angstrom."""
        return replace(self, positions=positions)

    def repeated(self, copies: int) -> Graph:
        """This batch ``copies`` times, one after the other; the structures of copy c are c B, c B + 1, ..."""
        if copies == 1:
            return self
        copy = torch.arange(copies, device=self.positions.device)
        atoms = len(self.positions)
        return Graph(
            positions=self.positions.repeat(copies, 1),
            numbers=self.numbers.repeat(copies),
            edge_index=(self.edge_index[:, None] + atoms * copy[:, None]).view(2, -1),
            shifts=self.shifts.repeat(copies, 1),
            cell=None if self.cell is None else self.cell.repeat(copies, 1, 1),
            batch=(self.batch_index + self.num_graphs * copy[:, None]).view(-1),
            num_graphs=copies * self.num_graphs,
        )

    def strained(self, strain: Tensor) -> Graph:
        """Apply a homogeneous strain to positions, shifts and cell.

        Parameters
        ----------
        strain : (B, 3, 3) tensor
            Dimensionless; every Cartesian row vector x becomes ``x + x @ strain``.
        """
        per_atom = strain[self.batch_index]
        per_edge = per_atom[self.edge_index[1]]
        return replace(
            self,
            positions=self.positions + torch.einsum("na,nab->nb", self.positions, per_atom),
            shifts=self.shifts + torch.einsum("ea,eab->eb", self.shifts, per_edge),
            cell=None if self.cell is None else self.cell + self.cell @ strain,
        )


def edge_vectors(graph: Graph) -> Tensor:
    """Vectors from centre i to source j including the periodic shift, (E, 3) in Angstrom."""
    source, centre = graph.edge_index[0], graph.edge_index[1]
    positions = graph.positions
    return positions.index_select(0, source) - positions.index_select(0, centre) + graph.shifts
