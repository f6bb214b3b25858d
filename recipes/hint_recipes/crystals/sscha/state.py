"""State of an SSCHA run, which is its checkpoint, and what identifies it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.errors import InputError
from hint_plugins.runs.files import replacing
from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.sscha.settings import SschaSettings

#: GPa in eV/A^3.
GPA = 1 / 160.21766208


#: Settings that may differ when a checkpoint is continued; supercells enter as the stages of a run.
NOT_IDENTIFYING = frozenset(
    (
        "max_populations",
        "final_configurations",
        "supercell",
        "stage",
        "hessian_configurations",
        "four_phonon",
        "reference_configurations",
        "born",
    )
)


@dataclass
class State:
    """Where a run stands: everything the next population needs."""

    constants: ForceConstants  #: auxiliary force constants, centroids, cell
    stage: int = 0
    population: int = 0  #: populations done in this stage
    converged: bool = False
    stopped: str = ""  #: the criterion that the last population did not meet
    difficult: bool = False  #: the start had imaginary modes
    history: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    next_cell: list[list[float]] | None = None  #: cell of the next population (A), if it is another
    cell_optimiser: dict[str, Any] = field(default_factory=dict)  #: its memory of earlier cell steps

    def save(self, path: Path, fingerprint: dict[str, Any]) -> None:
        """Write the checkpoint, whole or not at all."""
        crystal = self.constants.primitive
        meta = {
            "stage": self.stage,
            "population": self.population,
            "converged": self.converged,
            "stopped": self.stopped,
            "difficult": self.difficult,
            "history": self.history,
            "steps": self.steps,
            "next_cell": self.next_cell,
            "cell_optimiser": self.cell_optimiser,
            "fingerprint": fingerprint,
        }
        with replacing(path) as temporary:
            np.savez(
                temporary,
                hessian=self.constants.hessian,
                multiples=np.array(self.constants.multiples),
                numbers=crystal.numbers,
                positions=crystal.positions,
                cell=crystal.cell.array,
                masses=crystal.get_masses(),
                meta=np.array(json.dumps(meta)),
            )

    @classmethod
    def load(cls, path: Path, fingerprint: dict[str, Any]) -> State:
        """Read a checkpoint.

        Raises
        ------
        InputError
            If it is damaged or belongs to a run with other options.
        """
        try:
            with np.load(path) as content:
                meta = json.loads(str(content["meta"]))
                crystal = Atoms(content["numbers"], positions=content["positions"], cell=content["cell"], pbc=True)
                crystal.set_masses(content["masses"])
                constants = ForceConstants(crystal, tuple(content["multiples"]), content["hessian"])
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path}: damaged checkpoint ({error}): start again with --overwrite") from None
        old = meta.pop("fingerprint")
        changed = sorted(k for k in fingerprint if k not in old or old[k] != fingerprint[k])
        if changed:
            raise InputError(
                f"{path}: the unfinished run there had other options ({changed[0]}: {old.get(changed[0])}, now "
                f"{fingerprint[changed[0]]}): repeat it with the old ones, choose another --out, or add --overwrite"
            )
        return cls(constants, **meta)


def fingerprint(settings: SschaSettings, **more: Any) -> dict[str, Any]:
    """What must be the same for a checkpoint to be continued: all but :data:`NOT_IDENTIFYING`, and ``more``."""
    values = settings.model_dump(exclude=set(NOT_IDENTIFYING)) | more
    return json.loads(json.dumps(values, default=str))
