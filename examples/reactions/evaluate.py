"""Every finished training on the reactions that nobody has seen: errors, transition states, Gibbs energies.

    python examples/reactions/evaluate.py RUNS [--what errors ts gibbs] [--blocks transition] [--workers 2]

RUNS was made by ``train.py``. For each model ``hint evaluate`` on the labelled test structures, ``hint ts`` from the
relaxed end points of the reactions whose intended transition state the good level itself finds, and ``hint gibbs`` at
the good level's stationary points. What is finished is not done again. A search takes seconds a reaction: ``--what``
and ``--blocks`` say what is done for whom. Raw results, one line each, of all that was ever done, in RUNS/results:
``runs.csv`` (settings, cost, mean errors), ``structures.csv``, ``reactions.csv``, ``gibbs.csv``, ``curves.csv``
(validation errors against epochs).
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import searches
from searches import mean_abs
from stages import DONE, SOME_FAILED, command, finished, markdown, told
from tqdm import tqdm

from hint_plugins.errors import InputError
from hint_plugins.runs.files import hold_output, write_csv
from hint_plugins.storage.store import read_structures

WHAT = ("errors", "ts", "gibbs")
ERRORS = ("energy_error_per_atom", "forces_mae", "hessian_mae", "eigenvalue_mae", "frequency_mae_cm1")
#: The cheap level itself, measured beside the models.
LEVEL = "level"


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--what", nargs="+", choices=WHAT, default=list(WHAT))
    parser.add_argument("--blocks", nargs="+", help="only trainings of these blocks of the matrix")
    parser.add_argument("--limit", type=int, help="search only the first so many reactions")
    parser.add_argument("--level", default="tblite:GFN1-xTB", help="potential measured beside the models, or none")
    parser.add_argument("--device", help="cpu, cuda ... [default: the GPU when there is one]")
    parser.add_argument("--workers", type=int, default=1, help="searches at a time")
    return parser.parse_args(words)


class Evaluation:
    """Studies of the models of one folder of trainings.

    Parameters
    ----------
    runs
        Folder of the trainings.
    data
        Folder of the data set.
    device
        Or None.
    limit
        Reactions of the searches at most.
    workers
        Searches at a time.
    """

    def __init__(self, runs: Path, data: Path, device: str | None, limit: int | None, workers: int) -> None:
        self.runs, self.data, self.limit, self.workers = runs, data, limit, workers
        self.words = ("--device", device) if device else ()
        self.points = searches.points(data / "truth")
        self.test = data / "good" / "test" / "labels.xyz"
        self.names = [str(atoms.info["reaction"]) for atoms in read_structures(self.test)]

    def folder(self, what: str, run: Path) -> Path:
        """Where one kind of result of a training lies."""
        name = {"errors": "evaluation", "ts": "ts" if self.limit is None else f"ts-{self.limit}"}.get(what, what)
        return run / name

    def rows(self, what: str, model: str, run: Path) -> list[dict[str, Any]]:
        """One kind of result of a model, made if it is not there."""
        return {"errors": self._errors, "ts": self._ts, "gibbs": self._gibbs}[what](model, self.folder(what, run))

    def _errors(self, model: str, out: Path) -> list[dict[str, Any]]:
        """A row a test structure."""
        out.mkdir(parents=True, exist_ok=True)
        if not (out / "summary.json").is_file():
            words = ("evaluate", model, self.test, "--out", ".", *self.words)
            command(out, "hint", *words, statuses=(DONE, SOME_FAILED))
        with (out / "structures.csv").open() as handle:
            table = list(csv.DictReader(handle))
        numbers = [{key: float(row[key]) if row.get(key) else None for key in ERRORS} for row in table]
        return [
            {"reaction": self.names[int(row["index"])], "index": int(row["index"]), "atoms": row["num_atoms"], **values}
            for row, values in zip(table, numbers, strict=True)
        ]

    def _ts(self, model: str, out: Path) -> list[dict[str, Any]]:
        """A row a reaction."""
        limit = ("--limit", self.limit) if self.limit else ()
        words = (*limit, *self.words)
        return searches.reaction_rows(searches.transition_states(self.points, model, out, self.workers, *words))

    def _gibbs(self, model: str, out: Path) -> list[dict[str, Any]]:
        """A row a stationary point."""
        reference = json.loads((self.data / "truth" / "gibbs" / "summary.json").read_text())["structures"]
        return searches.gibbs_rows(searches.gibbs(self.points, model, out, *self.words), reference)


def means(rows: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Mean errors of one model over what was measured."""
    found: dict[str, Any] = {}
    if rows.get("errors"):
        found |= {key: mean_abs([row[key] for row in rows["errors"]]) for key in ERRORS}
    if rows.get("ts"):
        found["reactions"] = len(rows["ts"])
        found |= {key: sum(row[key] for row in rows["ts"]) for key in ("found", "intended")}
        for key in ("barrier_error_eV", "ts_rmsd_A"):
            found[key.replace("_error", "_mae")] = mean_abs([row[key] for row in rows["ts"]])
    for kind in ("minima", "saddles") if rows.get("gibbs") else ():
        some = [row for row in rows["gibbs"] if (row["role"] == "ts") == (kind == "saddles")]
        for key in ("gibbs_error_eV", "gibbs_correction_error_eV", "gibbs_above_reactant_error_eV"):
            found[f"{key.replace('_error', '_mae')}_{kind}"] = mean_abs([row[key] for row in some])
    return found


def curve(folder: Path) -> list[dict[str, Any]]:
    """Validation errors in the course of a training."""
    rows = []
    for file in (folder / "results").glob("*_train.txt"):
        for line in file.read_text().splitlines():
            entry = json.loads(line)
            if entry.get("mode") == "eval" and entry.get("epoch") is not None:
                keys = ("epoch", "hessian_weight", "hvp_mae", "hessian_loss", "mae_f", "mae_e_per_atom")
                rows.append({key: entry.get(key) for key in keys})
    return rows


def _block(content: dict[str, Any], block: str) -> list[str]:
    if block not in content["blocks"]:
        raise InputError(f"no block {block!r} in these trainings; there are {', '.join(content['blocks'])}")
    return content["blocks"][block]


def main() -> None:
    a = parse()
    file = a.runs / "runs.json"
    if not file.is_file():
        raise InputError(f"{file}: no such file; {a.runs} is no folder of train.py")
    content = json.loads(file.read_text())
    results = a.runs / "results"
    results.mkdir(exist_ok=True)
    hold_output(results)
    study = Evaluation(a.runs.resolve(), Path(content["data"]), a.device, a.limit, a.workers)
    chosen = {n for block in a.blocks or content["blocks"] for n in _block(content, block)}
    ready = sorted(f.parent.name for f in a.runs.glob("*-pretraining-*/stage.json") if finished(f.parent))
    ready += [name for name in content["runs"] if finished(a.runs / name)]
    models = {name: str((a.runs / name / "model.model").resolve()) for name in ready}
    if a.level != "none":
        models[f"{LEVEL}-{a.level.split(':')[-1]}"] = a.level
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in ("runs", "curves", *WHAT)}
    for name, model in tqdm(models.items(), desc="evaluate", unit="model", disable=None):
        folder = study.runs / name
        wanted = name in chosen or name not in content["runs"]
        rows = {
            what: study.rows(what, model, folder)
            for what in WHAT
            if (wanted and what in a.what) or (study.folder(what, folder) / "summary.json").is_file()
        }
        for what, found in rows.items():
            tables[what] += [{"run": name, **row} for row in found]
        tables["curves"] += [{"run": name, **row} for row in curve(folder)]
        cost = json.loads((folder / "cost.json").read_text()) if name in ready else {}
        settings = content["runs"].get(name, {})
        tables["runs"].append({"run": name, **settings, **cost, **means(rows)})
    columns = list(dict.fromkeys(key for row in tables["runs"] for key in row))
    tables["runs"] = [{key: row.get(key) for key in columns} for row in tables["runs"]]
    files = {"errors": "structures", "ts": "reactions"}
    for name, table in tables.items():
        if table:
            write_csv(results / f"{files.get(name, name)}.csv", table)
    shown = ("run", "forces_mae", "hessian_mae", "eigenvalue_mae", "frequency_mae_cm1", "intended", "barrier_mae_eV")
    print(markdown([{key: row.get(key) for key in shown} for row in tables["runs"]]))


if __name__ == "__main__":
    with told():
        main()
