"""A reaction data set at two levels of theory, from a file of end points, by one command.

    python examples/reactions/dataset.py ENDPOINTS --out DATA [--max-atoms 12]
    python examples/reactions/dataset.py --mini --out DATA          # the reactions that this package ships

Paths and rattled structures, cheap labels with Hessians for all, good labels for a selected part, Hessians on shares of
these, and the good level's own transition states and Gibbs energies of the test reactions. What is finished is not made
again; a killed call goes on when it is repeated; a changed option is refused.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import data_stages
from end_points import PARTS
from labels import known_selections
from stages import markdown, told

from hint_plugins.runs.executors import available_cores
from hint_plugins.runs.files import hold_output, write_json

STAGES = ("split", "geometries", "cheap", "scale", "good", "truth")


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("end_points", type=Path, nargs="?", help="structures with info 'reaction' and 'role'")
    parser.add_argument("--mini", action="store_true", help="the mini reactions of this package instead")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--max-atoms", type=int, help="leave out larger reactions")
    parser.add_argument("--elements", nargs="+", default=["H", "C", "N", "O"], help="leave out reactions with others")
    parser.add_argument("--limit", type=int, help="only the first so many reactions by name")
    parser.add_argument("--test", type=int, default=100, help="test reactions")
    parser.add_argument("--held-back", type=int, default=20, help="reactions that nothing here looks at")
    parser.add_argument("--valid", type=int, default=20, help="validation reactions")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the structures and the selections")
    parser.add_argument("--images", type=int, default=11, help="of a geodesic path")
    parser.add_argument("--band-steps", type=int, default=30, help="steps of the cheap level's elastic band")
    parser.add_argument("--samples", type=int, default=4, help="rattled copies of each structure")
    parser.add_argument("--sigma", type=float, default=0.05, help="of the rattling, A")
    parser.add_argument("--cheap", default="GFN1-xTB")
    parser.add_argument("--cheap-kind", choices=("projections", "full"), default="projections")
    parser.add_argument("--num-probes", type=int, default=5, help="stored projections a structure")
    parser.add_argument("--max-energy", type=float, default=8.0, help="eV above the lowest structure of a reaction")
    parser.add_argument("--good", default="GFN2-xTB")
    parser.add_argument("--selections", nargs="+", default=["energy-top", "energy-bottom", "density", "random"])
    parser.add_argument("--fraction", type=float, default=0.1, help="of the training structures, for good labels")
    parser.add_argument("--shares", type=float, nargs="+", default=[0, 0.1, 1, 10, 100], help="with Hessians, per cent")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of which structures get Hessians")
    parser.add_argument("--per-test", type=int, default=10, help="structures of a test reaction, for errors")
    parser.add_argument("--per-valid", type=int, default=5, help="structures of a validation reaction")
    parser.add_argument("--until", choices=STAGES, default=STAGES[-1], help="stop after this stage")
    parser.add_argument("--workers", type=int, default=available_cores())
    arguments = parser.parse_args(words)
    if arguments.mini == (arguments.end_points is not None):
        parser.error("give a file of end points, or --mini")
    known_selections(arguments.selections)
    return arguments


def main() -> None:
    a = parse()
    a.out.mkdir(parents=True, exist_ok=True)
    hold_output(a.out)
    last = STAGES.index(a.until)
    rows: list[dict[str, Any]] = []
    parts = data_stages.divided(a)
    print(", ".join(f"{count} {part}" for part, count in parts.items() if part in PARTS), "reactions")
    if parts["test"] < a.test:
        print(f"fewer test reactions than asked for ({a.test}): the file holds too few")
    if last >= 1:
        made = data_stages.structures(a)
        rows.append({"set": "geometries", "structures": made["structures"], "Hessians": 0, "gradients": ""})
        rows[-1] |= {"failed": f"{made['reactions_failed']} reactions", "CPU s": made["cpu_seconds"]}
    if last >= 2:
        counts = data_stages.cheap(a)
        rows.append({"set": f"{a.cheap} {a.cheap_kind}", "structures": counts["structures"]})
        rows[-1] |= {"Hessians": counts["structures"], **data_stages.cost(counts)}
    if last >= 3:
        counts = data_stages.scale(a)
        for part in ("train", "valid"):
            rows.append({"set": f"pre-training {part}", "structures": counts[part], "Hessians": counts[part]})
            rows[-1] |= {"gradients": "", "failed": "", "CPU s": counts["cpu_seconds"] if part == "train" else ""}
    if last >= 4:
        rows += data_stages.good(a)
    if last >= 5:
        found = data_stages.truth(a)
        print(f"{a.good}: {found['intended']} of {found['reactions']} intended transition states of the test reactions")
        rows.append({"set": "truth (reactions)", "structures": found["reactions"], "Hessians": "", "gradients": ""})
        rows[-1] |= {"failed": found["reactions"] - found["intended"], "CPU s": found["cpu_seconds"]}
    write_json(a.out / "summary.json", {"split": parts, "rows": rows})
    print(markdown(rows))


if __name__ == "__main__":
    with told():
        main()
