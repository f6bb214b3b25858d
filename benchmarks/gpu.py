"""Everything about one GPU in one command: tests, derivatives, precision, step costs, Hessians, ensembles, training.

    make gpu                                  # or: python benchmarks/gpu.py [--out DIR] [--only steps hessians ...]

Each part runs in a process of its own and is kept as ``OUT/PART.json``; parts that are there are not run again (delete
the file, or give --overwrite), and rows of a part that was cut off stay in the tables. At the end the tables are
written to ``OUT/benchmarks-gpu.md`` and ``OUT/PART.csv``. About 15 minutes on an H100. Without a GPU,
``--device cpu --size small`` tries the script.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import torch
from gpu_sections import CHANNELS, TABLES, Row

ROOT = Path(__file__).parents[1]


def tests(options: argparse.Namespace) -> list[Row]:
    """The tests that have a device parameter, on the GPU."""
    report = options.out / "tests.xml"
    words = ["-q", "-p", "no:cacheprovider", "-k", "cuda and not pretend", f"--junitxml={report}"]
    if options.workers > 1:
        words += ["-n", str(options.workers)]
    subprocess.run([sys.executable, "-m", "pytest", *words, "tests"], cwd=ROOT, check=False, stdout=sys.stderr)
    suite = ET.parse(report).getroot().find("testsuite")
    assert suite is not None
    bad = [f"{c.get('classname')}::{c.get('name')}" for c in suite if c.find("failure") is not None]
    row: Row = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    return [row | {"seconds": float(suite.get("time", 0)), "failed": "; ".join(bad)}]


def alphanet(options: argparse.Namespace) -> list[Row]:
    """AlphaNet beside MACE on the same structures: ``benchmarks/alphanet.py``."""
    table = options.out / "alphanet.csv"
    small = ["--repeats", "1", "--copies", "1"] if options.size == "small" else []
    command = [sys.executable, str(ROOT / "benchmarks/alphanet.py"), "--device", options.device, "--out", str(table)]
    subprocess.run([*command, *small], check=True, stdout=sys.stderr)
    with table.open() as file:
        return list(csv.DictReader(file))


def training(options: argparse.Namespace, processes: int = 1) -> list[Row]:
    """Whole runs of ``mace_run_train`` with and without Hessians: seconds of an epoch, and the errors at the end."""
    from ase.io import write
    from training_step import make_data

    rows = []
    structures, epochs = (512, 3) if options.size == "full" else (8, 2)
    for name, hint in {
        "energies and forces": [],
        "with Hessians": ["--plugins", "hint", "--hessian_weight", "0.01", "--hessian_num_probes", "2"],
        "with Hessians, finite differences": [
            *("--plugins", "hint", "--hessian_weight", "0.01", "--hessian_num_probes", "2"),
            *("--hessian_engine", "finite_difference_one_sided"),
        ],
    }.items():
        directory = options.out / "training" / f"{processes}-{name.replace(', ', '-').replace(' ', '-')}"
        directory.mkdir(parents=True, exist_ok=True)
        write(directory / "train.xyz", make_data(structures, 1.0))
        write(directory / "valid.xyz", make_data(8, 1.0))
        channels = CHANNELS[options.size]
        settings = {
            "name": "run", "train_file": "train.xyz", "valid_file": "valid.xyz", "E0s": "average", "model": "MACE",
            "hidden_irreps": f"{channels}x0e+{channels}x1o", "r_max": 5.0, "correlation": 2, "max_ell": 3,
            "batch_size": 32 // processes if structures > 8 else 4, "valid_batch_size": 8, "max_num_epochs": epochs,
            "energy_key": "REF_energy", "forces_key": "REF_forces", "device": options.device.split(":")[0],
            "default_dtype": "float32", "seed": 1, "lr": 0.002, "eval_interval": epochs,
        }  # fmt: skip
        words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
        start = [sys.executable, "-m"]
        if processes > 1:
            start += ["torch.distributed.run", f"--nproc-per-node={processes}", "-m"]
            words += ["--distributed", "--launcher", "torchrun"]
        begin = time.perf_counter()
        done = subprocess.run(
            [*start, "mace.cli.run_train", *words, *hint], cwd=directory, capture_output=True, text=True, check=False
        )
        row: Row = {"run": name, "processes": processes, "structures": structures, "epochs": epochs}
        row["seconds"] = time.perf_counter() - begin
        if done.returncode:
            row["error"] = (done.stderr or done.stdout).strip().split("\n")[-1][:200]
        (directory / "log.txt").write_text(done.stdout + done.stderr)
        rows.append(row | _epochs(directory))
    return rows


def _epochs(directory: Path) -> Row:
    """Mean seconds of a step after the first epoch, from MACE's results file."""
    found: Row = {}
    for path in (directory / "results").glob("*_train.txt"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        steps = [line["time"] for line in lines if line["mode"] == "opt" and line["epoch"] not in (0, None)]
        if steps:
            found["step_s"] = sum(steps) / len(steps)
        last = [line for line in lines if line["mode"] == "eval"]
        if last:
            found["valid_rmse_f"] = last[-1].get("rmse_f")
            found["valid_hessian_mae"] = last[-1].get("hessian_mae")
    return found


def two_gpus(options: argparse.Namespace) -> list[Row]:
    """The same training on two GPUs, where there are two."""
    if not options.device.startswith("cuda") or torch.cuda.device_count() < 2:
        return [{"note": "not run: this machine has one GPU"}]
    return training(options, 2)


#: Parts in their order: title and function.
PARTS = {
    "tests": ("Tests", tests),
    **TABLES,
    "alphanet": ("AlphaNet and MACE", alphanet),
    "training": ("Training runs", training),
    "two_gpus": ("Two GPUs", two_gpus),
}


def machine(options: argparse.Namespace) -> Row:
    """Names and versions that the figures belong to."""
    from importlib.metadata import PackageNotFoundError, version

    found: Row = {"python": platform.python_version(), "cpu_count": os.cpu_count(), "size": options.size}
    found["card"] = "none"
    if options.device.startswith("cuda"):
        found |= {"card": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "gpus": torch.cuda.device_count()}
    for package in ("torch", "mace-torch", "e3nn", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def run_part(name: str, options: argparse.Namespace) -> None:
    """Run one part in this process; rows are kept as they come, and again under the part's name when it is done."""
    start = time.perf_counter()
    rows: list[Row] = []
    unfinished = options.out / f"{name}.part.json"
    for row in PARTS[name][1](options):
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
        content = {"machine": machine(options), "seconds": time.perf_counter() - start, "rows": rows}
        unfinished.write_text(json.dumps(content, indent=1) + "\n")
    unfinished.replace(options.out / f"{name}.json")


def report(options: argparse.Namespace) -> str:
    """Markdown of all parts that are there; a CSV file for each beside it."""
    lines, before = ["# Figures of a GPU", "", "    make gpu", ""], ""
    for name, (title, function) in PARTS.items():
        whole, part = options.out / f"{name}.json", options.out / f"{name}.part.json"
        path = whole if whole.exists() else part
        if not path.exists():
            continue
        content = json.loads(path.read_text())
        about = ", ".join(f"{k} {v}" for k, v in content["machine"].items())
        if about != before:  # parts of different days may come from different cards
            lines += [f"Machine: {about}.", ""]
        before = about
        took = f"The part took {content['seconds']:.0f} s."
        if path == part:
            took = f"The part was cut off after {content['seconds']:.0f} s: rows are missing."
        lines += [f"## {title}", "", f"{function.__doc__} {took}", ""]
        columns = list(dict.fromkeys(key for row in content["rows"] for key in row))
        lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(_cell(row.get(c)) for c in columns) + " |" for row in content["rows"]] + [""]
        with (options.out / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(content["rows"])
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Run the parts that are missing, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="directory of the results")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu to try the script")
    parser.add_argument("--size", default="full", choices=list(CHANNELS), help="small: to try the script")
    parser.add_argument(
        "--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument("--workers", type=int, default=min(8, os.cpu_count() or 1), help="processes for the tests")
    parser.add_argument("--limit", type=float, default=600, help="most seconds of one part")
    parser.add_argument("--overwrite", action="store_true", help="run parts again that are there")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit(
            "no GPU is seen (torch.cuda.is_available() is False); --device cpu --size small tries the script"
        )
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.here:
        run_part(options.only[0], options)
        return
    failed = []
    for name in options.only:
        if (options.out / f"{name}.json").exists() and not options.overwrite:
            continue
        words = [
            "--here",
            "--only",
            name,
            "--out",
            str(options.out),
            "--device",
            options.device,
            "--size",
            options.size,
        ]
        start = time.perf_counter()
        try:
            done = subprocess.run(
                [sys.executable, __file__, *words, "--workers", str(options.workers)],
                timeout=options.limit,
                check=False,
            )
            failed += [name] * bool(done.returncode)
        except subprocess.TimeoutExpired:
            failed.append(f"{name} (longer than {options.limit:g} s)")
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    text = report(options)
    (options.out / "benchmarks-gpu.md").write_text(text)
    print(text)
    if failed:
        raise SystemExit(f"parts that failed (the errors stand above): {', '.join(failed)}")


if __name__ == "__main__":
    main()
