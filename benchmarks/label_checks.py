"""False alarms and misses of the label checks on GFN2-xTB labels, and on a HORM file if one is given.

    python benchmarks/label_checks.py [sample.lmdb] [--method GFN1-xTB] [--seed 1] [--limit 20]

Molecules of ASE's G2 set at their minimum, rattled by 0.05 and 0.12 A; those of up to three atoms also stretched and
compressed by factors from 0.85 to 1.4, and diatomics of heavier elements. Every label is checked whole, as columns and
as products with 1, 2 and 5 directions of three laws, with and without forces.
"""

from __future__ import annotations

import argparse
import collections
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.collections import g2
from ase.data import covalent_radii
from ase.optimize import BFGS

from hint_plugins.curvature.probes import draw_probes
from hint_plugins.datasets.reading import read_dataset
from hint_plugins.labels.checks import check_label
from hint_plugins.labels.hessian_label import HessianLabel
from hint_plugins.potential import Potential

DIATOMICS = ("II", "BrBr", "HI", "HBr", "ClI", "BrI", "FI", "SS", "PP", "SeSe")
FACTORS = (0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.4)
MISTAKES = {"sign": -1.0, "eV/Bohr^2": 0.280028, "Ha/Bohr^2": 0.0102909, "kcal/mol/A^2": 23.0605}


def geometries(method: str, seed: int, limit: int | None) -> Iterator[Atoms]:
    """Closed shells at their minimum, and around it."""
    from tblite.ase import TBLite

    rng = np.random.default_rng(seed)
    starts = [molecule(name) for name in g2.names]
    starts = [a for a in starts if len(a) > 1 and abs(a.get_initial_magnetic_moments().sum()) < 0.1]
    for pair in DIATOMICS:
        atoms = Atoms(pair, [[0.0, 0.0, 0.0], [0.5, 1.0, 1.6]])
        atoms.set_distance(0, 1, covalent_radii[atoms.numbers].sum())
        starts.append(atoms)
    for start in starts[:limit]:
        atoms = Atoms(start.numbers, start.positions, calculator=TBLite(method=method, verbosity=0, accuracy=0.01))
        try:
            BFGS(atoms, logfile=None).run(fmax=1e-3, steps=300)
        except Exception as error:  # elements or states beyond the method
            print(f"{start.get_chemical_formula()} left out: {error}", file=sys.stderr)
            continue
        for amplitude in (0.0, 0.05, 0.12):
            yield Atoms(atoms.numbers, atoms.positions + amplitude * rng.standard_normal(atoms.positions.shape))
        for factor in FACTORS if len(atoms) < 4 else ():
            yield Atoms(atoms.numbers, factor * (atoms.positions - atoms.positions[0]))


def labels(options: argparse.Namespace) -> Iterator[tuple[Atoms, np.ndarray, np.ndarray]]:
    """Structure, forces (N, 3) and Hessian (3N, 3N)."""
    potential = Potential.load(f"tblite:{options.method}")
    for atoms in geometries(options.method, options.seed, options.limit):
        try:
            yield atoms, potential.evaluate([atoms]).forces[0], potential.hessians([atoms], symmetrise=False)[0]
        except Exception as error:  # not converged far from equilibrium
            print(f"{atoms.get_chemical_formula()} left out: {error}", file=sys.stderr)
    for path in options.files:
        for atoms in read_dataset(path):
            dim = 3 * len(atoms)
            yield atoms, atoms.arrays["REF_forces"], atoms.info["REF_hessian"].reshape(dim, dim)


def parts(hessian: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[str, HessianLabel]]:
    """The label whole and in part."""
    dim = len(hessian)
    yield "full", HessianLabel.full(hessian)
    for law in ("rademacher", "gaussian", "orthogonal"):
        for count in (1, 2, 5):
            z = draw_probes(law, count, dim, rng)
            yield f"{count} products", HessianLabel.projections(z, z @ hessian.T, dim // 3)
    for count in (1, 3):
        index = rng.choice(dim, min(count, dim), replace=False)
        yield f"{count} columns", HessianLabel.columns(index, hessian[:, index].T)


def main() -> None:
    """Print counts of false alarms, and the share of each mistake that is seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*", help="HORM files")
    parser.add_argument("--method", default="GFN2-xTB")
    parser.add_argument("--seed", type=int, default=0, help="of the rattled geometries and the directions")
    parser.add_argument("--limit", type=int, default=None, help="molecules")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed + 1)
    made, alarms = 0, []
    tried: collections.Counter = collections.Counter()
    seen: collections.Counter = collections.Counter()
    for atoms, forces, hessian in labels(options):
        made += 1
        for kind, label in parts(hessian, rng):
            for known in (forces, None):
                tried["good"] += 1
                found = check_label(label, atoms, known)
                if not found.ok:
                    alarms.append((atoms.get_chemical_formula(), kind, found.reasons))
            if kind[0] in "12":
                continue
            for name, factor in MISTAKES.items():
                wrong = HessianLabel(label.kind, factor * label.products, label.directions)
                tried[kind, name] += 1
                seen[kind, name] += not check_label(wrong, atoms, forces).ok
    print(f"{made} labels, {tried['good']} checks of good ones, {len(alarms)} false alarms")
    for alarm in alarms:
        print("  ", *alarm)
    for key, count in tried.items():
        if key != "good":
            print(f"{key[0]:12s}{key[1]:14s}{seen[key]} of {count} seen, forces known")


if __name__ == "__main__":
    main()
