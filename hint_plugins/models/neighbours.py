"""Complete neighbour lists, for molecules and for crystals of any cell, as batches.

The search is matscipy's on the CPU and vesin's on a GPU (package ``vesin-torch``; without it, the list is
made on the CPU and moved). Both find every image within the cutoff, whether or not atoms lie inside the cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
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
    device: torch.device | str = "cpu",
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
    device : torch.device
        Where to search; the result is left there.

    Returns
    -------
    edge_index : (2, E) long tensor
        Row 0 the source j, row 1 the centre i, sorted by centre.
    shifts : (E, 3) float64 tensor
        Cartesian shift of the source, Angstrom.

    Raises
    ------
    ValueError
        For non-finite positions or cell, a periodic cell without volume, atoms on top of each other, a cutoff
        that is not positive.
    """
    pos = np.asarray(positions, dtype=np.float64)
    if pos.ndim != 2 or pos.shape[1] != 3 or len(pos) == 0:
        raise ValueError(f"neighbour list: positions have shape {pos.shape}, expected (N, 3) with N > 0")
    if not np.isfinite(cutoff) or cutoff <= 0:
        raise ValueError(f"neighbour list: the cutoff must be positive, got {cutoff}")
    bad = np.flatnonzero(~np.isfinite(pos).all(axis=1))
    if len(bad):
        raise ValueError(f"neighbour list: the position of atom {bad[0]} is not finite: {pos[bad[0]]}")
    periodic = np.broadcast_to(np.asarray(pbc, dtype=bool), 3)
    lattice = _search_cell(cell, periodic)
    centre, source, offset = _search(pos, lattice, periodic, cutoff, torch.device(device))
    edge_index = torch.stack([source, centre])
    shifts = offset @ torch.as_tensor(lattice, device=offset.device)
    _refuse_overlap(torch.as_tensor(pos, device=offset.device), edge_index, shifts, min_distance)
    return edge_index, shifts


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
        Of the returned tensors. The search itself is always in double precision.

    Raises
    ------
    ValueError
        As :func:`neighbour_list`, naming the structure's place in the sequence; also for an empty sequence or
        a structure without atoms.
    """
    structures = cast("list[Atoms]", [atoms] if hasattr(atoms, "get_positions") else list(atoms))
    graphs = []
    for index, structure in enumerate(structures):
        cell = np.asarray(structure.cell)
        try:
            edge_index, shifts = neighbour_list(
                structure.positions,
                cutoff,
                cell,
                structure.pbc,
                device=device,
            )
        except ValueError as error:
            raise ValueError(f"structure {index}: {error}") from None
        where = {"device": device}
        graphs.append(
            Graph(
                positions=torch.as_tensor(structure.positions, dtype=torch.float64, **where),
                numbers=torch.as_tensor(structure.numbers, dtype=torch.long, **where),
                edge_index=edge_index,
                shifts=shifts,
                cell=torch.as_tensor(cell, dtype=torch.float64, **where)[None] if cell.any() else None,
            )
        )
    return Graph.concatenate(graphs).to(dtype=dtype)


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


def _search(
    positions: NDArray[np.float64],
    lattice: NDArray[np.float64],
    periodic: NDArray[np.bool_],
    cutoff: float,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor]:
    """Centre, source and integer image offset of every pair."""
    if device.type == "cuda":
        try:
            from vesin.torch import NeighborList
        except ImportError:
            pass
        else:
            i, j, s = NeighborList(cutoff, full_list=True, sorted=True).compute(
                torch.as_tensor(positions, device=device),
                torch.as_tensor(lattice * periodic[:, None], device=device),
                torch.as_tensor(periodic.copy(), device=device),
                "ijS",
            )
            return i.long(), j.long(), s.double()
    from matscipy.neighbours import neighbour_list as matscipy_list

    box, origin = _enclosing_box(positions, lattice, periodic)
    i, j, s = matscipy_list(
        "ijS", positions=positions, cell=box, cell_origin=origin, pbc=periodic, cutoff=float(cutoff)
    )
    offset = np.asarray(s, dtype=np.float64).reshape(-1, 3)
    return (
        torch.as_tensor(np.asarray(i, dtype=np.int64), device=device),
        torch.as_tensor(np.asarray(j, dtype=np.int64), device=device),
        torch.as_tensor(offset, device=device),
    )


def _enclosing_box(
    positions: NDArray[np.float64], lattice: NDArray[np.float64], periodic: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Stretch the open directions over all atoms, which keeps matscipy's search linear in their number."""
    fractional = positions @ np.linalg.inv(lattice)
    low = np.where(periodic, 0.0, fractional.min(axis=0) - 0.5)
    stretch = np.where(periodic, 1.0, fractional.max(axis=0) + 0.5 - low)
    return lattice * stretch[:, None], low @ lattice


def _refuse_overlap(positions: Tensor, edge_index: Tensor, shifts: Tensor, min_distance: float) -> None:
    if edge_index.shape[1] == 0:
        return
    source, centre = edge_index
    distance = (positions[source] - positions[centre] + shifts).norm(dim=1)
    shortest, edge = distance.min(dim=0)
    if shortest < min_distance:
        raise ValueError(
            f"neighbour list: atoms {int(centre[edge])} and {int(source[edge])} are {float(shortest):.3g} "
            f"Angstrom apart (limit {min_distance}); remove the duplicate or check the units"
        )
