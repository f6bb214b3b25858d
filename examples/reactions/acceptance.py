"""One line for a model on end points that somebody else chose.

    python examples/reactions/acceptance.py ENDPOINTS MODEL [--out DIR] [--reference tblite:GFN2-xTB]

The reference searches the transition states first; from its relaxed end points the model then searches those that the
reference found intended, and its Gibbs energies are compared at the reference's stationary points. Prints a line of a
Markdown table; DIR keeps everything, so that a killed call goes on and a second model needs no second reference.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import searches
from searches import mean_abs
from stages import markdown, stage, told

from hint_plugins.errors import InputError
from hint_plugins.runs.files import hold_output, write_csv, write_json
from hint_plugins.runs.items import digest, file_digest, safe_name


def row(name: str, counts: dict[str, Any], found: list[dict[str, Any]], gibbs: list[dict[str, Any]]) -> dict[str, Any]:
    """The line of the table; errors in eV over the intended (barrier) and over all stationary points (G)."""
    sides = {kind: [r for r in gibbs if (r["role"] == "ts") == (kind == "saddles")] for kind in ("minima", "saddles")}
    return {
        "model": name,
        "reactions": counts["reactions"],
        "of the reference": counts["intended"],
        "found": sum(r["found"] for r in found),
        "intended": sum(r["intended"] for r in found),
        "barrier MAE (eV)": mean_abs([r["barrier_error_eV"] for r in found]),
        **{f"G MAE, {kind} (eV)": mean_abs([r["gibbs_error_eV"] for r in some]) for kind, some in sides.items()},
        "G MAE above the reactant (eV)": mean_abs([r["gibbs_above_reactant_error_eV"] for r in gibbs]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("end_points", type=Path)
    parser.add_argument("model", help="model file, or whatever `hint ts --model` takes")
    parser.add_argument("--out", type=Path, default=Path("acceptance"))
    parser.add_argument("--reference", default=searches.TRUTH)
    parser.add_argument("--device", help="cpu, cuda ... [default: the GPU when there is one]")
    parser.add_argument("--workers", type=int, default=1)
    a = parser.parse_args()
    if not a.end_points.is_file():
        raise InputError(f"{a.end_points}: no such file")
    a.out.mkdir(parents=True, exist_ok=True)
    hold_output(a.out)
    truth = a.out / "truth"
    options = {"end_points": file_digest(str(a.end_points)), "reference": a.reference}
    counts = stage(truth, options, lambda: searches.truth(a.end_points, truth, a.workers, a.reference))
    if not counts["intended"]:
        raise InputError(f"{a.reference} finds no intended transition state of the {counts['reactions']} reactions")
    model = str(Path(a.model).resolve()) if Path(a.model).is_file() else a.model
    folder = a.out / f"{safe_name(Path(a.model).stem)}-{digest(file_digest(model))}"
    words = ("--device", a.device) if a.device else ()
    points = searches.points(truth)
    found = searches.reaction_rows(searches.transition_states(points, model, folder / "ts", a.workers, *words))
    theirs = searches.gibbs(points, a.reference, truth / "gibbs")
    gibbs = searches.gibbs_rows(searches.gibbs(points, model, folder / "gibbs", *words), theirs)
    write_csv(folder / "reactions.csv", found)
    write_csv(folder / "gibbs.csv", gibbs)
    line = row(a.model, counts, found, gibbs)
    write_json(folder / "row.json", line)
    print(markdown([line]))
    reasons = [r["reason"] for r in found if r["reason"]]
    for reason in sorted(set(reasons)):
        print(f"{reasons.count(reason)} {reason}")


if __name__ == "__main__":
    with told():
        main()
