"""Tables, paired tests and pictures of the study, as fragments of a page of results.

    python examples/reactions/report.py RUNS [--matrix examples/reactions/study.yaml] [--out docs/results/reactions]

RUNS holds trainings (``train.py``) and their raw results (``evaluate.py``). For every block of the matrix: BLOCK.md
with mean and standard deviation over seeds, paired tests over reactions, and pictures; the raw CSV tables besides, and
``reactions.md`` beside the folder, which joins the fragments. Blocks without results are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import pictures
from comparing import compact, error_changes, successes
from end_points import PARTS
from matrix import Matrix, read_matrix
from results import COST, ERRORS, GIBBS, TS, Results, conditions, number, table
from stages import markdown, told

from hint_plugins.runs.files import replacing, write_csv

#: What is tested over reactions: heading to table and column.
TESTED = {
    "force MAE (eV/Å)": ("structures", "forces_mae"),
    "Hessian MAE (eV/Å²)": ("structures", "hessian_mae"),
    "eigenvalue MAE (eV/Å²)": ("structures", "eigenvalue_mae"),
    "frequency MAE (cm⁻¹)": ("structures", "frequency_mae_cm1"),
    "barrier error (eV)": ("reactions", "barrier_error_eV"),
    "G error, saddles (eV)": ("saddles", "gibbs_error_eV"),
    "G − E error, saddles (eV)": ("saddles", "gibbs_correction_error_eV"),
    "G error above the reactant, saddles (eV)": ("saddles", "gibbs_above_reactant_error_eV"),
}


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--matrix", type=Path, default=Path(__file__).with_name("study.yaml"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/reactions"))
    parser.add_argument("--machine", help="kind of machine, for the page [default: processor and number of cores]")
    return parser.parse_args(words)


def fragment(results: Results, matrix: Matrix, block: str, out: Path) -> list[str]:
    """The text of one block, its pictures written; no lines where nothing is finished."""
    groups = conditions(matrix, block)
    errors = table(results, groups, COST | ERRORS)
    if not errors:
        return []
    seeds = sorted({run.seed for runs in groups.values() for run in runs if run.name in results.runs})
    lines = [
        f"## {block.capitalize()}",
        "",
        f"Seeds {', '.join(map(str, seeds))}; mean ± standard deviation over them.",
    ]
    lines += ["", markdown(errors), ""]
    ts, gibbs = (table(results, groups, columns) for columns in (TS, GIBBS))
    lines += [markdown(ts), ""] if ts and len(ts[0]) > 2 else []
    lines += [markdown(gibbs), ""] if gibbs and len(gibbs[0]) > 2 else []
    won = successes(results, groups)
    if won:
        lines += ["Intended transition states of the same reactions and seeds:", "", markdown(won), ""]
    tested = error_changes(results, groups, TESTED)
    if tested:
        write_csv(out / f"{block}-tests.csv", tested)
        lines += ["Change of the error from one to the other, paired over reactions, seeds averaged:", ""]
        lines += [markdown(compact(tested)), ""]
    drawn = [(f"{block}-shares.png", pictures.lines_of_shares(results, groups, ERRORS, out / f"{block}-shares.png"))]
    draw: list[tuple[str, Callable[[Path], bool]]] = [
        ("errors", lambda path: pictures.bars(results, groups, ERRORS, path)),
        ("ts", lambda path: pictures.bars(results, groups, TS, path)),
        ("gibbs", lambda path: pictures.bars(results, groups, GIBBS, path)),
        ("courses", lambda path: pictures.courses(results, groups, path)),
    ]
    drawn += [(f"{block}-{name}.png", function(out / f"{block}-{name}.png")) for name, function in draw]
    why = pictures.reasons(results, groups, out / f"{block}-reasons.png")
    if why:
        drawn.append((f"{block}-reasons.png", True))
        lines += ["Why searches ended, reactions a seed:", "", markdown(why), ""]
    return lines + pictures.names_of(drawn)


def header(runs: Path, results: Results, machine: str | None) -> list[str]:
    """What was measured on what, and what it cost."""
    content = json.loads((runs / "runs.json").read_text())
    data = json.loads((Path(content["data"]) / "summary.json").read_text())
    hours = sum(number(row.get("cpu_seconds")) or 0.0 for row in results.runs.values()) / 3600
    split = ", ".join(f"{data['split'][part]} {part.replace('_', ' ')}" for part in PARTS)
    level = [{"level": n, **{h: float(r[k]) if r[k] else None for k, h in ERRORS.items()}}
             for n, r in results.runs.items() if n.startswith("level-") or "-pretraining-" in n]  # fmt: skip
    lines = ["# HINT on reactions that nobody has seen", ""]
    lines += [f"Reactions: {split}; no reactant or product of one part occurs in another.", ""]
    lines += [f"Machine: {machine or f'{platform.machine()}, {os.cpu_count()} cores'}. "
              f"Trainings: {hours:.2f} core-hours; labels and searches come besides."]  # fmt: skip
    lines += ["", markdown(data["rows"]), ""]
    return lines + ([markdown(level), ""] if level else [])


def main() -> None:
    a = parse()
    matrix, results = read_matrix(a.matrix), Results(a.runs / "results")
    a.out.mkdir(parents=True, exist_ok=True)
    parts: list[str] = header(a.runs, results, a.machine)
    for block in matrix.blocks:
        lines = fragment(results, matrix, block, a.out)
        if lines:
            with replacing(a.out / f"{block}.md") as temporary:
                temporary.write_text("\n".join(lines) + "\n")
            parts += [line.replace("](", f"]({a.out.name}/") if line.startswith("![") else line for line in lines] + [
                ""
            ]
    for name in ("runs", "structures", "reactions", "gibbs", "curves"):
        if (a.runs / "results" / f"{name}.csv").is_file():
            shutil.copy(a.runs / "results" / f"{name}.csv", a.out / f"{name}.csv")
    page = a.out.with_suffix(".md")
    with replacing(page) as temporary:
        temporary.write_text("\n".join(parts) + "\n")
    print(f"{page}: {sum(1 for _ in a.out.glob('*.png'))} pictures, {len(results.runs)} models")


if __name__ == "__main__":
    with told():
        main()
