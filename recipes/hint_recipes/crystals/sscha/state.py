"""Options and state of an SSCHA run; the state is the checkpoint."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.errors import InputError
from hint_plugins.runs.files import replacing
from hint_recipes.crystals.force_constants.force_constants import ForceConstants

#: GPa in eV/A^3.
GPA = 1 / 160.21766208


@dataclass(frozen=True)
class SschaSettings:
    """Options of a run; the defaults are those of the HINT paper (arXiv:2603.25373).

    Parameters
    ----------
    temperature
        K.
    configurations
        Configurations of a population (even: each comes with its mirror image).
    min_populations, max_populations
        Populations of a stage at least and at most.
    final_configurations
        Configurations of the fresh ensemble that gives the free energy and all errors at the end (even); 0 takes as
        many as in a population.
    step
        Starting step of dynamical matrix and positions; the line search adapts it.
    kong_liu
        A new population is drawn when the effective sample falls below this share; no result is accepted below it.
    meaningful_factor
        Converged when the gradient is below this share of its statistical error.
    representation
        ``normal``, ``sqrt``, ``root4``, or ``auto``: ``root4`` with large steps and a Kong-Liu ratio of 0.2 while far
        from the solution (the start had imaginary modes; first population), ``normal`` otherwise.
    relax_positions, relax_cell, fix_volume
        What moves; symmetry is kept.
    pressure
        Target pressure, GPa.
    bulk_modulus
        GPa; sets the size of the first cell step.
    stress
        Evaluate stresses also at fixed cell.
    seed
        Every population draws from ``(seed, stage, population)``.
    """

    temperature: float = 0.0
    configurations: int = 500
    min_populations: int = 2
    max_populations: int = 30
    final_configurations: int = 0
    step: float = 0.002
    kong_liu: float = 0.5
    meaningful_factor: float = 0.001
    representation: str = "auto"
    relax_positions: bool = True
    relax_cell: bool = False
    fix_volume: bool = False
    pressure: float = 0.0
    bulk_modulus: float = 100.0
    stress: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        problems = {
            "the temperature must not be negative": self.temperature < 0,
            "the number of configurations must be even and at least 2": self.configurations < 2
            or self.configurations % 2,
            "at least one population is needed": min(self.min_populations, self.max_populations) < 1,
            "the number of final configurations must be even and at least 4, or 0": self.final_configurations < 0
            or self.final_configurations == 2
            or self.final_configurations % 2,
            "the step must be positive": self.step <= 0,
            "the Kong-Liu ratio must lie between 0 and 1": not 0 < self.kong_liu < 1,
            "the meaningful factor must be positive": self.meaningful_factor <= 0,
            "the representation must be auto, normal, sqrt or root4": self.representation
            not in ("auto", "normal", "sqrt", "root4"),
            "the bulk modulus must be positive": self.bulk_modulus <= 0,
            "the seed must not be negative": self.seed < 0,
        }
        for message, wrong in problems.items():
            if wrong:
                raise InputError(message)


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
        changed = sorted(k for k in fingerprint if json.dumps(old.get(k)) != json.dumps(fingerprint[k]))
        if changed:
            raise InputError(
                f"{path}: the unfinished run there had other options ({changed[0]}: {old.get(changed[0])}, now "
                f"{fingerprint[changed[0]]}): repeat it with the old ones, choose another --out, or add --overwrite"
            )
        return cls(constants, **meta)


def fingerprint(settings: SschaSettings, **more: Any) -> dict[str, Any]:
    """What must be the same for a checkpoint to be continued; more populations, and another final ensemble, may be."""
    values = {**asdict(settings), **more}
    for name in ("max_populations", "final_configurations"):
        values.pop(name)
    return json.loads(json.dumps(values, default=str))
