"""SSCHA ensembles evaluated whole: one batched call of the model instead of one call a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from hint_plugins.errors import InputError

if TYPE_CHECKING:
    from sscha.Ensemble import Ensemble

    from hint_plugins.potential import Potential

#: A run is stopped when more than this share of an ensemble cannot be used.
MAX_DROPPED = 0.2


@dataclass
class Evaluated:
    """Energies (eV), forces (eV/A), stresses (eV/A^3, ASE's sign, 3x3); ``reasons`` names configurations not usable."""

    energies: np.ndarray
    forces: np.ndarray
    stresses: np.ndarray | None
    reasons: dict[int, str] = field(default_factory=dict)

    @property
    def good(self) -> np.ndarray:
        """Mask of the configurations that can be used."""
        mask = np.ones(len(self.energies), dtype=bool)
        mask[list(self.reasons)] = False
        return mask


@dataclass
class EnsembleEngine:
    """Force engine of an SSCHA run.

    Attributes
    ----------
    potential
        The model.
    on_bad
        ``drop`` configurations on which the model fails or explodes (counted, named, written to a file), or ``stop``.
    max_energy
        A configuration is bad when its energy is further than this from the ensemble's median, eV per atom.
    max_force
        A configuration is also bad when a force component exceeds this, eV/A.
    directory
        Bad configurations are appended to ``bad_configurations.extxyz`` there.
    """

    potential: Potential
    on_bad: str = "drop"
    max_energy: float = 5.0
    max_force: float = 500.0
    directory: Path | None = None

    def evaluate(self, structures: Sequence[Atoms], *, stress: bool = False) -> Evaluated:
        """Evaluate configurations in batches and find those that cannot be used.

        Raises
        ------
        InputError
            If the model gives no stresses although asked.
        """
        result = self._batched(list(structures), stress)
        usable = result.good
        if not usable.any():
            return result
        per_atom = result.energies / np.array([len(atoms) for atoms in structures])
        median = np.median(per_atom[usable])
        for index in np.flatnonzero(usable):
            force = np.abs(result.forces[index]).max()
            if abs(per_atom[index] - median) > self.max_energy:
                result.reasons[int(index)] = (
                    f"energy {per_atom[index] - median:+.2f} eV per atom from the median "
                    f"(--max-energy {self.max_energy})"
                )
            elif force > self.max_force:
                result.reasons[int(index)] = f"force of {force:.0f} eV/A (--max-force {self.max_force:.0f})"
        if stress and result.stresses is not None and not np.isfinite(result.stresses[result.good]).all():
            raise InputError("the model gives no stresses: choose a fixed cell without --stress")
        return result

    def _batched(self, structures: list[Atoms], stress: bool) -> Evaluated:
        from hint_plugins.potential import PotentialError

        count, atoms = len(structures), len(structures[0])
        result = Evaluated(np.full(count, np.nan), np.full((count, atoms, 3), np.nan), None)
        stresses = np.full((count, 3, 3), np.nan)

        def take(indices: Sequence[int]) -> None:
            try:
                found = self.potential.evaluate([structures[i] for i in indices], stress=stress)
            except PotentialError as error:
                half = len(indices) // 2
                if half == 0:
                    result.reasons[indices[0]] = str(error)
                for part in (indices[:half], indices[half:]) if half else ():  # the others are kept
                    take(part)
                return
            for place, index in enumerate(indices):
                result.energies[index], result.forces[index] = found.energies[place], found.forces[place]
                if stress:
                    assert found.stresses is not None
                    stresses[index] = _full_stress(np.asarray(found.stresses[place]))

        take(range(count))
        for index in range(count):
            finite = np.isfinite(result.energies[index]) and np.isfinite(result.forces[index]).all()
            if not finite and index not in result.reasons:
                result.reasons[index] = "energy or forces are not finite"
        result.stresses = stresses if stress else None
        return result

    def fill(self, ensemble: Ensemble, *, stress: bool = False, label: str = "") -> tuple[Ensemble, np.ndarray]:
        """Put energies, forces and stresses into an ensemble.

        Parameters
        ----------
        ensemble
            Generated, not yet evaluated.
        stress
            Also stresses.
        label
            Names the ensemble in messages.

        Returns
        -------
        Ensemble, ndarray
            The ensemble without bad configurations, and for each of the others the number of its mirror pair.

        Raises
        ------
        InputError
            If configurations are bad and ``on_bad`` is ``stop``, or too many are.
        """
        import cellconstructor as CC

        structures = [structure.get_ase_atoms() for structure in ensemble.structures]
        result = self.evaluate(structures, stress=stress)
        if result.reasons:
            self._report(structures, result.reasons, label)
        rydberg, bohr = CC.Units.RY_TO_EV, CC.Units.BOHR_TO_ANGSTROM
        ensemble.energies[:] = result.energies / rydberg
        ensemble.forces[:] = result.forces / rydberg
        ensemble.force_computed[:] = True
        ensemble.has_stress = stress
        if stress and result.stresses is not None:
            ensemble.stresses[:] = -result.stresses * bohr**3 / rydberg
            ensemble.stress_computed[:] = True
        pairs = np.flatnonzero(result.good) // 2  # configurations come in mirror pairs, one after the other
        if result.reasons:
            return ensemble.split(result.good), pairs
        ensemble.init()
        return ensemble, pairs

    def _report(self, structures: list[Atoms], reasons: dict[int, str], label: str) -> None:
        first = min(reasons)
        message = (
            f"{label}: {len(reasons)} of {len(structures)} configurations cannot be used; number {first}: "
            f"{reasons[first]}"
        )
        where = ""
        if self.directory is not None:
            from ase.io import write

            path = Path(self.directory) / "bad_configurations.extxyz"
            for index, reason in reasons.items():
                atoms = structures[index].copy()
                atoms.info = {"ensemble": label, "configuration": index, "reason": reason.replace('"', "'")}
                write(path, atoms, append=True)
            where = f" They are in {path}."
        if self.on_bad == "stop" or len(reasons) > MAX_DROPPED * len(structures):
            raise InputError(
                f"{message}.{where} The model is not reliable so far from its training data: train it there, lower the "
                "temperature, or start from stiffer force constants"
            )
        import sys

        print(f"hint: {message}; dropped.{where}", file=sys.stderr)


def _full_stress(stress: np.ndarray) -> np.ndarray:
    if stress.shape == (3, 3):
        return stress
    xx, yy, zz, yz, xz, xy = stress
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def require_sscha() -> Any:
    """The ``sscha`` package.

    Raises
    ------
    InputError
        If it is not installed.
    """
    from hint_recipes.crystals.force_constants.cellconstructor import require_cellconstructor

    require_cellconstructor()
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # optional parts of python-sscha that are not installed
            import sscha
            import sscha.Ensemble
            import sscha.Relax
            import sscha.SchaMinimizer
    except ImportError as error:
        raise InputError(f"this needs python-sscha ({error}): run `make env-sscha` (scripts/env_sscha.sh)") from None
    return sscha
