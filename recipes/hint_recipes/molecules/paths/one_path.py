"""One reaction path: relaxed with checkpoints, its vibrations computed, everything written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.io import iread

from hint_plugins.runs.files import replacing, write_csv
from hint_plugins.runs.items import safe_name, write_frames
from hint_plugins.structures.copies import bare, moved
from hint_plugins.units import KCAL
from hint_recipes.failures import SearchFailure
from hint_recipes.molecules.paths.band import relaxed_band
from hint_recipes.molecules.paths.elastic_band import with_roles, without_repeats
from hint_recipes.molecules.paths.fingerprint import Fingerprint, fingerprint, plot_fingerprint
from hint_recipes.molecules.paths.settings import BandSettings
from hint_recipes.molecules.transition_states.reaction import Reaction

if TYPE_CHECKING:
    from hint_plugins.potential import Potential


def run_path(
    name: str,
    item: Reaction | Sequence[Atoms],
    potential: Potential,
    settings: BandSettings,
    directory: Path,
    key: str,
    *,
    checkpoint_every: int = 20,
) -> dict[str, Any]:
    """Relax (unless ``item`` is a path already), compute the vibrations, and write ``directory/NAME``.

    Parameters
    ----------
    name, item
        A reaction, or the images of a path, which is taken as it is.
    potential, settings
        See :func:`~hint_recipes.molecules.paths.band.relaxed_band`.
    directory
        The folder ``NAME`` in it gets ``path.extxyz``, ``frequencies.csv``, ``hessians.npz``, ``fingerprint.png``.
    key
        Of this run; a checkpoint with another key is not used.
    checkpoint_every
        Steps.

    Returns
    -------
    dict
        ``name, converged, barrier, reaction_energy`` (eV; also ``_kcal_mol``), ``n_images, coordinate, energies,
        frequencies_cm1`` (images x modes), ``orthogonal_frequencies_cm1``, ``n_imaginary_top`` (modes below -10 cm^-1
        at the highest image), ``n_forces, n_hessians, reason``.
    """
    folder = Path(directory) / safe_name(name)
    folder.mkdir(parents=True, exist_ok=True)
    forces, hessians = potential.calls.forces, potential.calls.hessians
    record: dict[str, Any] = {"name": name, "converged": False, "barrier": None, "reason": None}
    try:
        if isinstance(item, Reaction):
            images, converged = _relax(item, potential, settings, folder / "band.extxyz", key, checkpoint_every)
        else:
            images, converged = without_repeats([bare(atoms) for atoms in item]), True
        found = fingerprint(images, potential)
        record |= describe(found) | {"converged": converged}
        if not converged:
            record["reason"] = f"the band did not reach {settings.fmax} eV/A in {settings.steps} steps"
        _write(images, found, folder, name, settings.width)
        (folder / "band.extxyz").unlink(missing_ok=True)
    except SearchFailure as failure:
        record["reason"] = f"{failure.reason}: {failure.detail}"
    except Exception as error:  # potentials fail in their own ways; the other paths go on
        record["reason"] = f"{type(error).__name__}: {error}"[:500]
    return record | {
        "n_forces": potential.calls.forces - forces,
        "n_hessians": potential.calls.hessians - hessians,
    }


def _relax(
    reaction: Reaction, potential: Potential, settings: BandSettings, checkpoint: Path, key: str, every: int
) -> tuple[list[Atoms], bool]:
    start = None
    if checkpoint.is_file():
        earlier: list[Atoms] = list(iread(checkpoint, index=":"))
        if earlier[0].info.get("run") == key:
            start = with_roles([moved(reaction.reactant, image.positions) for image in earlier])
    made = 0

    def keep(images: list[Atoms]) -> None:
        nonlocal made
        made += 1
        if made % every == 0:
            write_frames(checkpoint, [Atoms(image.numbers, image.positions, info={"run": key}) for image in images])

    return relaxed_band(reaction, potential, settings, start=start, observer=keep)


def describe(found: Fingerprint) -> dict[str, Any]:
    """A fingerprint as plain data (without the Hessians)."""
    top = int(found.energies.argmax())
    return {
        "n_images": len(found.energies),
        "barrier": float(found.energies[top] - found.energies[0]),
        "barrier_kcal_mol": float((found.energies[top] - found.energies[0]) / KCAL),
        "reaction_energy": float(found.energies[-1] - found.energies[0]),
        "reaction_energy_kcal_mol": float((found.energies[-1] - found.energies[0]) / KCAL),
        "top": top,
        "n_imaginary_top": int((found.frequencies[top] < -10.0).sum()),
        "coordinate": found.coordinate,
        "energies": found.energies,
        "frequencies_cm1": found.frequencies,
        "orthogonal_frequencies_cm1": found.orthogonal,
    }


def _write(images: list[Atoms], found: Fingerprint, folder: Path, name: str, width: float) -> None:
    write_frames(folder / "path.extxyz", images)
    rows = [
        {"image": k, "coordinate_sqrt_amu_A": s, "energy_eV": e} | {f"cm1_{m}": w for m, w in enumerate(waves)}
        for k, (s, e, waves) in enumerate(zip(found.coordinate, found.energies, found.frequencies, strict=True))
    ]
    write_csv(folder / "frequencies.csv", rows)
    with replacing(folder / "hessians.npz") as temporary:
        np.savez_compressed(temporary, hessians=found.hessians, coordinate=found.coordinate)
    plot_fingerprint(found, folder / "fingerprint.png", title=name, width=width)
