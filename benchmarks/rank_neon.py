"""Neon (Lennard-Jones) as fcc, hcp and bcc: free energies from supercells of different and of equal size.

    python benchmarks/rank_neon.py OUT [--size 3] [--temperature 10] [--configurations 400] [--seed 0]

Needs python-sscha. ``unequal`` is ``hint rank`` with one ``--supercell`` for all: 2x2x2 (8, 16 and 8 atoms), or with
``--size 3`` 3x3x3 (27, 54, 27) and ``--check-supercell 2x2x2``. ``equal`` has 16 atoms for each candidate (nine numbers
where the cell has one atom), or 64 with a check at 8. Pressure 0, cells relaxed. A run that was stopped goes on.
Energies in meV per atom.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from ase.build import bulk
from ase.calculators.lj import LennardJones

#: 2x2x2 for the two-atom cell of hcp; the 16-atom cubic supercells of the one-atom cells of fcc and bcc.
SIXTEEN = {"fcc": (3, -1, -1, -1, 3, -1, -1, -1, 3), "hcp": (2, 2, 2), "bcc": (0, 2, 2, 2, 0, 2, 2, 2, 0)}
#: 64 atoms of each, and 8 atoms of each for the check.
SIXTY_FOUR = {"fcc": (4, 4, 4), "hcp": (4, 4, 2), "bcc": (4, 4, 4)}
EIGHT = {"fcc": (2, 2, 2), "hcp": (2, 2, 1), "bcc": (2, 2, 2)}
CELLS = {
    "fcc": bulk("Ne", "fcc", a=4.47),
    "hcp": bulk("Ne", "hcp", a=3.16, c=5.16),
    "bcc": bulk("Ne", "bcc", a=3.57),
}


def neon() -> LennardJones:
    """Lennard-Jones neon: eps = 3.084 meV (35.8 K), sigma = 2.782 A, switched off from 7.5 to 9 A."""
    return LennardJones(epsilon=3.084e-3, sigma=2.782, ro=7.5, rc=9.0, smooth=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, choices=(2, 3), default=2, help="repetitions of one supercell for all")
    parser.add_argument("--temperature", type=float, default=10.0, help="K")
    parser.add_argument("--configurations", type=int, default=400)
    parser.add_argument("--final-configurations", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from hint_recipes import RankSettings, rank_structures

    settings = RankSettings(
        temperature=options.temperature, configurations=options.configurations, step=0.2,
        final_configurations=options.final_configurations, bulk_modulus=1.0, seed=options.seed,
    )  # fmt: skip
    rows = []
    large = options.size == 3
    one = settings.changed(supercell=(3, 3, 3), check_supercell=(2, 2, 2)) if large else settings
    found = {"unequal": rank_structures(CELLS, neon(), options.out / "unequal", one)}
    for name, cell in CELLS.items():
        sizes = {"supercell": SIXTY_FOUR[name], "check_supercell": EIGHT[name]} if large else {}
        own = settings.changed(**{"supercell": SIXTEEN[name], **sizes})
        found[f"equal {name}"] = rank_structures({name: cell}, neon(), options.out / "equal" / name, own)
    for kind, result in found.items():
        for row in result.summary["ranking"]:
            rows.append(
                {
                    "cells": kind.split()[0],
                    "structure": row["name"],
                    "atoms": row["atoms_in_supercell"],
                    "converged": row["converged"],
                    "supercell_alone_meV": 1000 * row["free_energy_supercell_eV_per_atom"],
                    "dense_mesh_meV": 1000 * row["dense_mesh_eV_per_atom"],
                    "gibbs_meV": 1000 * row["gibbs_eV_per_atom"],
                    "error_meV": 1000 * row["error_eV_per_atom"],
                    "size_meV": 1000 * row.get("size_eV_per_atom", np.nan),
                    "volume_A3": row["volume_A3_per_atom"],
                }
            )
    for kind in ("unequal", "equal"):
        own = {row["structure"]: row for row in rows if row["cells"] == kind}
        for row in own.values():
            row["above_fcc_meV"] = row["gibbs_meV"] - own["fcc"]["gibbs_meV"]
            statistics = float(np.hypot(row["error_meV"], own["fcc"]["error_meV"]))
            row["above_fcc_statistical_error_meV"] = statistics
            size = abs(row["size_meV"] - own["fcc"]["size_meV"])
            row["above_fcc_error_meV"] = float(np.hypot(statistics, size)) if large else statistics
            row["above_fcc_supercell_alone_meV"] = row["supercell_alone_meV"] - own["fcc"]["supercell_alone_meV"]
    with (options.out / "neon.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})


if __name__ == "__main__":
    main()
