"""Hessian metrics over a validation set, summed over batches and processes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.distributed as dist
from ase import Atoms

from hint_plugins.curvature.engines import Engine
from hint_plugins.curvature.full import full_hessians
from hint_plugins.labels.hessian_label import MATRICES, HessianLabel
from hint_plugins.objective.loss import LossKind, structure_losses
from hint_plugins.objective.metrics import NotFiniteError, hessian_errors
from hint_plugins.structures.frozen import frozen, only
from hint_plugins.training.protocol import LabelledGraphs

WHOLE = ("hessian_mae", "eigenvalue_mae", "frequency_mae_cm1", "asymmetry")


class HessianValidation:
    """Accumulates errors batch by batch.

    Parameters
    ----------
    engine
        How products are made.
    whole
        Compute whole Hessians too, of structures with full labels or blocks.
    max_whole
        At most so many of them per process.
    loss, huber_delta
        Loss function that ``hessian_loss`` reports (unweighted).
    """

    def __init__(
        self,
        engine: Engine,
        *,
        whole: bool = True,
        max_whole: int = 64,
        loss: LossKind = "mse",
        huber_delta: float = 1.0,
    ) -> None:
        self.engine, self.whole, self.max_whole = engine, whole, max_whole
        self.loss, self.huber_delta = loss, huber_delta
        self.sums = {"hessian_loss": 0.0, "hvp_mae": 0.0, "structures": 0.0, "matrices": 0.0}
        self.sums |= dict.fromkeys(WHOLE, 0.0)

    def update_all(self, loader: Iterable[LabelledGraphs]) -> None:
        """Add every batch of labelled structures; see :meth:`update`."""
        for graphs in loader:
            self.update(graphs)

    def update(self, graphs: LabelledGraphs) -> None:
        """Add a batch of labelled structures.

        Raises
        ------
        NotFiniteError
            Naming the first structure whose predicted products are not finite.
        """
        probes, reference = graphs.probes, graphs.products
        products = self.engine(graphs.view, probes, create_graph=False).detach()
        self._require_finite(graphs, products)
        for name, kind in (("hessian_loss", self.loss), ("hvp_mae", "mae")):
            values = structure_losses(products, reference, graphs.batch, graphs.num_atoms, kind, self.huber_delta)
            self.sums[name] += float(values.sum())
        self.sums["structures"] += graphs.num_graphs
        if self.whole and self.sums["matrices"] < self.max_whole:
            self._add_whole(graphs)

    def _require_finite(self, graphs: LabelledGraphs, products: torch.Tensor) -> None:
        lost = graphs.batch[~products.isfinite().all(dim=-1).all(dim=0)]
        if len(lost):
            first = int(lost.min())
            formula = Atoms(graphs.numbers[graphs.batch == first].cpu().numpy()).get_chemical_formula()
            raise NotFiniteError(
                f"the model's Hessian is not finite for labelled structure {int(self.sums['structures']) + first} "
                f"({formula}): its parameters or this structure's derivatives have diverged"
            )

    def _add_whole(self, graphs: LabelledGraphs) -> None:
        labels = [
            HessianLabel.from_info(stored, size, "hessian")
            for stored, size in zip(graphs.stored, graphs.sizes, strict=True)
        ]
        if not any(label is not None and label.kind in MATRICES for label in labels):
            return
        hessians = full_hessians(graphs.view, graphs.sizes, self.engine)
        numbers = graphs.numbers.cpu().split(list(graphs.sizes))
        positions = graphs.view.positions.detach().cpu().split(list(graphs.sizes))
        for k, label in enumerate(labels):
            if label is None or label.kind not in MATRICES or self.sums["matrices"] >= self.max_whole:
                continue
            pbc = np.asarray(graphs.stored[k].get("hessian_pbc", (0, 0, 0))).reshape(-1).astype(bool)
            atoms = Atoms(numbers[k].numpy(), positions[k].double().numpy(), pbc=pbc)
            if "hessian_free" in graphs.stored[k]:
                atoms.set_constraint(frozen(np.asarray(graphs.stored[k]["hessian_free"]).reshape(-1, 3).astype(bool)))
            predicted = hessians[k].double().cpu().numpy()
            known = only(atoms, label.known) if label.kind == "block" else atoms
            for name, value in hessian_errors(predicted, label.matrix(), known).items():
                self.sums[name] += value
            self.sums["matrices"] += 1

    def compute(self) -> dict[str, float]:
        """Means over all structures of all processes; empty when no structure was labelled."""
        sums = dict(self.sums)
        if dist.is_available() and dist.is_initialized():
            device = "cuda" if dist.get_backend() == "nccl" else "cpu"
            packed = torch.tensor(list(sums.values()), dtype=torch.float64, device=device)
            dist.all_reduce(packed)
            sums = dict(zip(sums, packed.tolist(), strict=True))
        out = {}
        if sums["structures"]:
            out = {name: sums[name] / sums["structures"] for name in ("hessian_loss", "hvp_mae")}
        if sums["matrices"]:
            out |= {name: sums[name] / sums["matrices"] for name in WHOLE}
        return out
