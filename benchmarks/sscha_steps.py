"""The starting step of the SSCHA minimisation: convergence, free energy and time on three crystals.

    PYTHONPATH=tests python benchmarks/sscha_steps.py [--steps 0.002 0.02 0.2] [--seeds 2] [--out OUT.csv]
        [--snte DATA]

Needs python-sscha. Crystals: the solvable quartic crystal (300 K, from its harmonic matrix), copper as hcp (EMT, 300 K,
centroids free), the double well above its transition (300 K, from imaginary modes), and with ``--snte`` the toy model
of python-sscha (0 K; see ``scripts/check_sscha_snte.py``), whose free energy has no exact value. Energies of fresh
ensembles in the supercell, meV per unit cell; ``seconds`` is CPU time without the fresh ensemble.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import bulk

HERE = Path(__file__).parents[1]
sys.path[:0] = [str(HERE / "tests"), str(HERE / "scripts")]


def crystals(snte: Path | None) -> dict[str, tuple[Any, Any, float, float | None]]:
    """Name to engine, harmonic force constants, temperature (K) and exact free energy (eV per unit cell)."""
    from helpers.double_well_crystal import DoubleWellCrystal, zincblende
    from helpers.quartic_crystal import QuarticCrystal

    from hint_plugins.potential import Potential
    from hint_recipes.crystals.force_constants.from_potential import force_constants_from_potential
    from hint_recipes.crystals.sscha.ensemble import EnsembleEngine

    found: dict[str, tuple[Any, Any, float, float | None]] = {}

    def add(name: str, calculator: Any, cell: Any, multiples: tuple[int, int, int], exact: float | None) -> None:
        potential = Potential.load(calculator)
        constants = force_constants_from_potential(potential, cell, multiples)
        found[name] = EnsembleEngine(potential), constants, 300.0, exact

    quartic = QuarticCrystal(k=0.5, g=8.0)
    add("quartic", quartic, quartic.primitive, (2, 2, 2), quartic.solve(300.0)[1])
    add("copper", "emt", bulk("Cu", "hcp", a=2.56, c=4.18), (2, 2, 2), None)
    well = DoubleWellCrystal((2, 2, 2))
    add("double well", well, zincblende(), (2, 2, 2), well.free_energy(300.0))
    if snte is not None:
        from check_sscha_snte import ToyPotential

        from hint_recipes.crystals.force_constants.cellconstructor import from_cellconstructor
        from hint_recipes.crystals.force_constants.dynamical_matrices import read_dynamical_matrices

        field = read_dynamical_matrices(snte / "ffield_dynq")
        engine = EnsembleEngine(ToyPotential(field), max_energy=50)  # type: ignore[arg-type]
        found["SnTe"] = engine, from_cellconstructor(field), 0.0, None
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=float, nargs="+", default=[0.002, 0.02, 0.2])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--configurations", type=int, default=200)
    parser.add_argument("--crystals", nargs="+", default=None)
    parser.add_argument("--snte", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=None, help="CSV table")
    options = parser.parse_args()
    from hint_recipes.crystals.force_constants.cellconstructor import output_to, to_cellconstructor
    from hint_recipes.crystals.sscha.ensemble_averages import free_energy
    from hint_recipes.crystals.sscha.populations import draw, run, start
    from hint_recipes.crystals.sscha.settings import SschaSettings
    from hint_recipes.crystals.sscha.state import State

    rows = []
    for name, (engine, constants, temperature, exact) in crystals(options.snte).items():
        if options.crystals and name not in options.crystals:
            continue
        first, changed = start(constants)
        for step in options.steps:
            for seed in range(options.seeds):
                settings = SschaSettings(
                    temperature=temperature, configurations=options.configurations, step=step, seed=seed
                )
                clock = time.process_time()
                with output_to(None):
                    state = run(State(first, difficult=changed > 0), engine, settings, [first.multiples])
                    seconds = time.process_time() - clock
                    dyn = to_cellconstructor(state.constants)
                    ensemble, pairs = engine.fill(draw(dyn, temperature, 2000, (seed, 3 * 10**6)))
                    ensemble.update_weights(dyn, temperature)
                    energy, error = (value / state.constants.num_cells for value in free_energy(ensemble, pairs))
                rows.append(
                    {
                        "crystal": name,
                        "step": step,
                        "seed": seed,
                        "converged": state.converged,
                        "populations": state.population,
                        "minimisation_steps": sum(row["steps"] for row in state.history),
                        "free_energy_meV": 1000 * energy,
                        "error_meV": 1000 * error,
                        "exact_meV": None if exact is None else 1000 * exact,
                        "lowest_cm1": float(np.sort(state.constants.frequencies().ravel())[3]),
                        "seconds": seconds,
                    }
                )
                print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    if options.out is not None:
        with options.out.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
