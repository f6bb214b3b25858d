"""The cheapest way to the Hessian products of the labelled structures of a training batch.

Three force graphs may serve: copies that rode in the host's own forward pass (finite differences), the host's whole
batch (engines that differentiate one force graph), or a forward pass of the labelled structures alone.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hint_plugins.curvature.engines import Engine, FiniteDifference, ForceView
from hint_plugins.training.protocol import LabelledGraphs

#: Cost of one product and its backward pass, in energy-and-force steps of the same atoms.
PRODUCT = 1.4
#: Atoms whose energy-and-force step costs as much as what a pass costs whatever its size: measured on one core of a CPU
#: with a MACE of 16 channels, and estimated elsewhere (thousands of kernel launches; a few microseconds for an atom).
FIXED = {"cpu": 20}
FIXED_ELSEWHERE = 500


def host_graph_serves(labelled: int, atoms: int, probes: int, device: torch.device) -> bool:
    """Whether products through the host's graph cost less than a forward pass of the labelled atoms of their own.

    Parameters
    ----------
    labelled, atoms
        Atoms with labels, and all atoms of the host's batch.
    probes
        Products of each structure.
    device
        Where the work runs: accelerators spend most of a small step on launching kernels.
    """
    return PRODUCT * probes * (atoms - labelled) <= labelled + FIXED.get(device.type, FIXED_ELSEWHERE)


def wanted_positions(engine: Engine, graphs: LabelledGraphs, probes: Tensor) -> Tensor | None:
    """Positions (r, n, 3) whose forces :func:`hessian_products` will need; None for engines that differentiate.

    Parameters
    ----------
    engine
        How products are made.
    graphs
        Labelled structures of a batch that the host has yet to evaluate.
    probes
        (m, n, 3).
    """
    if not isinstance(engine, FiniteDifference):
        return None
    asked: list[Tensor] = []

    def note(positions: Tensor) -> Tensor:
        asked.append(positions)
        return torch.zeros_like(positions)

    here = graphs.view.positions
    engine(ForceView(here, note, (here, here)), probes, create_graph=False)
    (positions,) = asked
    return positions


def hessian_products(
    engine: Engine, graphs: LabelledGraphs, probes: Tensor, wanted: Tensor | None = None, create_graph: bool = True
) -> Tensor:
    """Products (m, n, 3) in eV/A^2.

    Parameters
    ----------
    engine, graphs, probes
        As in :func:`wanted_positions`; the host has evaluated the batch.
    wanted
        What that function gave for the same engine, batch and probes, if it was called: the host's forces at these
        very positions are used, should it have made them.
    create_graph
        Whether the products will be differentiated.
    """
    view, differences = graphs.view, isinstance(engine, FiniteDifference)
    if graphs.host is not None and graphs.atoms is not None and view.graph is None:
        positions, forces = graphs.host
        if differences or host_graph_serves(len(graphs.atoms), len(positions), len(probes), positions.device):
            view = replace(view, graph=(positions, forces.index_select(0, graphs.atoms)))
    if differences and wanted is not None and graphs.wanted is not None and graphs.wanted[0] is wanted:
        made, alone = graphs.wanted[1], view.forces_at
        view = replace(view, forces_at=lambda at: made if at.shape == made.shape else alone(at))
    products = engine(view, probes, create_graph)
    if graphs.atoms is not None and products.shape[1] != len(graphs.atoms):
        products = products.index_select(1, graphs.atoms)
    return products
