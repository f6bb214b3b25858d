"""Time and memory of AlphaNet and MACE on the same structures, side by side in one run.

    python benchmarks/alphanet.py [--device cpu] [--dtype float32] [--repeats 7] [--compile] [--out table.csv]

Work: 8 molecules of 10 atoms. Tasks: energy; energy and forces; gradient of an energy-and-force loss in the
parameters; gradient of a loss that also holds one Hessian-vector product. Times are the smallest of the repeats, taken
in turn for all models so that a change of load hits all alike; on a CPU they are processor times of one thread.
Compare the ratios of one run, never times of different runs.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable

import torch
from ase.build import molecule

from hint_plugins.models import Graph, energy_and_forces, graph_from_atoms
from hint_plugins.models.alphanet import AlphaNet

CUTOFF = 5.0
NUMBERS = (1, 6, 7, 8)
PUBLISHED_SIZE = {"num_layers": 4, "hidden_channels": 128, "num_radial": 64, "main_chi1": 32, "mp_chi1": 32, "chi2": 8}


class MaceEnergy(torch.nn.Module):
    """A MACE model behind the energy-model protocol; its own force path is not used."""

    def __init__(self, hidden: str, layers: int = 2) -> None:
        super().__init__()
        import mace  # noqa: F401  (lets e3nn load its constants)
        import numpy as np
        from e3nn import o3
        from mace.modules import MACE, RealAgnosticInteractionBlock, RealAgnosticResidualInteractionBlock

        self.cutoff = CUTOFF
        self.register_buffer("row", torch.zeros(119, dtype=torch.long))
        self.row[list(NUMBERS)] = torch.arange(len(NUMBERS))
        self.mace = MACE(
            r_max=CUTOFF,
            num_bessel=8,
            num_polynomial_cutoff=5,
            max_ell=3,
            interaction_cls=RealAgnosticResidualInteractionBlock,
            interaction_cls_first=RealAgnosticInteractionBlock,
            num_interactions=layers,
            num_elements=len(NUMBERS),
            hidden_irreps=o3.Irreps(hidden),
            MLP_irreps=o3.Irreps("16x0e"),
            atomic_energies=np.zeros(len(NUMBERS)),
            avg_num_neighbors=9.0,
            atomic_numbers=list(NUMBERS),
            correlation=3,
            gate=torch.nn.functional.silu,
        )

    def forward(self, graph: Graph) -> torch.Tensor:
        one_hot = torch.nn.functional.one_hot(self.row[graph.numbers], len(NUMBERS))
        count = torch.bincount(graph.batch_index, minlength=graph.num_graphs)
        data = {
            "positions": graph.positions,
            "node_attrs": one_hot.to(graph.positions.dtype),
            "edge_index": graph.edge_index,
            "shifts": graph.shifts,
            "unit_shifts": graph.shifts,
            "cell": graph.positions.new_zeros(3 * graph.num_graphs, 3),
            "batch": graph.batch_index,
            "ptr": torch.cat([count.new_zeros(1), count.cumsum(0)]),
        }
        return self.mace(data, compute_force=False)["energy"]


def tasks(model: torch.nn.Module, graph: Graph) -> dict[str, Callable[[], object]]:
    """The four pieces of work."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    probe = torch.randn_like(graph.positions)

    def loss(with_hessian: bool) -> torch.Tensor:
        there = graph.with_positions(graph.positions.clone().requires_grad_())
        energy, forces = energy_and_forces(model, there, create_graph=True)
        total = energy.square().sum() + forces.square().sum()
        if with_hessian:
            product = torch.autograd.grad(-(forces * probe).sum(), there.positions, create_graph=True)[0]
            total = total + product.square().sum()
        return total

    def energy() -> None:
        with torch.no_grad():
            model(graph)

    return {
        "energy": energy,
        "forces": lambda: energy_and_forces(model, graph),
        "force loss": lambda: torch.autograd.grad(loss(False), parameters, allow_unused=True),
        "HVP loss": lambda: torch.autograd.grad(loss(True), parameters, allow_unused=True),
    }


def clock(device: str) -> float:
    """Seconds of work so far."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--copies", type=int, default=4, help="of each of the two molecules")
    parser.add_argument("--compile", action="store_true", help="also time torch.compile of the smooth network")
    parser.add_argument("--out", help="write the table as CSV")
    options = parser.parse_args()
    if options.device == "cpu":
        torch.set_num_threads(1)
    dtype = getattr(torch, options.dtype)
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    structures = [molecule(name) for name in ("CH3COCH3", "CH3CH2NH2") * options.copies]
    for seed, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=seed)
    graph = graph_from_atoms(structures, CUTOFF, device=options.device, dtype=dtype)

    models: dict[str, torch.nn.Module] = {
        "AlphaNet smooth 4x128": AlphaNet(num_layers=4, hidden_channels=128, elements=NUMBERS),
        "AlphaNet square 4x128": AlphaNet(variant="square", **PUBLISHED_SIZE),
        "MACE 128x0e": MaceEnergy("128x0e"),
        "MACE 128x0e+128x1o": MaceEnergy("128x0e+128x1o"),
    }
    if options.compile:
        models["AlphaNet smooth compiled"] = torch.compile(models["AlphaNet smooth 4x128"], dynamic=False)  # type: ignore[assignment]
    work = {name: tasks(model.to(options.device, dtype), graph) for name, model in models.items()}
    if options.compile:
        # A compiled graph has no second derivative.
        work["AlphaNet smooth compiled"] = {
            task: work["AlphaNet smooth compiled"][task] for task in ("energy", "forces")
        }
    best: dict[tuple[str, str], float] = {}
    for repeat in range(options.repeats + 1):
        for name, pieces in work.items():
            for task, run in pieces.items():
                start = clock(options.device)
                run()
                if repeat:
                    seconds = clock(options.device) - start
                    best[name, task] = min(seconds, best.get((name, task), float("inf")))
                else:
                    clock(options.device)
    columns = ["energy", "forces", "force loss", "HVP loss"]
    rows = []
    for name, model in models.items():
        parameters = sum(p.numel() for p in model.parameters())
        seconds = [best.get((name, task), float("nan")) for task in columns]
        ratios = [s / best["AlphaNet smooth 4x128", task] for s, task in zip(seconds, columns, strict=True)]
        rows.append([name, parameters, *(f"{s:.4f}" for s in seconds), *(f"{r:.2f}" for r in ratios)])
    header = ["model", "parameters", *(f"{c} [s]" for c in columns), *(f"{c} [ratio]" for c in columns)]
    print(f"{graph.positions.shape[0]} atoms, {graph.edge_index.shape[1]} edges, {options.device}, {options.dtype}")
    for row in [header, *rows]:
        print(f"{row[0]:26s}" + "".join(f"{cell!s:>19s}" for cell in row[1:]))
    if options.out:
        with open(options.out, "w", newline="") as file:
            csv.writer(file).writerows([header, *rows])


if __name__ == "__main__":
    sys.exit(main())
