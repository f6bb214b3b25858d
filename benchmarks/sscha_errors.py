"""Bias and scatter of SSCHA free energies on a crystal with an exact solution: at the minimum, and on fresh ensembles.

    PYTHONPATH=tests python benchmarks/sscha_errors.py [--configurations 20 50 100] [--runs 20] [--out OUT.csv]

Needs python-sscha. Each run starts from the harmonic matrix with its own seed. ``scatter / error`` is the standard
deviation over runs divided by the mean quoted error: 1 for honest errors. Energies in meV per unit cell.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configurations", type=int, nargs="+", default=[20, 50, 100, 200])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--temperature", type=float, default=300.0, help="K")
    parser.add_argument("--out", type=Path, default=None, help="CSV table")
    options = parser.parse_args()
    from helpers.quartic_crystal import QuarticCrystal

    from hint_plugins.potential import Potential
    from hint_recipes.crystals.force_constants.cellconstructor import output_to, to_cellconstructor
    from hint_recipes.crystals.force_constants.from_potential import force_constants_from_potential
    from hint_recipes.crystals.sscha.ensemble import EnsembleEngine
    from hint_recipes.crystals.sscha.ensemble_averages import free_energy
    from hint_recipes.crystals.sscha.populations import draw, run, start
    from hint_recipes.crystals.sscha.settings import SschaSettings
    from hint_recipes.crystals.sscha.state import State

    crystal = QuarticCrystal(k=0.5, g=8.0)
    potential = Potential.load(crystal)
    engine = EnsembleEngine(potential)
    _, exact = crystal.solve(options.temperature)
    first = start(force_constants_from_potential(potential, crystal.primitive, crystal.multiples))[0]
    rows = []
    for count in options.configurations:
        found = []
        for seed in range(options.runs):
            settings = SschaSettings(
                temperature=options.temperature, configurations=count, max_populations=4, seed=seed,
                relax_positions=False, step=0.2,
            )  # fmt: skip
            with output_to(None):
                state = run(State(first), engine, settings, [crystal.multiples])
                dyn = to_cellconstructor(state.constants)
                ensemble, pairs = engine.fill(draw(dyn, options.temperature, count, (seed, 3 * 10**6)))
                ensemble.update_weights(dyn, options.temperature)
                value, error = free_energy(ensemble, pairs)
            last = state.history[-1]
            cells = state.constants.num_cells
            found.append([last["free_energy_eV"], last["free_energy_error_eV"], value / cells, error / cells])
        energies = 1000 * np.array(found)
        for name, column in (("minimised", 0), ("fresh", 2)):
            values, errors = energies[:, column], energies[:, column + 1]
            rows.append(
                {
                    "configurations": count,
                    "free_energy": name,
                    "bias_meV": values.mean() - 1000 * exact,
                    "bias_error_meV": values.std(ddof=1) / np.sqrt(len(values)),
                    "scatter_over_error": values.std(ddof=1) / errors.mean(),
                    "covered": float((np.abs(values - 1000 * exact) < errors).mean()),
                }
            )
            print({k: round(v, 4) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    if options.out is not None:
        with options.out.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
