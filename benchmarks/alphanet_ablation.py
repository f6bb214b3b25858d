"""Which choices of the smooth AlphaNet earn their place: accuracy and cost with each one undone.

    python benchmarks/alphanet_ablation.py [--steps 400] [--seeds 2] [--only NAME ...] [--out table.csv]

Data: rattled small molecules with energies, forces and Hessians of GFN1-xTB (tblite), made once and kept in --data.
Each network (2 layers, 32 channels) is trained on energies and forces (E/F), and with one Hessian product a structure
in addition (E/F/H), for equal steps, and tested on structures it has not seen. Cost is the processor time of a step.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from torch import Tensor, nn
from tqdm import tqdm

from hint_plugins.models import Graph, energy_and_forces, graph_from_atoms
from hint_plugins.models.alphanet import AlphaNet, basis, smooth
from hint_plugins.models.alphanet.layers import layer_norm, mlp, neighbour_sum

MOLECULES = ("CH3OH", "C2H4", "H2CO", "CH3CHO", "HCOOH", "NH3", "C2H6", "H2O")
SIZE: dict[str, Any] = {"num_layers": 2, "hidden_channels": 32, "cutoff": 4.0, "main_chi1": 8, "mp_chi1": 8}
SMOOTH = SIZE | {"chi2": 4, "num_radial": 8, "frame_channels": 16, "elements": (1, 6, 7, 8), "avg_neighbours": 5.0}
PUBLISHED = SIZE | {"chi2": 4, "num_radial": 8, "head": 8, "hidden_channels_chi": 24}

# The networks: how to build one, and what to replace in the module of the smooth network while it is used.


def changed(edit: Callable[[AlphaNet], None]) -> Callable[[], AlphaNet]:
    def make() -> AlphaNet:
        model = AlphaNet(**SMOOTH)
        edit(model)
        return model

    return make


def only_invariants(*kept: int) -> Callable[[], AlphaNet]:
    """Keep some of [a1, a3, b1, b3, a2^2, a2 b2, b2^2] in the descriptor."""

    def edit(model: AlphaNet) -> None:
        linear, mask = model.body.descriptor.invariants, torch.zeros(7, SMOOTH["frame_channels"])
        mask[list(kept)] = 1.0
        whole = linear.forward
        linear.forward = lambda x: whole(x * mask.flatten())

    return changed(edit)


def silence(*names: str) -> Callable[[], AlphaNet]:
    """Fix parameters at zero."""

    def edit(model: AlphaNet) -> None:
        for name, parameter in model.named_parameters():
            if name.endswith(names):
                nn.init.zeros_(parameter).requires_grad_(False)

    return changed(edit)


def hidden_filters(model: AlphaNet) -> None:
    for layer in model.body.layers:
        layer.edge_direction = mlp(32, 32, layer.edge_direction.out_features)


def phase(delta: float) -> dict[str, Any]:
    return {"soften": lambda x, dim: x * torch.rsqrt(delta**2 + x.square().sum(dim, keepdim=True))}


def aggregate_norm(eps: float) -> dict[str, Any]:
    def normed(values: Tensor, centre: Tensor, n: int) -> Tensor:
        total = neighbour_sum(values, centre, n)
        return layer_norm(total, eps) if values.ndim == 2 else total

    return {"neighbour_sum": normed}


def squared_length(self: smooth.SmoothLayer, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor | None]:
    with mock.patch.object(smooth.torch, "sqrt", lambda x: x):
        return TRANSITION(self, scalars, vectors)


TRANSITION = smooth.SmoothLayer.transition
PLAIN = changed(lambda model: None)
NETWORKS: dict[str, tuple[Callable[[], AlphaNet], dict[str, Any]]] = {
    "smooth": (PLAIN, {}),
    "published: square": (lambda: AlphaNet(variant="square", **PUBLISHED), {}),
    "published: bessel": (lambda: AlphaNet(variant="bessel", **PUBLISHED), {}),
    "1 cosine envelope": (PLAIN, {"envelope": basis.cosine_cutoff}),
    "2 no phase messages": (silence("phase_message.rotation.weight"), {}),
    "3 no frame normal (a1, b1 only)": (only_invariants(0, 2), {}),
    "3 no product of both ends": (only_invariants(0, 1, 2, 3, 4, 6), {}),
    "4 square instead of sqrt(1+p^2)": (PLAIN, {"transition": squared_length}),
    "5 phase norm delta 0.1": (PLAIN, phase(0.1)),
    "5 phase norm delta 0.01": (PLAIN, phase(0.01)),
    "5 no phase state": (silence("phase_readout.weight"), {}),
    "6 norm on sums, eps 1e-5": (PLAIN, aggregate_norm(1e-5)),
    "6 norm on sums, eps 1": (PLAIN, aggregate_norm(1.0)),
    "no node terms in descriptor": (silence("descriptor.ends.weight"), {}),
    "hidden layer in filters": (changed(hidden_filters), {}),
}


def replaced(stack: ExitStack, changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        owner = {"envelope": basis, "transition": smooth.SmoothLayer}.get(name, smooth)
        stack.enter_context(mock.patch.object(owner, name, value))


# data


def label(atoms: Atoms) -> dict[str, np.ndarray]:
    """Energy, forces and Hessian by central differences of GFN1-xTB gradients."""
    from tblite.ase import TBLite

    def forces(positions: np.ndarray) -> np.ndarray:
        atoms.positions = positions
        return atoms.get_forces()

    atoms.calc = TBLite(method="GFN1-xTB", verbosity=0, accuracy=0.1)
    start, step = atoms.positions.copy(), 0.005
    energy, gradient = atoms.get_potential_energy(), -forces(start)
    columns = []
    for k in range(start.size):
        shift = np.zeros(start.size)
        shift[k] = step
        shift = shift.reshape(-1, 3)
        columns.append((forces(start - shift) - forces(start + shift)).ravel() / (2 * step))
    hessian = np.array(columns)
    return {
        "numbers": atoms.numbers,
        "positions": start,
        "energy": np.array(energy),
        "forces": -gradient,
        "hessian": 0.5 * (hessian + hessian.T),
    }


def dataset(path: Path, train: int, test: int) -> dict[str, list[dict[str, np.ndarray]]]:
    """Structures by split; ``train`` and ``test`` of each molecule."""
    if not path.exists():
        flat = {}
        for m, name in enumerate(tqdm(MOLECULES, desc="labels")):
            for k in range(train + test):
                atoms = molecule(name)
                atoms.rattle(0.08, seed=100 * m + k)
                split = "train" if k < train else "test"
                flat |= {f"{split}/{name}{k}/{field}": v for field, v in label(atoms).items()}
        np.savez(path, **flat)
    sets: dict[str, dict[str, dict[str, np.ndarray]]] = {"train": {}, "test": {}}
    for key, value in np.load(path).items():
        split, name, field = key.split("/")
        sets[split].setdefault(name, {})[field] = value
    return {split: list(items.values()) for split, items in sets.items()}


class Batch:
    """Structures with their labels as tensors."""

    def __init__(self, items: list[dict[str, np.ndarray]]) -> None:
        atoms = [Atoms(numbers=i["numbers"], positions=i["positions"]) for i in items]
        self.graph: Graph = graph_from_atoms(atoms, SIZE["cutoff"], dtype=torch.float32)
        self.energy = torch.tensor([float(i["energy"]) for i in items], dtype=torch.float32)
        self.forces = torch.tensor(np.concatenate([i["forces"] for i in items]), dtype=torch.float32)
        self.sizes = torch.tensor([len(a) for a in atoms])
        self.hessian = torch.block_diag(*(torch.tensor(i["hessian"], dtype=torch.float32) for i in items))


# training


def products(model: AlphaNet, batch: Batch, probes: Tensor, create: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
    graph = batch.graph.with_positions(batch.graph.positions.clone().requires_grad_())
    energy, forces = energy_and_forces(model, graph, create_graph=True)
    found = [
        torch.autograd.grad(-(forces * z).sum(), graph.positions, create_graph=create, retain_graph=True)[0]
        for z in probes
    ]
    return energy, forces, found


def train(model: AlphaNet, items: list[dict[str, np.ndarray]], steps: int, hessian: bool, seed: int) -> float:
    """Train in place; processor time of a step in seconds."""
    rng = np.random.default_rng(seed)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=steps, pct_start=0.1)
    batches = [Batch([items[k] for k in part]) for part in np.array_split(rng.permutation(len(items)), 8)]
    start = time.process_time()
    for step in range(steps):
        batch = batches[step % len(batches)]
        count = 1 if hessian else 0
        probes = torch.as_tensor(rng.normal(size=(count, *batch.forces.shape)), dtype=torch.float32)
        energy, forces, found = products(model, batch, probes, create=True)
        loss = 4 * ((energy - batch.energy) / batch.sizes).square().mean()
        loss = loss + 100 * (forces - batch.forces).square().mean()
        for z, product in zip(probes, found, strict=True):
            wanted = (batch.hessian @ z.flatten()).view(-1, 3)
            loss = loss + 0.1 * (product - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 100.0)
        optimiser.step()
        schedule.step()
    return (time.process_time() - start) / steps


def errors(model: AlphaNet, items: list[dict[str, np.ndarray]]) -> tuple[float, float, float]:
    """Mean absolute errors: energy a atom (meV), forces (meV/A), Hessian elements (eV/A^2)."""
    sums = np.zeros(3)
    for item in items:
        batch = Batch([item])
        units = torch.eye(batch.forces.numel()).view(-1, *batch.forces.shape)
        energy, forces, rows = products(model, batch, units, create=False)
        found = torch.stack([r.flatten() for r in rows])
        sums += [
            1000 * ((energy - batch.energy) / batch.sizes).abs().mean().item(),
            1000 * (forces - batch.forces).abs().mean().item(),
            (found - batch.hessian).abs().mean().item(),
        ]
    return tuple(sums / len(items))


def reference(model: AlphaNet, items: list[dict[str, np.ndarray]]) -> None:
    """Scale from the forces, shifts from a least-squares fit of the energies."""
    elements = SMOOTH["elements"]
    counts = np.array([[(i["numbers"] == z).sum() for z in elements] for i in items], dtype=float)
    shift = np.linalg.lstsq(counts, np.array([float(i["energy"]) for i in items]), rcond=None)[0]
    scale = float(np.sqrt(np.mean(np.concatenate([i["forces"].ravel() for i in items]) ** 2)))
    model.set_scale_shift(scale, dict(zip(elements, shift.tolist(), strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=list(NETWORKS), help="default: all")
    parser.add_argument("--each", type=int, nargs=2, default=[8, 4], help="training and test structures of a molecule")
    parser.add_argument("--data", type=Path, default=Path("alphanet_ablation.npz"))
    parser.add_argument("--out", type=Path, help="write the table as CSV")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = dataset(options.data, *options.each)
    header = ["network", "loss", "E [meV/atom]", "F [meV/A]", "H [eV/A^2]", "spread of H", "step [ms]"]
    rows: list[list[str]] = []
    print("".join(f"{h:>18s}" for h in header))
    for name in options.only or NETWORKS:
        make, changes = NETWORKS[name]
        for hessian in (False, True):
            results, seconds = [], []
            for seed in range(options.seeds):
                with ExitStack() as stack:
                    replaced(stack, changes)
                    torch.manual_seed(seed)
                    model = make()
                    reference(model, data["train"])
                    seconds.append(train(model, data["train"], options.steps, hessian, seed))
                    results.append(errors(model, data["test"]))
            mean, spread = np.mean(results, axis=0), np.ptp(np.array(results)[:, 2])
            kind = "E/F/H" if hessian else "E/F"
            figures = [f"{mean[0]:.2f}", f"{mean[1]:.1f}", f"{mean[2]:.4f}", f"{spread:.4f}"]
            rows.append([name, kind, *figures, f"{1000 * min(seconds):.1f}"])
            print(f"{name:34s}" + "".join(f"{cell:>12s}" for cell in rows[-1][1:]), flush=True)
    if options.out:
        with options.out.open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])


if __name__ == "__main__":
    sys.exit(main())
