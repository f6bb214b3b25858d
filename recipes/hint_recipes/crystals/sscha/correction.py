"""From the model's free energy to the reference's: a few configurations of the converged ensemble, evaluated again."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.potential import PotentialError
from hint_plugins.runs.items import ItemStore, digest, write_frames
from hint_recipes.crystals.force_constants.cellconstructor import to_cellconstructor
from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.sscha.ensemble import EnsembleEngine
from hint_recipes.crystals.sscha.known_potential import KnownPotential
from hint_recipes.crystals.sscha.perturbation import perturbation
from hint_recipes.crystals.sscha.populations import draw
from hint_recipes.crystals.sscha.settings import SschaSettings


def correct(
    constants: ForceConstants,
    engine: EnsembleEngine,
    settings: SschaSettings,
    reference: KnownPotential,
    count: int,
    out: Path,
) -> dict[str, Any]:
    """First-order and exponential correction from ``count`` configurations of the converged ensemble, per unit cell.

    Each reference energy is on disk (``correction/``) before the next is computed, and none is computed twice, also
    when the run is killed; failing configurations are left out. ``correction.extxyz`` holds the others at the end.
    """
    dyn = to_cellconstructor(constants)
    dyn.Symmetrize()
    ensemble = draw(dyn, settings.temperature, count + count % 2, (settings.seed, 2 * 10**6))
    structures = [s.get_ase_atoms() for s in ensemble.structures]
    found = engine.evaluate(structures)
    reasons, energies = dict(found.reasons), np.full(len(structures), np.nan)
    store, written = ItemStore(out / "correction"), []
    for index in map(int, np.flatnonzero(found.good)):
        atoms = structures[index]
        try:
            energies[index] = _reference_energy(store, f"configuration-{index}", atoms, reference)
        except PotentialError as error:
            reasons[index] = f"reference: {error}"
            continue
        if not np.isfinite(energies[index]):
            reasons[index] = "reference: the energy is not finite"
            continue
        atoms.info.update(configuration=index, model_energy=found.energies[index], REF_energy=energies[index])
        written.append(atoms)
    if written:
        write_frames(out / "correction.extxyz", written)
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


def _reference_energy(store: ItemStore, name: str, atoms: Atoms, reference: KnownPotential) -> float:
    """The energy (eV) of a configuration, computed once for a reference."""
    key = digest(reference.identity, atoms)
    if (done := store.get(name, key)) is not None:
        return float(done["energy"])
    energy = float(reference.potential.evaluate([atoms]).energies[0])
    if np.isfinite(energy):
        store.put(name, key, {"energy": energy})
    return energy
