"""Cost of a Hessian-informed training step with MACE, as ratios to the plain energy-and-force step.

    python benchmarks/training_step.py [--out DIR] [--device cuda] [--channels 16] [--batch-size 8]

Every case runs the code of a real training (collate, forward with its copies, engine, loss, backward, optimiser step)
in a process of its own, interleaved with the plain step in rounds; times are medians over rounds. ``one column`` is one
one-hot probe, ``full`` all 3N columns. Shares of labelled structures are averaged over a whole epoch of the sampler.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule

MOLECULES = ("CH3CH2OH", "C2H6", "CH3COOH", "CH3CHO", "C3H8", "CH3OCH3", "CH3NO2", "trans-butane")
ELEMENTS = {"molecules": [1, 6, 7, 8], "crystals": [1, 46]}
ENGINES = ("reverse", "replicate", "vmap", "finite_difference", "finite_difference_one_sided")


def spring_hessian(atoms: Atoms) -> np.ndarray:
    """(3N, 3N) in eV/A^2: springs between all pairs of atoms, at rest; bonds are about as stiff as real ones."""
    r = atoms.get_all_distances(mic=atoms.pbc.any(), vector=True).swapaxes(0, 1)
    square = (r**2).sum(-1) + np.eye(len(atoms))
    blocks = -90 / square[..., None, None] ** 2 * r[..., :, None] * r[..., None, :]
    blocks[np.arange(len(atoms)), np.arange(len(atoms))] = -blocks.sum(1)
    return blocks.transpose(0, 2, 1, 3).reshape(3 * len(atoms), -1)


def crystal() -> Atoms:
    """PdH in the rock-salt structure, 16 atoms."""
    half = 4.09 / 2
    cell = Atoms("PdH", scaled_positions=[[0] * 3, [0.5] * 3], cell=half * (np.ones((3, 3)) - np.eye(3)), pbc=True)
    return cell.repeat(2)


def make_data(count: int, share: float, system: str = "molecules") -> list[Atoms]:
    """Rattled structures at the minimum of a spring potential; ``share`` of them carry its Hessian."""
    rng = np.random.default_rng(0)
    labelled = set(rng.permutation(count)[: max(1, round(share * count))].tolist())
    frames = []
    for k in range(count):
        atoms = crystal() if system == "crystals" else molecule(MOLECULES[k % len(MOLECULES)])
        atoms.positions += 0.03 * rng.standard_normal(atoms.positions.shape)
        atoms.info["REF_energy"] = 0.0
        atoms.arrays["REF_forces"] = np.zeros_like(atoms.positions)
        if k in labelled:
            atoms.info["REF_hessian"] = spring_hessian(atoms).reshape(-1)
        frames.append(atoms)
    return frames


def build(args: argparse.Namespace):
    """A ScaleShiftMACE of common shape and its optimiser."""
    from e3nn import o3
    from mace import modules

    torch.manual_seed(0)
    numbers = ELEMENTS[args.system]
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    model = modules.ScaleShiftMACE(
        r_max=5.0,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=block,
        interaction_cls_first=block,
        num_interactions=2,
        num_elements=len(numbers),
        hidden_irreps=o3.Irreps(f"{args.channels}x0e+{args.channels}x1o"),
        MLP_irreps=o3.Irreps("16x0e"),
        gate=torch.nn.functional.silu,
        atomic_energies=np.zeros(len(numbers)),
        avg_num_neighbors=8.0,
        atomic_numbers=numbers,
        correlation=2,
        radial_type="bessel",
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    ).to(args.device)
    return model, torch.optim.Adam(model.parameters(), lr=1e-4)


class Trainer:
    """The training step of MACE's loop with the adapter's parts."""

    def __init__(self, args: argparse.Namespace, share: float, options: dict) -> None:
        from mace.data import AtomicData, KeySpecification, update_keyspec_from_kwargs
        from mace.data.utils import config_from_atoms
        from mace.modules.loss import WeightedEnergyForcesLoss
        from mace.tools import AtomicNumberTable

        from hint_mace.data import STORED, Collate, read_into, take_labels
        from hint_plugins.curvature.engines import get_engine
        from hint_plugins.plugins import load_plugins

        self.args, self.share = args, share
        self.model, self.optimizer = build(args)
        self.loss = WeightedEnergyForcesLoss(4.0, 100.0)
        self.manager = load_plugins(["hint"])
        self.plugin = self.manager.get_plugin("hint")
        self.manager.hook.configure(values={"hessian_on_bad_label": "error", "hessian_schedule": "constant", **options})
        if options:
            self.plugin.engine = get_engine(options["hessian_engine"])
        keys = update_keyspec_from_kwargs(KeySpecification(), {"energy_key": "REF_energy", "forces_key": "REF_forces"})
        table = AtomicNumberTable(ELEMENTS[args.system])
        self.items = []
        for index, atoms in enumerate(make_data(args.structures, share, args.system)):
            config = config_from_atoms(atoms, keys)
            read_into(config, atoms, self.manager)
            labels = take_labels(config)
            data = AtomicData.from_config(config, z_table=table, cutoff=5.0)
            if labels and options:
                data.__dict__[STORED] = labels
            self.items.append((index, data))
        self.collate = Collate(self.manager, epoch=0)
        flags = [STORED in data.__dict__ for _, data in self.items]
        fraction = 0.5 if options and share < 1 else None
        from hint_plugins.training.sampler import HeterogeneousBatchSampler

        self.sampler = HeterogeneousBatchSampler(flags, args.batch_size, fraction=fraction)

    def step(self, indices: list[int]) -> None:
        """One optimiser step on the structures ``indices``."""
        from hint_mace.batch import graph_batch
        from hint_mace.joint import JointForward
        from hint_plugins.training.protocol import Progress

        progress = Progress(max_epochs=1)
        batch = self.collate([self.items[i] for i in indices]).to(self.args.device)
        self.optimizer.zero_grad(set_to_none=True)
        with JointForward(self.model, self.manager, lambda: progress):
            output = self.model(batch.to_dict(), training=True, compute_force=True)
        loss = self.loss(pred=output, ref=batch)
        if self.plugin.engine is not None:
            view = graph_batch(self.model, batch, output)
            terms = self.plugin.loss_terms(self.model, view, {"loss": loss.detach()}, progress)
            loss = loss + sum(terms.values())
        loss.backward()
        self.optimizer.step()

    def batches(self) -> list[list[int]]:
        """Batches of one epoch; two suffice when all structures are labelled."""
        return list(self.sampler)[: 2 if self.share >= 1 else None]


def side_by_side(plain: Trainer, ours: Trainer) -> tuple[float, float]:
    """Mean seconds of a step over one epoch of each trainer, step by step in turn (CPU time on the CPU)."""
    cuda = plain.args.device.startswith("cuda")
    clock = time.perf_counter if cuda else time.process_time
    total = [0.0, 0.0]
    pairs = list(zip(plain.batches(), ours.batches(), strict=True))
    for indices in pairs:
        for k, trainer in enumerate((plain, ours)):
            start = clock()
            trainer.step(indices[k])
            if cuda:
                torch.cuda.synchronize()
            total[k] += clock() - start
    return total[0] / len(pairs), total[1] / len(pairs)


def _case(args: argparse.Namespace, share: float, options: dict, queue) -> None:
    torch.set_num_threads(args.threads)
    torch.set_default_dtype(torch.float32 if args.dtype == "float32" else torch.float64)
    plain, ours = Trainer(args, share, {}), Trainer(args, share, options)
    plain.step(plain.batches()[0])
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        side_by_side(plain, ours)
    pairs = [side_by_side(plain, ours) for _ in range(args.rounds)]
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024
    if args.device.startswith("cuda"):
        peaks = []
        for trainer in (plain, ours):
            torch.cuda.reset_peak_memory_stats()
            for batch in trainer.batches():
                trainer.step(batch)
            peaks.append(torch.cuda.max_memory_allocated())
        memory = (peaks[1] - peaks[0]) / 2**20
    queue.put((statistics.median(p for p, _ in pairs), statistics.median(o / p for p, o in pairs), memory))


def cases(args: argparse.Namespace) -> list[tuple[str, float, dict]]:
    """Names, shares and options of everything that is measured."""
    out = []
    for share in args.shares:
        for probes in (1, 5):
            for engine in ENGINES:
                options = {"hessian_engine": engine, "hessian_num_probes": probes}
                out.append((f"{engine}, m = {probes}", share, options))
        one = {"hessian_engine": "reverse", "hessian_num_probes": 1, "hessian_probes": "columns"}
        out.append(("one column (reverse)", share, one))
    full = {"hessian_num_probes": 3 * 14, "hessian_probes": "columns"}
    if 1.0 not in args.shares:
        return out
    out.append(("full Hessian (reverse)", 1.0, {**full, "hessian_engine": "reverse"}))
    out.append(("full Hessian (vmap)", 1.0, {**full, "hessian_engine": "vmap"}))
    if args.quick:
        out = [c for c in out if c[0].startswith(("vmap", "reverse"))]
    return out


def select(found: list, only: list[str] | None) -> list:
    """The cases (tuples that begin with their name) called ``only``; all without it."""
    names = list(dict.fromkeys(case[0] for case in found))
    for name in only or ():
        if name not in names:
            raise SystemExit(f"--only {name!r}: methods are {', '.join(map(repr, names))}")
    return [case for case in found if only is None or case[0] in only]


def main() -> None:
    """Measure, print a Markdown table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/training_step"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    parser.add_argument("--system", default="molecules", choices=list(ELEMENTS))
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--structures", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--shares", type=float, nargs="+", default=[1.0, 0.1, 0.01], help="Shares of labelled structures."
    )
    parser.add_argument("--quick", action="store_true", help="reverse and vmap only")
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="methods as in the table (default: all)")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    rows = []
    print("| method | labelled | step / (E/F step) | extra memory (MiB) |\n|---|---|---|---|")
    chosen = select(cases(args), args.only)
    for name, share, options in chosen:
        queue = context.Queue()
        process = context.Process(target=_case, args=(args, share, options, queue))
        process.start()
        while process.is_alive() and queue.empty():
            process.join(0.2)
        if queue.empty():
            print(f"| {name} | {share:.0%} | failed | |", flush=True)
            continue
        seconds, ratio, memory = queue.get()
        process.join()
        rows.append({"name": name, "share": share, "ef_seconds": seconds, "ratio": ratio, "memory_MiB": memory})
        print(f"| {name} | {share:.0%} | {ratio:.2f} | {memory:.0f} |", flush=True)
    device = torch.cuda.get_device_name() if args.device.startswith("cuda") else platform.processor() or "CPU"
    settings = {**vars(args), "out": str(args.out), "device_name": device, "torch": torch.__version__}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "training_step.json").write_text(json.dumps({"settings": settings, "rows": rows}, indent=2) + "\n")
    print(f"\n{args.out / 'training_step.json'}")
    if len(rows) < len(chosen):
        raise SystemExit(f"{len(chosen) - len(rows)} of {len(chosen)} cases failed: the errors stand above")


if __name__ == "__main__":
    main()
