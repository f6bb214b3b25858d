"""What an SSCHA run leaves behind: tables, pictures, standard files; and its progress."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms

from hint_plugins.runs.figures import new_figure, save_figure
from hint_plugins.runs.files import write_csv
from hint_plugins.runs.progress import progress_bar
from hint_recipes.crystals.force_constants.cellconstructor import to_cellconstructor
from hint_recipes.crystals.force_constants.dielectric import missing_charges
from hint_recipes.crystals.force_constants.dynamical_matrices import write_dynamical_matrices
from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.phonons.harmonic import bands, save_force_constants
from hint_recipes.crystals.phonons.plots import WITHOUT_CHARGES, plot_bands
from hint_recipes.crystals.sscha.state import State


def write_tables(out: Path, sources: dict[str, ForceConstants], crystal: Atoms) -> None:
    from ase.io import write

    write(out / "centroids.extxyz", crystal)
    for name, constants in sources.items():
        save_force_constants(constants, out, name)
        write_dynamical_matrices(to_cellconstructor(constants), out / "dyn" / f"{name}-dyn", constants.tensors)
    write_csv(
        out / "frequencies.csv",
        [
            {"source": name, "q1": q[0], "q2": q[1], "q3": q[2], "mode": mode + 1, "cm1": value}
            for name, constants in sources.items()
            for q, row in zip(constants.q_points, constants.frequencies(), strict=True)
            for mode, value in enumerate(row)
        ],
    )
    missing = missing_charges(crystal) and any(constants.tensors is None for constants in sources.values())
    plot_bands(
        {name: bands(constants) for name, constants in sources.items()},
        out / "bands.png",
        title=WITHOUT_CHARGES if missing else None,
    )


def write_history(out: Path, state: State, static: float) -> None:
    write_csv(out / "populations.csv", state.history)
    write_csv(out / "minimisation.csv", state.steps)
    figure, axes = new_figure(6.4, 7.2, nrows=3, sharex=True)
    x = np.arange(len(state.steps))
    energies = np.array([row["free_energy_eV"] for row in state.steps]) - static
    errors = np.array([row["error_eV"] for row in state.steps])
    axes[0].errorbar(x, 1000 * energies, 1000 * errors, lw=1, elinewidth=0.4, color="C0")
    axes[0].set_ylabel("free energy - static energy\n(meV per unit cell)")
    gradient = [row["gradient_over_error"] for row in state.steps]
    axes[1].semilogy(x, [g or np.nan for g in gradient], color="C1")
    axes[1].set_ylabel("gradient / its error")
    axes[2].plot(x, [row["kong_liu"] for row in state.steps], color="C2")
    axes[2].set(ylabel="effective sample", xlabel="minimisation step", ylim=(0, 1.02))
    marks = [(r["stage"], r["population"]) for r in state.steps]
    for index in range(1, len(marks)):
        if marks[index] != marks[index - 1]:
            for axis in axes:
                axis.axvline(index - 0.5, color="0.8", lw=0.6)
    save_figure(figure, out / "convergence.png")


class Progress:
    """Progress bar over populations with what matters for convergence."""

    def __init__(self, total: int, done: int) -> None:
        self._bar = progress_bar(total, "SSCHA", "population")
        self._bar.update(done)

    def __call__(self, state: State) -> None:
        row = state.history[-1]
        self._bar.set_postfix_str(
            f"{row['supercell']} F {row['free_energy_eV']:.5f}({row['free_energy_error_eV']:.5f}) eV, "
            f"gradient/error {row['gradient_over_error']:.3g}, sample {row['kong_liu']:.2f}, "
            f"lowest {row['lowest_cm1']:.1f} cm-1"
        )
        self._bar.update()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
