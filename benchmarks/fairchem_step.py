"""Cost of a Hessian-informed training step in fairchem, as ratios to the plain energy-and-force step.

    python benchmarks/fairchem_step.py [--out DIR] [--device CUDA] [--channels 64] [--max-atoms 40]

Model and run are those of the shipped ``minimal.yaml`` (eSCN-MD, gradient forces). The plain step is fairchem's own,
without any part of this package. Every case runs in a process of its own, step by step in turn with the plain step on
the same batches; ratios are medians over pairs of steps. ``one column`` is one one-hot probe, ``full`` all 3N columns.
Where few structures are labelled, they come in batches of their own (``hessian_batch_fraction: 1``, as in
``realistic.yaml``); steps with and without labels are averaged as they occur in an epoch.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import platform
import resource
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from training_step import ENGINES, make_data, select

WIDTHS = ("sphere_channels", "hidden_channels", "edge_channels", "num_distance_basis")


class Trainer:
    """A run of minimal.yaml that stands before its first step; without ``options``, fairchem's own."""

    def __init__(self, args: argparse.Namespace, data: Path, options: dict[str, object] | None) -> None:
        import hydra
        import torch
        from fairchem.core._cli import get_hydra_config_from_yaml
        from torchtnt.framework.state import EntryPoint, PhaseState, State

        import hint_fairchem

        torch.manual_seed(0)
        self.cuda = args.device == "CUDA"
        width = [f"runner.train_eval_unit.model.backbone.{name}={args.channels}" for name in WIDTHS]
        sampler = "runner.train_dataloader.batch_sampler_fn"
        hint = {"hessian_selftest": False, "hessian_schedule": "constant", **(options or {})}
        config = get_hydra_config_from_yaml(
            str(Path(hint_fairchem.__file__).parent / "configs" / "minimal.yaml"),
            [f"train_data={data}", f"valid_data={data}", f"job.run_dir={data.parent}", f"job.device_type={args.device}",
             f"max_atoms={args.max_atoms}", f"{sampler}._target_=hint_fairchem.sampler.HessianBatchSampler",
             f"+{sampler}.hint=${{hint}}", "runner.train_eval_unit.print_every=1000000", *width,
             *(f"++hint.{key}={value}" for key, value in hint.items())],
        )  # fmt: skip
        runner = hydra.utils.instantiate(config.runner)
        runner.job_config = config.job
        self.unit, self.callback = runner.train_eval_unit, runner.callbacks[1]
        self.loader = runner.train_dataloader
        self.state = State(
            entry_point=EntryPoint.FIT, train_state=PhaseState(dataloader=self.loader, max_steps=runner.max_steps)
        )
        self.unit.on_train_start(self.state)
        self.ours = options is not None
        if self.ours:
            self.callback.on_train_start(self.state, self.unit)
        else:
            self.unit.tasks = [task for task in self.unit.tasks if task.name != "hessian_loss"]
        self.unit.train_progress.increment_step()  # the unit reports at step 0

    def batches(self, chosen: list[list[int]]) -> list:
        """Collated batches of the given structures."""
        return [self.loader.collate_fn([self.loader.dataset[i] for i in batch]) for batch in chosen]

    def seconds(self, batch) -> float:
        """One optimiser step of the host (CPU time on the CPU)."""
        import torch

        clock = time.perf_counter if self.cuda else time.process_time
        data = batch.clone()
        start = clock()
        if self.ours:
            self.callback.on_train_step_start(self.state, self.unit)
        self.unit.train_step(self.state, data)
        if self.cuda:
            torch.cuda.synchronize()
        return clock() - start


def side_by_side(plain: Trainer, ours: Trainer, batches: list, rounds: int) -> np.ndarray:
    """(rounds x batches, 2) seconds of a step of each trainer, step by step in turn."""
    return np.array([[t.seconds(batch) for t in (plain, ours)] for _ in range(rounds) for batch in batches])


def measure(args: argparse.Namespace, data: Path, options: dict[str, object], rounds: int) -> dict[str, float]:
    """Seconds of the plain step, ratio of ours to it and extra memory in MiB."""
    import torch

    plain, ours = Trainer(args, data, None), Trainer(args, data, options)
    sampler = ours.loader.batch_sampler
    labelled = len(sampler.all_batches) if sampler.plain else sampler.labelled_batches
    groups = [g for g in (sampler.all_batches[:labelled], sampler.all_batches[labelled:]) if g]
    weights = np.array([len(group) for group in groups])
    measured = [ours.batches(group[: 2 if rounds > 1 else 1]) for group in groups]
    for batches in measured:
        side_by_side(plain, plain, batches, 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if rounds > 1:
        for batches in measured:
            side_by_side(plain, ours, batches[:1], 1)
    if plain.cuda:
        peaks = []
        for trainer in (plain, ours):
            torch.cuda.reset_peak_memory_stats()
            trainer.seconds(measured[0][0])
            peaks.append(torch.cuda.max_memory_allocated())
        memory = (peaks[1] - peaks[0]) / 2**20
    turns = [rounds, 2 * rounds]  # steps without labels are cheap, and most of an epoch
    times = [side_by_side(plain, ours, batches, n) for batches, n in zip(measured, turns, strict=False)]
    if not plain.cuda:
        memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    seconds = np.array([np.median(pairs[:, 0]) for pairs in times])
    ratios = np.array([np.median(pairs[:, 1] / pairs[:, 0]) for pairs in times])
    epoch = weights * seconds
    return {"ef_seconds": epoch.sum() / weights.sum(), "ratio": epoch @ ratios / epoch.sum(), "memory_MiB": memory}


def one_case(args: argparse.Namespace, data: Path, options: dict[str, object], rounds: int, queue) -> None:
    """Measure in this process, which has a process group of its own."""
    import torch
    import torch.distributed as dist
    from fairchem.core.common.distutils import assign_device_for_local_rank

    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    assign_device_for_local_rank(args.device == "CPU", 0)
    with tempfile.TemporaryDirectory() as folder:
        backend = "gloo" if args.device == "CPU" else "nccl"
        dist.init_process_group(backend, init_method=f"file://{folder}/store", rank=0, world_size=1)
        queue.put(measure(args, data, options, rounds))
        dist.destroy_process_group()


def cases(args: argparse.Namespace) -> list[tuple[str, float, dict[str, object], int]]:
    """Names, shares, options and rounds of everything that is measured."""
    out: list[tuple[str, float, dict[str, object], int]] = []
    for share in args.shares:
        common = {} if share == 1 else {"hessian_batch_fraction": 1.0}
        for probes in (1, 5):
            for engine in ENGINES:
                options = {**common, "hessian_engine": engine, "hessian_num_probes": probes}
                out.append((f"{engine}, m = {probes}", share, options, args.rounds))
        column = {"hessian_probes": "columns", "hessian_num_probes": 1, "hessian_engine": "reverse"}
        out.append(("one column (reverse)", share, {**common, **column}, args.rounds))
    if 1.0 in args.shares:
        for engine in ("reverse", "vmap"):
            full = {"hessian_probes": "columns", "hessian_num_probes": 3 * 14, "hessian_engine": engine}
            out.append((f"full Hessian ({engine})", 1.0, full, 1))
    return out


def main() -> None:
    """Measure, print a Markdown table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/fairchem_step"))
    parser.add_argument("--device", default="CPU", choices=["CPU", "CUDA"])
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--max-atoms", type=int, default=40, help="atoms in a batch")
    parser.add_argument("--structures", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--shares", type=float, nargs="+", default=[1.0, 0.1, 0.01], help="shares of labelled structures"
    )
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="methods as in the table (default: all)")
    args = parser.parse_args()
    os.environ["CURRRENT_DEVICE_TYPE"] = args.device.lower()  # the host's own spelling
    import hydra
    import torch
    from fairchem.core._cli import get_hydra_config_from_yaml
    from fairchem.core.datasets.samplers.max_atom_distributed_sampler import get_batches
    from fairchem.core.units.mlip_unit import mlip_unit

    from hint_plugins.storage.store import write_structures

    assert hydra
    assert get_hydra_config_from_yaml
    assert mlip_unit
    get_batches(np.array([3]), np.array([0]), 4, 0)  # compiled once, before the processes part
    context = multiprocessing.get_context("fork" if args.device == "CPU" else "spawn")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = {share: Path(folder) / f"{k}" / "train.aselmdb" for k, share in enumerate(args.shares)}
        for share, path in files.items():
            path.parent.mkdir()
            write_structures(path, make_data(args.structures, share))
        print("| method | labelled | step / (E/F step) | extra memory (MiB) |\n|---|---|---|---|", flush=True)
        chosen = select(cases(args), args.only)
        for name, share, options, rounds in chosen:
            queue = context.Queue()
            process = context.Process(target=one_case, args=(args, files[share], options, rounds, queue))
            process.start()
            while process.is_alive() and queue.empty():
                process.join(0.2)
            if queue.empty():
                print(f"| {name} | {share:.0%} | failed | |", flush=True)
                continue
            row = queue.get()
            process.join()
            rows.append({"name": name, "share": share, **row})
            print(f"| {name} | {share:.0%} | {row['ratio']:.2f} | {row['memory_MiB']:.0f} |", flush=True)
    if not rows:
        raise SystemExit("every case failed")
    device = torch.cuda.get_device_name() if args.device == "CUDA" else platform.processor() or "CPU"
    settings = {**vars(args), "out": str(args.out), "device_name": device, "torch": torch.__version__}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "fairchem_step.json").write_text(json.dumps({"settings": settings, "rows": rows}, indent=2) + "\n")
    print(f"\nE/F step: {1e3 * statistics.median(row['ef_seconds'] for row in rows):.0f} ms")
    print(args.out / "fairchem_step.json")
    if len(rows) < len(chosen):
        raise SystemExit(f"{len(chosen) - len(rows)} of {len(chosen)} cases failed: the errors stand above")


if __name__ == "__main__":
    main()
