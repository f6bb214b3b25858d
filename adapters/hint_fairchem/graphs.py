"""fairchem's batch as the core sees it: labelled structures, their forces at any positions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from fairchem.core.datasets.atomic_data import AtomicData
from fairchem.core.models.base import HeadInterface
from torch import Tensor, nn

from hint_fairchem.dataset import DRAWN, TARGET
from hint_plugins.config import ConfigError
from hint_plugins.curvature.engines import ForceView
from hint_plugins.training.protocol import DRAWN_PRODUCTS, GraphBatch, LabelledGraphs


def select(data: AtomicData, keep: Tensor) -> AtomicData:
    """The structures of a batch where ``keep`` (B,) is true, as a batch without targets or autograd graph."""
    atoms = keep[data.batch]
    renumber = torch.cumsum(atoms, 0) - 1
    edges = data.edge_index
    wanted = atoms[edges[1]] if edges.numel() else edges.new_zeros(0, dtype=torch.bool)
    chosen = torch.nonzero(keep).squeeze(1).tolist()
    return AtomicData(
        pos=data.pos.detach()[atoms],
        atomic_numbers=data.atomic_numbers[atoms],
        cell=data.cell.detach()[keep],
        pbc=data.pbc[keep],
        natoms=data.natoms[keep],
        edge_index=renumber[edges[:, wanted]] if edges.numel() else edges,
        cell_offsets=data.cell_offsets[wanted],
        nedges=data.nedges[keep],
        charge=data.charge[keep],
        spin=data.spin[keep],
        fixed=data.fixed[atoms],
        tags=data.tags[atoms],
        batch=(torch.cumsum(keep, 0) - 1)[data.batch[atoms]],
        sid=[data.sid[i] for i in chosen],
        dataset=[data.dataset[i] for i in chosen] if "dataset" in data else None,
    )


def replicate(data: AtomicData, positions: Tensor) -> AtomicData:
    """``len(positions)`` copies of a batch, one after the other, at positions (r, n, 3)."""
    r, n = positions.shape[:2]
    graphs = data.natoms.numel()

    def shifted(values: Tensor, step: int) -> Tensor:
        offsets = step * torch.arange(r, device=values.device)
        return (values[..., None, :] + offsets[:, None]).flatten(-2)

    return AtomicData(
        pos=positions.reshape(-1, 3),
        atomic_numbers=data.atomic_numbers.repeat(r),
        cell=data.cell.detach().repeat(r, 1, 1),
        pbc=data.pbc.repeat(r, 1),
        natoms=data.natoms.repeat(r),
        edge_index=shifted(data.edge_index, n),
        cell_offsets=data.cell_offsets.repeat(r, 1),
        nedges=data.nedges.repeat(r),
        charge=data.charge.repeat(r),
        spin=data.spin.repeat(r),
        fixed=data.fixed.repeat(r),
        tags=data.tags.repeat(r),
        batch=shifted(data.batch, graphs),
        sid=list(data.sid) * r,
        dataset=list(data.dataset) * r if "dataset" in data else None,
    )


@dataclass
class ForceOutputs:
    """Where a model's outputs hold the forces of each structure.

    Attributes
    ----------
    tasks
        ``(output, property, datasets)`` of every forces task.
    scale
        Factor from raw outputs to eV/A: the tasks' common normaliser.
    """

    tasks: list[tuple[str, str, frozenset[str]]]
    scale: float = 1.0

    def __call__(self, outputs: dict, data: AtomicData) -> Tensor:
        """Raw forces (N, 3): each structure's from the task of its dataset."""
        if len(self.tasks) == 1:
            name, kind, _ = self.tasks[0]
            return outputs[name][kind].view(-1, 3)
        total = torch.zeros_like(data.pos)
        for name, kind, datasets in self.tasks:
            mine = torch.tensor([dataset in datasets for dataset in data.dataset], device=total.device)
            total = torch.where(mine[data.batch][:, None], outputs[name][kind].view(-1, 3), total)
        return total


@dataclass
class Forces:
    """Forces of a batch as a function of positions, by the host's model.

    Attributes
    ----------
    model
        HydraModel or whatever maps ``AtomicData`` to named outputs.
    data
        The structures.
    outputs
        Where the forces are.
    scale
        Factor on the raw forces.
    """

    model: nn.Module
    data: AtomicData
    outputs: ForceOutputs
    scale: float = 1.0
    _heads: list[nn.Module] = field(init=False)

    def __post_init__(self) -> None:
        self._heads = [m for m in self.model.modules() if isinstance(m, HeadInterface)]

    def __call__(self, positions: Tensor) -> Tensor:
        """(r, n, 3) positions to (r, n, 3) forces with their graph."""
        device = positions.device.type
        with torch.enable_grad(), self._graph_kept(), torch.autocast(device, enabled=False), quiet(self.model):
            data = replicate(self.data, positions)
            return (self.scale * self.outputs(self.model(data), data)).view_as(positions)

    @contextlib.contextmanager
    def _graph_kept(self) -> Iterator[None]:
        """Heads keep the graph of their forces only in training mode: put them there, children excluded."""
        modes = [head.training for head in self._heads]
        for head in self._heads:
            head.training = True
        try:
            yield
        finally:
            for head, mode in zip(self._heads, modes, strict=True):
                head.training = mode


@contextlib.contextmanager
def quiet(model: nn.Module) -> Iterator[None]:
    """Run the model without the hook that adds the Hessian loss to its outputs."""
    before = getattr(model, "hint_quiet", False)
    model.hint_quiet = True  # type: ignore[assignment]
    try:
        yield
    finally:
        model.hint_quiet = before  # type: ignore[assignment]


def joined(drawn: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Drawn labels of several structures, concatenated along atoms.

    Raises
    ------
    ConfigError
        If a plugin drew a label for some of them only.
    """
    names = list(dict.fromkeys(name for labels in drawn for name in labels))
    for name in names:
        count = sum(name in labels for labels in drawn)
        if count != len(drawn):
            raise ConfigError(f"label {name!r} was drawn for {count} of {len(drawn)} labelled structures of a batch")
    return {name: torch.cat([labels[name] for labels in drawn]) for name in names}


def labelled_graphs(
    model: nn.Module,
    data: AtomicData,
    outputs: ForceOutputs,
    *,
    scale: float = 1.0,
    forces: Tensor | None = None,
    stored: Sequence[dict] = (),
) -> LabelledGraphs | None:
    """The labelled structures of a batch as a batch of their own, or None when there is none.

    Parameters
    ----------
    model, data, outputs
        Inner model, host batch, and where the model's forces are.
    scale
        Factor from raw forces to the unit of the loss; label products (eV/A^2) are brought to it too.
    forces
        (N, 3) raw forces with their graph, if the model has just been run on ``data``: reused when every
        structure is labelled, so that nothing is computed twice.
    stored
        Stored label of each labelled structure, for whole-Hessian metrics.
    """
    keep = torch.isfinite(data[TARGET].view(-1))
    chosen = keep.tolist()
    if not any(chosen):
        return None
    sub = select(data, keep)
    view = ForceView(sub.pos, Forces(model, sub, outputs, scale))
    if all(chosen) and forces is not None and data.pos.requires_grad and forces.requires_grad:
        view.graph = data.pos, scale * forces
    labels = joined([drawn for drawn in data[DRAWN] if drawn])
    if DRAWN_PRODUCTS in labels:
        labels[DRAWN_PRODUCTS] = labels[DRAWN_PRODUCTS] * (scale / outputs.scale)
    sizes = sub.natoms.tolist()
    return LabelledGraphs(
        view=view,
        sizes=sizes,
        batch=sub.batch,
        num_atoms=sub.natoms.to(sub.pos.dtype),
        weights=torch.ones(len(sizes), dtype=sub.pos.dtype, device=sub.pos.device),
        numbers=sub.atomic_numbers,
        labels=labels,
        stored=stored,
    )


def graph_batch(model: nn.Module, data: AtomicData, outputs: ForceOutputs, predictions: dict) -> GraphBatch:
    """A training batch that the host has evaluated."""
    forces = outputs(predictions, data)
    return GraphBatch(
        positions=data.pos,
        forces=forces,
        batch=data.batch,
        num_graphs=data.natoms.numel(),
        labelled=labelled_graphs(model, data, outputs, forces=forces),
    )
