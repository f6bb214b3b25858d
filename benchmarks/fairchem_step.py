"""Time of one fairchem training step with Hessians over one without, by engine, probes and share of labels.

    python benchmarks/fairchem_step.py train.aselmdb [--device CUDA] [--channels 64] [--max-atoms 40]

All variants run in one process, one step of each in turn, so that they share the machine's noise; the table gives
medians over the rounds, relative to energies and forces alone. A step is the host's own: forward, losses, backward,
optimiser.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

PARTS = ("sphere_channels", "hidden_channels", "edge_channels", "num_distance_basis")


def start(options: argparse.Namespace, folder: Path, *overrides: str) -> SimpleNamespace:
    """A run of minimal.yaml that stands before its first step."""
    import hydra
    import torch
    from fairchem.core._cli import get_hydra_config_from_yaml
    from torchtnt.framework.state import EntryPoint, PhaseState, State

    import hint_fairchem

    torch.manual_seed(0)
    width = [f"runner.train_eval_unit.model.backbone.{name}={options.channels}" for name in PARTS]
    config = get_hydra_config_from_yaml(
        str(Path(hint_fairchem.__file__).parent / "configs" / "minimal.yaml"),
        [f"train_data={options.data}", f"valid_data={options.data}", f"job.run_dir={folder}", *width,
         f"job.device_type={options.device}", f"max_atoms={options.max_atoms}", "+hint.hessian_selftest=false",
         "+hint.hessian_schedule=constant", "runner.train_eval_unit.print_every=1000000", *overrides],
    )  # fmt: skip
    runner = hydra.utils.instantiate(config.runner)
    runner.job_config = config.job
    unit, callback = runner.train_eval_unit, runner.callbacks[1]
    state = State(
        entry_point=EntryPoint.FIT, train_state=PhaseState(dataloader=runner.train_dataloader, max_steps=10**6)
    )
    unit.on_train_start(state)
    callback.on_train_start(state, unit)
    batches = list(runner.train_dataloader)
    largest = max(batches, key=lambda batch: batch.num_nodes)
    return SimpleNamespace(unit=unit, callback=callback, state=state, batch=largest, times=[])


def step(run: SimpleNamespace, labelled: float) -> float:
    """Seconds of one step in which the given share of the structures is labelled."""
    import torch

    from hint_fairchem.dataset import ARRAYS, TARGET

    data = run.batch.clone()
    keep = torch.arange(data.num_graphs) < round(labelled * data.num_graphs)
    data[TARGET][~keep] = torch.nan
    for name in ARRAYS:
        data[name] = data[name][keep[data.batch]]
    synchronise = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    run.callback.on_train_step_start(run.state, run.unit)
    synchronise()
    begin = time.perf_counter()
    run.unit.train_step(run.state, data)
    synchronise()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help=".aselmdb with Hessians on every structure")
    parser.add_argument("--device", default="CPU", choices=["CPU", "CUDA"])
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--max-atoms", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    options.data = options.data.resolve()
    import torch.distributed as dist
    from fairchem.core.common.distutils import assign_device_for_local_rank

    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        assign_device_for_local_rank(options.device == "CPU", 0)
        backend = "gloo" if options.device == "CPU" else "nccl"
        dist.init_process_group(backend, init_method=f"file://{folder / 'store'}", rank=0, world_size=1)
        variants = {("energies and forces", 0, 1.0): start(options, folder, "hint.hessian_weight=0")}
        for engine in ("reverse", "replicate", "vmap", "finite_difference", "finite_difference_one_sided"):
            for probes in (1, 5):
                overrides = (f"+hint.hessian_engine={engine}", f"hint.hessian_num_probes={probes}")
                run = start(options, folder, *overrides)
                for labelled in (1.0, 0.25):
                    variants[engine, probes, labelled] = SimpleNamespace(**{**vars(run), "times": []})
        for turn in range(options.rounds + 1):
            for (_, _, labelled), run in variants.items():
                seconds = step(run, labelled)
                if turn:  # the first round warms up
                    run.times.append(seconds)
        dist.destroy_process_group()
    base = statistics.median(next(iter(variants.values())).times)
    batch = next(iter(variants.values())).batch
    print(f"{batch.num_graphs} structures, {batch.num_nodes} atoms, {options.channels} channels: {1e3 * base:.0f} ms\n")
    print("| engine | probes | labelled | relative time |\n|---|---|---|---|")
    for (engine, probes, labelled), run in variants.items():
        print(f"| {engine} | {probes} | {labelled:.0%} | {statistics.median(run.times) / base:.2f} |")


if __name__ == "__main__":
    main()
