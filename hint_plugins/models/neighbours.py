"""Complete neighbour lists, for molecules and for crystals of any cell, as batches.

The search is matscipy's, on the host, where every image within the cutoff is found whether or not atoms lie inside the
cell. A batch is put together and checked there too, and then copied to the device field by field: nothing on the way
waits for a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from matscipy.neighbours import neighbour_list as matscipy_list
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from hint_plugins.models.graph import Graph

if TYPE_CHECKING:
    from ase import Atoms

#: Two atoms nearer than this (Angstrom) are taken for the same atom listed twice.
MIN_DISTANCE = 0.05


def neighbour_list(
    positions: ArrayLike,
    cutoff: float,
    cell: ArrayLike | None = None,
    pbc: ArrayLike = False,
    min_distance: float = MIN_DISTANCE,
) -> tuple[Tensor, Tensor]:
    """All pairs within the cutoff, periodic images included.

    Parameters
    ----------
    positions : (N, 3) array
        Angstrom; need not lie inside the cell.
    cutoff : float
        Angstrom.
    cell : (3, 3) array, optional
        Lattice vectors as rows, Angstrom. Rows of non-periodic directions may be zero.
    pbc : bool or (3,) bools
        Periodic directions.
    min_distance : float
        Smallest distance accepted, Angstrom.

    Returns
    -------
    edge_index : (2, E) long tensor
        Row 0 the source j, row 1 the centre i, sorted by centre; on the CPU.
    shifts : (E, 3) float64 tensor
        Cartesian shift of the source, Angstrom.

    Raises
    ------
    ValueError
        For non-finite positions or cell, a periodic cell without volume, atoms on top of each other, a cutoff
        that is not positive.
    """
    pos = np.asarray(positions, dtype=np.float64)
    edges, shifts = _search(pos, cutoff, cell, pbc)
    distance = _distances(pos, edges, shifts)
    if (distance < min_distance).any():
        raise _overlap(edges, distance, min_distance)
    return torch.from_numpy(edges), torch.from_numpy(shifts)


def graph_from_atoms(
    atoms: Atoms | Sequence[Atoms],
    cutoff: float,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> Graph:
    """Batch of ASE structures with complete neighbour lists.

    Parameters
    ----------
    atoms : ase.Atoms or a sequence of them
    cutoff : float
        Angstrom.
    device, dtype
        Of the returned tensors. The search itself is always on the host, in double precision.

    Raises
    ------
    ValueError
        As :func:`neighbour_list`, naming the structure's place in the sequence; also for an empty sequence or
        a structure without atoms.
    """
    structures = cast("list[Atoms]", [atoms] if hasattr(atoms, "get_positions") else list(atoms))
    if not structures:
        raise ValueError("graph: cannot join an empty list of structures")
    edges, shifts = [], []
    for index, structure in enumerate(structures):
        try:
            found = _search(structure.positions, cutoff, structure.cell, structure.pbc)
        except ValueError as error:
            raise ValueError(f"structure {index}: {error}") from None
        edges.append(found[0])
        shifts.append(found[1])
    sizes = [len(structure) for structure in structures]
    counts = [len(part) for part in shifts]
    starts = np.cumsum([0, *sizes[:-1]])
    edge_index = np.concatenate(edges, axis=1) + np.repeat(starts, counts)
    shift = np.concatenate(shifts)
    positions = np.concatenate([structure.positions for structure in structures])
    distance = _distances(positions, edge_index, shift)
    if (distance < MIN_DISTANCE).any():
        ends = np.cumsum(counts)
        index = int(np.searchsorted(ends, int((distance < MIN_DISTANCE).argmax()), side="right"))
        own = distance[ends[index] - counts[index] : ends[index]]
        raise ValueError(f"structure {index}: {_overlap(edges[index], own, MIN_DISTANCE)}")
    cells = np.array([np.asarray(structure.cell) for structure in structures])

    def put(array: NDArray, kind: torch.dtype) -> Tensor:
        # From ordinary memory; the driver has its own copy before the call returns.
        return torch.as_tensor(array).to(kind).to(device, non_blocking=True)

    return Graph(
        positions=put(positions, dtype),
        numbers=put(np.concatenate([structure.numbers for structure in structures]), torch.long),
        edge_index=put(edge_index, torch.long),
        shifts=put(shift, dtype),
        cell=put(cells, dtype) if cells.any() else None,
        batch=put(np.repeat(np.arange(len(sizes)), sizes), torch.long),
        num_graphs=len(sizes),
    )


def _search(
    positions: NDArray[np.float64], cutoff: float, cell: ArrayLike | None, pbc: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Source and centre (2, E) of every pair, and the Cartesian shift (E, 3) of the source; refuses bad input."""
    if positions.ndim != 2 or positions.shape[1] != 3 or len(positions) == 0:
        raise ValueError(f"neighbour list: positions have shape {positions.shape}, expected (N, 3) with N > 0")
    if not np.isfinite(cutoff) or cutoff <= 0:
        raise ValueError(f"neighbour list: the cutoff must be positive, got {cutoff}")
    finite = np.isfinite(positions)
    if not finite.all():
        bad = int((~finite.all(axis=1)).argmax())
        raise ValueError(f"neighbour list: the position of atom {bad} is not finite: {positions[bad]}")
    periodic = np.broadcast_to(np.asarray(pbc, dtype=bool), 3)
    lattice = _search_cell(cell, periodic)
    box, origin = _enclosing_box(positions, lattice, periodic)
    centre, source, image = matscipy_list(
        "ijS", positions=positions, cell=box, cell_origin=origin, pbc=periodic, cutoff=float(cutoff)
    )
    edges = np.array([source, centre], dtype=np.int64)
    return edges, np.asarray(image, dtype=np.float64).reshape(-1, 3) @ lattice


def _search_cell(cell: ArrayLike | None, periodic: NDArray[np.bool_]) -> NDArray[np.float64]:
    from ase.geometry import complete_cell

    lattice = np.zeros((3, 3)) if cell is None else np.array(cell, dtype=np.float64)
    if lattice.shape != (3, 3) or not np.isfinite(lattice).all():
        raise ValueError(f"neighbour list: the cell must be a finite 3x3 matrix, got {lattice.tolist()}")
    # The search box of the open directions is irrelevant; only periodic vectors define images.
    lattice[~periodic] = 0.0
    lengths = np.linalg.norm(lattice[periodic], axis=1)
    area = np.sqrt(max(np.linalg.det(lattice[periodic] @ lattice[periodic].T), 0.0)) if periodic.any() else 1.0
    if (lengths == 0).any() or area < 1e-6 * np.prod(lengths):
        raise ValueError(
            "neighbour list: the periodic lattice vectors have no volume "
            f"(pbc {periodic.tolist()}, cell {np.asarray(cell).tolist()}); set the cell or switch pbc off"
        )
    return complete_cell(lattice)


def _enclosing_box(
    positions: NDArray[np.float64], lattice: NDArray[np.float64], periodic: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Stretch the open directions over all atoms, which keeps matscipy's search linear in their number."""
    fractional = positions @ np.linalg.inv(lattice)
    low = np.where(periodic, 0.0, fractional.min(axis=0) - 0.5)
    stretch = np.where(periodic, 1.0, fractional.max(axis=0) + 0.5 - low)
    return lattice * stretch[:, None], low @ lattice


def _distances(
    positions: NDArray[np.float64], edges: NDArray[np.int64], shifts: NDArray[np.float64]
) -> NDArray[np.float64]:
    source, centre = edges
    vectors = positions[source] - positions[centre] + shifts
    return np.sqrt(np.einsum("ea,ea->e", vectors, vectors))


def _overlap(edges: NDArray[np.int64], distance: NDArray[np.float64], min_distance: float) -> ValueError:
    """The error for the shortest of a structure's edges."""
    edge = int(distance.argmin())
    return ValueError(
        f"neighbour list: atoms {edges[1, edge]} and {edges[0, edge]} are {distance[edge]:.3g} "
        f"Angstrom apart (limit {min_distance}); remove the duplicate or check the units"
    )
