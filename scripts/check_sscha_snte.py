"""Check the SSCHA machinery against the stored results of the SnTe toy model of python-sscha.

    python scripts/check_sscha_snte.py DATA [--temperature 0] [--configurations 1000] [--hessian 5000]

DATA is ``Tutorials/SnTe_ToyModel`` of the python-sscha repository (GPL data, not part of this project); it needs
F3ToyModel (``scripts/env_sscha.sh --toy``). No model is involved: the force field is the
one that made the stored results.

Tolerances: modes of the auxiliary matrix within 3 cm^-1 rms, since two independent re-runs differ by 2 cm^-1 from the
stored matrix at 0 K; soft mode of the free-energy Hessian within 1.5 cm^-1 at 0 K and 6 cm^-1 above 200 K (2,500
configurations).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hint_recipes.crystals.force_constants.cellconstructor import from_cellconstructor, require_cellconstructor
from hint_recipes.crystals.force_constants.dynamical_matrices import read_dynamical_matrices
from hint_recipes.crystals.sscha.ensemble import EnsembleEngine
from hint_recipes.crystals.sscha.free_energy_hessian import free_energy_hessian
from hint_recipes.crystals.sscha.populations import run, start
from hint_recipes.crystals.sscha.settings import SschaSettings
from hint_recipes.crystals.sscha.state import State


@dataclass
class Predictions:
    energies: np.ndarray
    forces: np.ndarray
    stresses: None = None


class ToyPotential:
    """The toy force field on a list of supercells: one Fortran call."""

    def __init__(self, dyn) -> None:
        from fforces.Calculator import ToyModelCalculator

        self.toy = ToyModelCalculator(dyn, type_cal="pbtex")
        self.toy.p3, self.toy.p4, self.toy.p4x = 0.036475, -0.022, -0.014

    def evaluate(self, structures, *, stress: bool = False) -> Predictions:
        import fforceslibs

        CC, toy = require_cellconstructor(), self.toy
        positions = np.array([atoms.positions for atoms in structures]) * CC.Units.A_TO_BOHR
        moved = np.asfortranarray(positions - toy.tau_sc.T)
        forces, energies = fforceslibs.get_forces_energies(
            toy.phi_sc_harmonic / 2, moved, toy.type_cal, toy.ityp_sc, toy.at_sc, toy.tau_sc, toy.b, toy.c, toy.p2,
            toy.p3, toy.p4, toy.p5, toy.p6, toy.p4x, toy.p3x, toy.p4f, toy.p4g, toy.nn_at, toy.nn_vect, toy.slv_idx,
        )  # fmt: skip
        hartree = 2 * CC.Units.RY_TO_EV
        return Predictions(energies * hartree, forces * hartree / CC.Units.BOHR_TO_ANGSTROM)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--temperature", type=int, default=300, help="K: 0 or another one with stored results")
    parser.add_argument("--configurations", type=int, default=500)
    parser.add_argument("--hessian", type=int, default=2500, help="configurations for the free-energy Hessian")
    parser.add_argument("--start", default=None, help="prefix in DATA to start from; default: the toy's harmonic part")
    options = parser.parse_args()
    field = read_dynamical_matrices(options.data / "ffield_dynq")
    engine = EnsembleEngine(ToyPotential(field), max_energy=50)
    first = from_cellconstructor(read_dynamical_matrices(options.data / (options.start or "ffield_dynq")))
    constants, changed = start(first)
    print(f"start: lowest {first.frequencies().min():.2f} cm^-1, {changed} modes made positive")
    settings = SschaSettings(temperature=options.temperature, configurations=options.configurations)
    clock = time.perf_counter()
    state = run(
        State(constants, difficult=changed > 0), engine, settings, [(2, 2, 2)],
        progress=lambda s: print({k: s.history[-1][k] for k in ("population", "steps", "kong_liu", "lowest_cm1")}),
    )  # fmt: skip
    print(f"converged {state.converged}, {time.perf_counter() - clock:.0f} s")
    stored = from_cellconstructor(read_dynamical_matrices(options.data / f"final_sscha_T{options.temperature}_"))
    difference = state.constants.frequencies() - stored.frequencies()
    rms = np.sqrt((difference**2).mean())
    print(f"auxiliary modes: lowest {lowest(state.constants):.2f} (stored {lowest(stored):.2f}), "
          f"rms {rms:.2f}, max {np.abs(difference).max():.2f} cm^-1")  # fmt: skip
    curved = free_energy_hessian(state.constants, engine, settings, options.hessian)
    soft_mode = curved.summary()
    prefix = "hessian" if options.temperature == 0 else f"hessian_T{options.temperature}_"
    known = from_cellconstructor(read_dynamical_matrices(options.data / prefix))
    print(
        f"free-energy Hessian: soft mode {soft_mode['lowest_cm1']:.2f} +- {soft_mode['lowest_error_cm1']:.2f} "
        f"(stored {lowest(known):.2f}) cm^-1"
    )
    soft = 1.5 if options.temperature < 200 else 6.0
    good = rms <= 3 and abs(soft_mode["lowest_cm1"] - lowest(known)) <= soft
    print("agrees" if good else "DISAGREES")
    raise SystemExit(0 if good else 1)


def lowest(constants) -> float:
    """Lowest mode that is no uniform translation, cm^-1."""
    values = np.sort(constants.acoustic_sum_rule().frequencies().ravel())
    return float(values[np.argsort(np.abs(values))[3:]].min())


if __name__ == "__main__":
    main()
