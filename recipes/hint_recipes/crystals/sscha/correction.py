"""From the model's free energy to the reference's: a few configurations of the converged ensemble, evaluated again."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hint_recipes.crystals.force_constants.cellconstructor import to_cellconstructor
from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.sscha.ensemble import EnsembleEngine
from hint_recipes.crystals.sscha.perturbation import perturbation
from hint_recipes.crystals.sscha.populations import draw
from hint_recipes.crystals.sscha.settings import SschaSettings

if TYPE_CHECKING:
    from hint_plugins.potential import Potential


def correct(
    constants: ForceConstants,
    engine: EnsembleEngine,
    settings: SschaSettings,
    reference: Potential,
    count: int,
    out: Path,
) -> dict[str, Any]:
    """First-order and exponential correction from ``count`` configurations of the converged ensemble, per unit cell.

    Each reference energy is on disk (``correction.extxyz``) before the next is computed; failing ones are left out.
    """
    from ase.io import write

    from hint_plugins.potential import PotentialError

    dyn = to_cellconstructor(constants)
    dyn.Symmetrize()
    ensemble = draw(dyn, settings.temperature, count + count % 2, (settings.seed, 2 * 10**6))
    structures = [s.get_ase_atoms() for s in ensemble.structures]
    found = engine.evaluate(structures)
    reasons, energies = dict(found.reasons), np.full(len(structures), np.nan)
    table = out / "correction.extxyz"
    table.unlink(missing_ok=True)
    for index in np.flatnonzero(found.good):
        atoms = structures[index]
        try:
            energies[index] = reference.evaluate([atoms]).energies[0]
        except PotentialError as error:
            reasons[int(index)] = f"reference: {error}"
            continue
        if not np.isfinite(energies[index]):
            reasons[int(index)] = "reference: the energy is not finite"
            continue
        atoms.info.update(configuration=int(index), model_energy=found.energies[index], REF_energy=energies[index])
        write(table, atoms, append=True)
    if reasons:
        first = min(reasons)
        print(
            f"hint: correction: {len(reasons)} of {len(structures)} configurations left out; number {first}: "
            f"{reasons[first]}",
            file=sys.stderr,
        )
    used = np.flatnonzero(np.isfinite(energies))
    # configurations come in mirror pairs, one after the other
    correction = perturbation(
        found.energies[used], energies[used], settings.temperature, pairs=used // 2, seed=settings.seed
    )
    cells = constants.num_cells
    values = {k: v / cells if v is not None and k != "effective_sample" else v for k, v in asdict(correction).items()}
    return {"configurations": len(used), "dropped": len(reasons), **values}
