"""Bands of a polar crystal with Born charges, by this package and by stock phonopy, on the data of phonopy's examples.

    python scripts/check_polar.py phonopy-4.10.0/example/NaCl

The directory holds ``phonopy_disp.yaml``, ``FORCE_SETS`` and ``BORN`` (source distribution of phonopy on PyPI). Prints
the largest difference at 50 random wave vectors and at Gamma along x; phonopy's factor is the exact one, and both
take the same force constants.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import phonopy
from ase import Atoms, units
from phonopy.file_IO import parse_BORN

from hint_plugins.units import THZ_TO_CM1
from hint_recipes.crystals.force_constants.files import read_force_constants


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    given = phonopy.load(
        directory / "phonopy_disp.yaml", force_sets_filename=directory / "FORCE_SETS", log_level=0, is_nac=False
    )
    cell = Atoms(given.unitcell.symbols, positions=given.unitcell.positions, cell=given.unitcell.cell, pbc=True)
    constants = read_force_constants(directory / "phonopy_disp.yaml", cell)
    stock = constants.with_tensors(None).to_phonopy()
    tensors = parse_BORN(given.primitive, filename=directory / "BORN")
    charges = dict(zip(given.primitive.symbols, tensors["born"], strict=True))
    stock.nac_params = {
        "born": np.array([charges[symbol] for symbol in stock.primitive.symbols]),
        "dielectric": tensors["dielectric"],
        "factor": units.Hartree * units.Bohr,
        "method": "gonze",
    }
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (50, 3))
    ours = constants.to_phonopy()
    for name, at, direction in (("random points", points, None), ("Gamma along x", np.zeros((1, 3)), [1, 0, 0])):
        both = [p.run_qpoints(at, nac_q_direction=direction).frequencies * THZ_TO_CM1 for p in (stock, ours)]
        print(
            f"{name}: highest {both[1].max():.3f} cm^-1, largest difference {np.abs(both[0] - both[1]).max():.1e} cm^-1"
        )


if __name__ == "__main__":
    main()
