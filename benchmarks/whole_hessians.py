"""Whole Hessians by engine and size: time and, on a GPU, memory, side by side in one run.

    python benchmarks/whole_hessians.py [--device cpu] [--models AlphaNet MACE] [--sizes 3 9 21 m16 ...] [--repeats 3]

A size is a number of atoms: a molecule, or with ``x`` before it a PdH crystal. For each size the engines take turns on
the same columns (at most ``--columns``, all of them of a small molecule); ``replicate`` and ``vmap`` do ``--chunk`` at
a time. The time is the smallest of the repeats divided by the number of columns, the ratio that to ``reverse``. On a
CPU it is processor time of one thread. Compare the ratios of one run, never times of different runs.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
import warnings

import numpy as np
import torch
from alphanet import MaceEnergy
from ase import Atoms
from ase.build import bulk, molecule

from hint_plugins.curvature.engines import Engine, get_engine
from hint_plugins.models.alphanet import AlphaNet
from hint_plugins.potential import Potential
from hint_plugins.potential.memory import structure_cost

ENGINE_NAMES = ("reverse", "replicate", "vmap")


def structure(size: str) -> Atoms:
    """A molecule of so many atoms (water, ethanol, or copies of ethanol side by side), or ``x`` atoms of PdH."""
    rng = np.random.default_rng(0)
    if size.startswith("x"):
        pairs = int(size[1:]) // 2
        shape = next((a, b, pairs // (a * b)) for a, b in SHAPES if pairs % (a * b) == 0 and pairs >= a * b)
        atoms = bulk("PdH", "rocksalt", a=4.09) * shape
    elif int(size) <= 3:
        atoms = molecule("H2O")
    else:
        atoms = Atoms()
        for k in range(max(1, round(int(size) / 9))):
            copy = molecule("CH3CH2OH")
            copy.positions += [4.0 * (k % 3), 4.0 * (k // 3 % 3), 4.0 * (k // 9)]
            atoms += copy
    atoms.positions += 0.03 * rng.standard_normal(atoms.positions.shape)
    return atoms


SHAPES = ((8, 8), (4, 8), (4, 4), (2, 4), (2, 2), (1, 2), (1, 1))


class PdMace(MaceEnergy):
    """The MACE model of the other tables with palladium in nitrogen's place."""

    def __init__(self) -> None:
        super().__init__("32x0e+32x1o")
        self.row[46] = self.row[7]


def measured(potential: Potential, atoms: Atoms, engine: Engine, columns: int, chunk: int) -> tuple[float, int]:
    """Seconds and, on a GPU, peak memory (MiB) of so many columns of the Hessian."""
    cuda = potential.device.type == "cuda"
    clock = time.perf_counter if cuda else time.process_time
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = clock()
    view, _ = potential.backend.view([atoms])
    probes = torch.eye(columns, 3 * len(atoms), dtype=potential.dtype, device=potential.device)
    for part in probes.view(columns, -1, 3).split(chunk):
        engine(view, part, create_graph=False).cpu()
    seconds = clock() - start
    return seconds, torch.cuda.max_memory_allocated() >> 20 if cuda else 0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float64")
    parser.add_argument("--models", nargs="+", default=["AlphaNet", "MACE"])
    parser.add_argument("--sizes", nargs="+", default=["3", "9", "27", "x16", "x64"])
    parser.add_argument("--columns", type=int, default=24)
    parser.add_argument("--chunk", type=int, nargs="+", default=[24])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    makers = {"AlphaNet": lambda: AlphaNet(elements=(1, 6, 7, 8, 46)), "MACE": PdMace}
    rows = []
    print(f"{'model':10}{'atoms':>6}{'cost':>8}{'engine':>12}{'chunk':>6}{'ms/column':>11}{'ratio':>7}{'MiB':>8}")
    for name in options.models:
        torch.manual_seed(0)
        potential = Potential.load(makers[name](), options.device, options.dtype)
        for size in options.sizes:
            atoms = structure(size)
            columns = min(options.columns, 3 * len(atoms))
            cases = [("reverse", columns), *((e, c) for e in ENGINE_NAMES[1:] for c in options.chunk)]
            best = dict.fromkeys(cases, (float("inf"), 0))
            for _ in range(options.repeats + 1):  # the first also pays for just-in-time compilation
                for case in cases:
                    best[case] = min(best[case], measured(potential, atoms, get_engine(case[0]), columns, case[1]))
            for engine, chunk in cases:
                seconds, memory = best[engine, chunk]
                rows.append(
                    {
                        "model": name,
                        "atoms": len(atoms),
                        "cost": round(structure_cost(atoms, potential.cutoff)),
                        "engine": engine,
                        "chunk": chunk,
                        "ms_per_column": 1e3 * seconds / columns,
                        "ratio": seconds / best[cases[0]][0],
                        "MiB": memory,
                    }
                )
                row = rows[-1]
                print(
                    f"{name:10}{row['atoms']:6d}{row['cost']:8d}{engine:>12}{chunk:6d}{row['ms_per_column']:11.2f}"
                    f"{row['ratio']:7.2f}{memory or '-':>8}",
                    flush=True,
                )
    if options.out:
        with open(options.out, "w", newline="") as handle:
            writer = csv.DictWriter(handle, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
