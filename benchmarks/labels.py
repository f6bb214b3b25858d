"""What labels cost: GFN2-xTB by size and kind, a killed run against an unbroken one, a selection from 10,000.

    python benchmarks/labels.py            # prints Markdown tables; a few minutes on one core

Times are CPU seconds of this process, so that a busy machine does not spoil them.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
from ase import Atoms
from ase.build import molecule

from hint_plugins.labelling.engine import EngineSpec
from hint_plugins.labelling.make import make_label
from hint_plugins.labelling.record import LabelTask

SIZES = (5, 10, 15, 20)


def sized(n: int) -> Atoms:
    """A molecule of n atoms from the g2 collection; 15 and 20 by joining two of them 4 A apart."""
    parts = {5: ["CH4"], 10: ["butadiene"], 15: ["butadiene", "CH4"], 20: ["butadiene", "cyclobutene"]}[n]
    whole = Atoms()
    for k, name in enumerate(parts):
        atoms = molecule(name)
        atoms.positions += [0, 0, 4.0 * k]
        whole += atoms
    return whole


def label_costs(sizes: list[int], repeats: int) -> None:
    """Labels a second and core, and gradients a label."""
    engine = EngineSpec("xtb").build()
    rng = np.random.default_rng(0)
    tasks = {
        "forces": LabelTask("forces"),
        "projections m=1": LabelTask("projections", num_probes=1),
        "projections m=5": LabelTask("projections", num_probes=5),
        "full": LabelTask("full"),
    }
    print("| atoms | " + " | ".join(f"{t}: ms (gradients)" for t in tasks) + " | full labels/s | m=5 labels/s |")
    print("|---" * (len(tasks) + 3) + "|")
    for n in sizes:
        base = sized(n)
        cells, rates = [], {}
        for name, task in tasks.items():
            best, gradients = np.inf, 0
            for _ in range(repeats):
                atoms = base.copy()
                atoms.positions += rng.normal(0, 0.03, (n, 3))
                start = time.process_time()
                record = make_label(engine, atoms, task)
                best = min(best, time.process_time() - start)
                gradients = record["provenance"]["gradients"]
            cells.append(f"{1e3 * best:.1f} ({gradients})")
            rates[name] = 1 / best
        print(f"| {n} | " + " | ".join(cells) + f" | {rates['full']:.1f} | {rates['projections m=5']:.1f} |")


def selection(count: int) -> None:
    """Time and memory of a density selection."""
    from hint_plugins.selection.choose import choose

    rng = np.random.default_rng(0)
    names = ["CH3OH", "H2CO", "CH3CHO", "HCOOH", "C2H6", "CH3CN", "butadiene", "CH3CONH2", "C3H8", "H2CCO"]
    bases = [molecule(name) for name in names]

    def stream():
        local = np.random.default_rng(1)
        for k in range(count):
            atoms = bases[k % len(bases)].copy()
            atoms.positions += local.normal(0, 0.1, atoms.positions.shape)
            yield atoms

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.process_time()
    chosen = choose(stream, fraction=0.1, hessian_fraction=0.1, rng=rng)
    seconds = time.process_time() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"\nhint select, {count} structures, mean {np.mean([len(b) for b in bases]):.1f} atoms, density: "
        f"{seconds:.1f} s CPU, peak memory {after:.0f} MB ({after - before:.0f} MB above the libraries loaded before); "
        f"{int(chosen.taken.sum())} taken, {int(chosen.hessian.sum())} for Hessians"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", choices=SIZES, default=list(SIZES), help="atoms")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--count", type=int, default=10_000, help="structures to select from")
    options = parser.parse_args()
    label_costs(options.sizes, options.repeats)
    selection(options.count)


if __name__ == "__main__":
    main()
