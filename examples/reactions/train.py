"""All trainings of the study through ``mace_run_train --plugins hint``, as a queue that goes on where it was stopped.

    python examples/reactions/train.py DATA --out RUNS [--matrix examples/reactions/study.yaml]
    python examples/reactions/train.py DATA --out RUNS --status

DATA was made by ``dataset.py``. Each training has a folder of its own with its command, log, cost (optimiser steps,
Hessian products, processor time) and model; what is finished is not trained again, what was killed continues from its
last checkpoint, and a folder with other settings is refused. The trainings of the first seed come first.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from matrix import Matrix, read_matrix
from stages import finished, markdown, told
from trainings import Trainings

from hint_plugins.runs.files import hold_output, write_csv, write_json
from hint_plugins.runs.processes import end_all


def default_device() -> str:
    """The GPU when there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--matrix", type=Path, default=Path(__file__).with_name("study.yaml"))
    parser.add_argument("--only", nargs="+", help="only these blocks of the matrix")
    parser.add_argument("--device", default=None, help="cpu, cuda ... [default: the GPU when there is one]")
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time, one thread each")
    parser.add_argument("--retry-failed", action="store_true", help="try again what failed in an earlier call")
    parser.add_argument("--status", action="store_true", help="print the table of the queue and stop")
    return parser.parse_args(words)


def state(out: Path, name: str) -> dict[str, Any]:
    """Where a training stands: waiting, begun, failed or done, and what a finished one cost."""
    folder = out / name
    row: dict[str, Any] = {"run": name, "state": "waiting", "epochs": None, "steps": None}
    row |= {"products": None, "cpu_seconds": None}
    if finished(folder):
        return row | {"state": "done"} | json.loads((folder / "cost.json").read_text())
    if (folder / "failed.txt").is_file():
        return row | {"state": "failed"}
    return row | {"state": "begun"} if (folder / "stage.json").is_file() else row


def names(matrix: Matrix) -> list[str]:
    """Folders of all trainings, pre-trainings first."""
    return [*(f"{m}-pretraining-s{s}" for m, s in pretrainings(matrix)), *(run.name for run in matrix.runs)]


def pretrainings(matrix: Matrix) -> list[tuple[str, int]]:
    """Model and seed of every pre-training that a run needs."""
    return list(dict.fromkeys((run.model, run.seed) for run in matrix.runs if run.pretrained))


def work(trainings: Trainings, matrix: Matrix, workers: int, retry: bool) -> int:
    """Train what is not done; returns the number of failures, each with its reason in ``failed.txt``."""
    failures = 0

    def one(name: str, function: Any, *arguments: Any, after: Future | None = None) -> bool:
        note = trainings.out / name / "failed.txt"
        if finished(trainings.out / name):
            return True
        if note.is_file() and not retry:
            return False
        if after is not None and not after.result():
            return False
        note.unlink(missing_ok=True)
        try:
            function(*arguments)
        except (RuntimeError, ValueError) as error:
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(f"{error}\n")
            print(f"{name}: failed: {error}", flush=True)
            return False
        print(f"{name}: done, {json.loads((trainings.out / name / 'cost.json').read_text())}", flush=True)
        return True

    pool = ThreadPoolExecutor(workers)
    try:
        first: dict[tuple[str, int], Future] = {}
        later: list[Future] = []
        for run in matrix.runs:  # the queue is served in this order, so nobody waits for what comes later
            key = (run.model, run.seed)
            if run.pretrained and key not in first:
                name = trainings.pretraining(*key).name
                first[key] = pool.submit(one, name, trainings.pretrain, *key)
            after = first[key] if run.pretrained else None
            later.append(pool.submit(one, run.name, trainings.tune, run, after=after))
        failures = sum(not future.result() for future in [*first.values(), *later])
    except BaseException as error:
        if not isinstance(error, Exception):
            end_all()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return failures


def report(trainings: Trainings, matrix: Matrix) -> list[dict[str, Any]]:
    """Write ``runs.json`` (the matrix) and ``queue.csv``; the rows of the latter."""
    rows = [state(trainings.out, name) for name in names(matrix)]
    write_csv(trainings.out / "queue.csv", rows)
    return rows


def main() -> None:
    a = parse()
    matrix = read_matrix(a.matrix, a.only)
    trainings = Trainings(a.data, a.out, matrix, a.device or default_device())
    trainings.out.mkdir(parents=True, exist_ok=True)
    failures = 0
    if not a.status:
        hold_output(trainings.out)
        trainings.refuse_changes()
        known = trainings.out / "runs.json"
        earlier = json.loads(known.read_text()) if known.is_file() else {"runs": {}, "blocks": {}}
        earlier["runs"] |= {run.name: vars(run) for run in matrix.runs}
        write_json(
            known, {"data": trainings.data, "runs": earlier["runs"], "blocks": earlier["blocks"] | matrix.blocks}
        )
        failures = work(trainings, matrix, a.workers, a.retry_failed)
    rows = report(trainings, matrix)
    print(markdown(rows))
    counts = {kind: sum(row["state"] == kind for row in rows) for kind in ("done", "begun", "waiting", "failed")}
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    with told():
        main()
