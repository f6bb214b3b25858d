"""Runs of MACE's own commands, small enough for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase.io import write

from helpers.pretend_counts import Totals
from helpers.structures import crystals, label_with_emt, labelled_set

BIN = Path(sys.executable).parent
TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent

SETTINGS: dict[str, Any] = {
    "name": "run",
    "train_file": "train.xyz",
    "valid_file": "valid.xyz",
    "E0s": "average",
    "model": "MACE",
    "hidden_irreps": "4x0e+4x1o",
    "MLP_irreps": "4x0e",
    "max_ell": 2,
    "correlation": 1,
    "r_max": 3.0,
    "num_radial_basis": 4,
    "num_interactions": 2,
    "batch_size": 4,
    "valid_batch_size": 4,
    "max_num_epochs": 2,
    "energy_key": "REF_energy",
    "forces_key": "REF_forces",
    "device": "cpu",
    "default_dtype": "float64",
    "seed": 1,
    "lr": 0.005,
    "error_table": "PerAtomRMSE",
    "plot": False,
}
HINT: dict[str, Any] = {
    "plugins": "hint",
    "hessian_weight": 0.01,
    "hessian_ramp_end": 2,
    "hessian_engine": "vmap",
    "hessian_num_probes": 2,
    "hessian_selftest": False,
}


def write_data(directory: Path, train: int = 12, every: int = 3, stress: bool = False) -> None:
    """``train.xyz`` and ``valid.xyz`` in ``directory``."""
    structures = labelled_set(train, every)
    validation = labelled_set(4, 2, seed=1)
    if stress:
        structures = [label_with_emt(a, k % 2 == 0, stress=True) for k, a in enumerate(crystals(8))]
        validation = [label_with_emt(a, True, stress=True) for a in crystals(4, seed=1)]
    write(directory / "train.xyz", structures)
    write(directory / "valid.xyz", validation)


def environment(**extra: str) -> dict[str, str]:
    """Environment of a run: one thread, this checkout first on the path."""
    env = {k: v for k, v in os.environ.items() if k != "HINT_PLUGINS"}
    paths = [str(ROOT), str(ROOT / "adapters"), str(ROOT / "recipes"), str(TESTS)]
    if "PYTHONPATH" in extra:
        paths.append(extra.pop("PYTHONPATH"))
    return env | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)} | extra


def flags(options: dict[str, Any]) -> list[str]:
    """Options as command-line words; True alone is a switch, None is left out."""
    words = []
    for name, value in options.items():
        if value is None:
            continue
        words.append(f"--{name}")
        if value != "":
            words.append(str(value))
    return words


def train(
    directory: Path,
    command: list[str] | None = None,
    check: bool = True,
    env: dict[str, str] | None = None,
    **options: Any,
) -> subprocess.CompletedProcess:
    """Run ``mace_run_train`` in ``directory`` with the small settings and ``options``."""
    words = (command or [str(BIN / "mace_run_train")]) + flags({**SETTINGS, **options})
    result = subprocess.run(
        words, cwd=directory, env=environment(**(env or {})), capture_output=True, text=True, check=False, timeout=300
    )
    if check and result.returncode:
        raise AssertionError(f"exit {result.returncode}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}")
    return result


@dataclass(frozen=True)
class PretendRun:
    """A training on a pretend GPU; see :mod:`helpers.pretend_run`."""

    status: int
    steps: list[Totals]
    waits: dict[str, int]
    copies: dict[str, int]
    output: str


def train_on_pretend_gpu(directory: Path, device: str = "cuda", **runs: Mapping[str, Any]) -> dict[str, PretendRun]:
    """Run ``mace_run_train`` on a pretend GPU, once for each of ``runs``: the small settings and these options.

    The keyword is the name of the run. The runs follow each other in ``directory``, in processes beside this one;
    ``device`` is that of those that name none.
    """
    words = {name: flags({**SETTINGS, "name": name, "device": device, **options}) for name, options in runs.items()}
    (directory / "runs.json").write_text(json.dumps(words))
    command = [sys.executable, "-m", "helpers.pretend_run", "runs.json"]
    env = environment(CUDA_VISIBLE_DEVICES="")
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, check=False, timeout=900)
    if done.returncode:
        raise AssertionError(f"exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return {name: _pretend_run(directory, name) for name in runs}


def _pretend_run(directory: Path, name: str) -> PretendRun:
    output = (directory / f"{name}.out").read_text()
    try:
        found = json.loads((directory / f"{name}.json").read_text())
    except FileNotFoundError:
        raise AssertionError(f"{name} died:\n{output[-3000:]}") from None
    return PretendRun(**{**found, "steps": [Totals(*step) for step in found["steps"]], "output": output})


def records(directory: Path, mode: str, name: str = "run", seed: int = 1) -> list[dict[str, Any]]:
    """Lines of MACE's results file with the given mode (``opt`` or ``eval``)."""
    path = directory / "results" / f"{name}_run-{seed}_train.txt"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row for row in rows if row["mode"] == mode]
