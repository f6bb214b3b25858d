"""The stochastic self-consistent harmonic approximation on any potential (python-sscha), population by population.

Monacelli et al., J. Phys.: Condens. Matter 33, 363001 (2021). Sampling, minimisation, symmetries and cell steps are
python-sscha's; here are the batched force engine, the checkpoint after every population, and the supercell stages.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from hint_plugins.cli.common import InputError, replacing
from hint_recipes.dynamical_matrices import from_cellconstructor, interpolate, to_cellconstructor
from hint_recipes.ensemble import EnsembleEngine, require_sscha
from hint_recipes.force_constants import ForceConstants

if TYPE_CHECKING:
    from sscha.Ensemble import Ensemble

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
    max_populations
        Populations of a stage at most.
    step
        Starting step of dynamical matrix and positions; the line search adapts it.
    kong_liu
        A new population is drawn when the effective sample falls below this share.
    meaningful_factor
        Converged when the gradient is below this share of its statistical error.
    representation
        ``normal``, ``sqrt``, ``root4``, or ``auto``: ``root4`` with large steps and a Kong-Liu ratio of 0.2 while far from
        the solution (the start had imaginary modes; first population), ``normal`` otherwise.
    relax_positions, relax_cell, fix_volume
        What moves; symmetry is kept.
    pressure
        Target pressure, GPa.
    bulk_modulus
        GPa; sets the size of cell steps.
    stress
        Evaluate stresses also at fixed cell.
    seed
        Every population draws from ``(seed, stage, population)``.
    """

    temperature: float = 0.0
    configurations: int = 500
    max_populations: int = 30
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
            "at least one population is needed": self.max_populations < 1,
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
    difficult: bool = False  #: the start had imaginary modes
    history: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)

    def save(self, path: Path, fingerprint: dict[str, Any]) -> None:
        """Write the checkpoint, whole or not at all."""
        crystal = self.constants.primitive
        meta = {
            "stage": self.stage,
            "population": self.population,
            "converged": self.converged,
            "difficult": self.difficult,
            "history": self.history,
            "steps": self.steps,
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


def start(constants: ForceConstants, floor: float = 20.0) -> tuple[ForceConstants, int]:
    """Symmetrised, positive definite starting force constants and the number of modes that had to be raised."""
    from hint_recipes.dynamical_matrices import unit_factor  # noqa: F401  (an early, clear message when not installed)

    ruled = constants.symmetrized().acoustic_sum_rule()
    raised, changed = ruled.positive_definite(floor)
    return raised.acoustic_sum_rule(), changed


def run(
    state: State,
    engine: EnsembleEngine,
    settings: SschaSettings,
    stages: Sequence[tuple[int, int, int]],
    *,
    checkpoint: Path | None = None,
    fingerprint: dict[str, Any] | None = None,
    log: Path | None = None,
    progress: Callable[[State], None] | None = None,
) -> State:
    """Run all supercell stages from ``state`` on.

    Parameters
    ----------
    state
        A fresh start (:func:`start`) or a loaded checkpoint.
    engine
        Force engine.
    settings
        Options.
    stages
        Repetitions of the unit cell, one stage after the other; a stage starts from the interpolated auxiliary matrix
        of the one before (Poletaev and Oganov).
    checkpoint, fingerprint
        File to write after every population, and what identifies the run.
    log
        File for the output of python-sscha.
    progress
        Called after every population.

    Returns
    -------
    State
        ``converged`` tells whether the last stage did.
    """
    while True:
        if state.converged or state.population >= settings.max_populations:
            if state.stage + 1 >= len(stages):
                return state
            wider = interpolate(state.constants, stages[state.stage + 1])
            constants, changed = start(wider)
            state = State(constants, state.stage + 1, difficult=changed > 0, history=state.history, steps=state.steps)
        with _log_to(log):
            population(state, engine, settings)
        if checkpoint is not None:
            state.save(checkpoint, fingerprint or {})
        if progress is not None:
            progress(state)


def population(state: State, engine: EnsembleEngine, settings: SschaSettings) -> None:
    """Draw, evaluate and minimise one population; updates ``state``."""
    sscha = require_sscha()
    stress = settings.stress or settings.relax_cell
    number = state.population + 1
    clock = _Clock()
    dyn = to_cellconstructor(state.constants)
    dyn.Symmetrize()
    ensemble = draw(dyn, settings.temperature, settings.configurations, (settings.seed, state.stage, number))
    clock.lap("sampling")
    ensemble, dropped = engine.fill(ensemble, stress=stress, label=f"stage {state.stage + 1}, population {number}")
    clock.lap("forces")
    far = settings.representation == "auto" and state.difficult and state.population == 0
    representation = {"auto": "root4" if far else "normal"}.get(settings.representation, settings.representation)
    minimiser = sscha.SchaMinimizer.SSCHA_Minimizer(
        ensemble,
        root_representation=representation,
        kong_liu_ratio=0.2 if far else settings.kong_liu,
        meaningful_factor=settings.meaningful_factor,
    )
    minimiser.set_minimization_step(1.0 if far else settings.step)
    minimiser.precond_dyn = representation == "normal"
    minimiser.minim_struct = settings.relax_positions
    loop = sscha.Relax.SSCHA(minimiser, N_configs=settings.configurations, max_pop=number)
    loop.save_dyn = False
    if settings.relax_cell:
        loop.vc_relax(
            settings.pressure,
            settings.bulk_modulus,
            restart_from_ens=True,
            start_pop=number,
            fix_volume=settings.fix_volume,
        )
        converged = loop.minim.is_converged() and _cell_at_rest(minimiser, settings)
    else:
        converged = loop.relax(restart_from_ens=True, start_pop=number)
    clock.lap("minimisation")
    _record(state, minimiser, ensemble, dropped, clock.laps)
    state.constants = from_cellconstructor(minimiser.dyn)
    lowest = np.sort(state.constants.frequencies().ravel())[3]
    state.history[-1]["lowest_cm1"] = float(lowest)
    state.population = number
    # one population may only polish the sample it was drawn from: the matrix must not have left that sample
    state.converged = bool(converged)


def _cell_at_rest(minimiser: Any, settings: SschaSettings) -> bool:
    """python-sscha's test of the cell: deviation from the target within the statistical error."""
    tensor, error = minimiser.get_stress_tensor()
    factor = _ry_bohr3_to_ev()
    pressure = np.trace(tensor) / 3 if settings.fix_volume else settings.pressure * GPA / factor
    moving = error != 0
    return bool((np.abs((tensor - pressure * np.eye(3))[moving]) <= error[moving]).all())


def _ry_bohr3_to_ev() -> float:
    import cellconstructor as CC

    return CC.Units.RY_TO_EV / CC.Units.BOHR_TO_ANGSTROM**3


def draw(dyn: Any, temperature: float, count: int, seed: Sequence[int]) -> Ensemble:
    """An ensemble of ``count`` configurations (with mirror images) of the auxiliary matrix."""
    sscha = require_sscha()
    np.random.seed(list(seed))  # noqa: NPY002  (CellConstructor draws from the global generator)
    ensemble = sscha.Ensemble.Ensemble(dyn, temperature, dyn.GetSupercell())
    ensemble.generate(count)
    return ensemble


def _record(state: State, minimiser: Any, ensemble: Ensemble, dropped: int, laps: dict[str, float]) -> None:
    """Append one row to ``history`` and the minimisation steps to ``steps``; energies per unit cell in eV."""
    import cellconstructor as CC

    to_ev = CC.Units.RY_TO_EV
    energy, error = (float(np.real(v)) * to_ev for v in minimiser.get_free_energy(True))
    gradient, gradient_error = minimiser.__gc__[-1], minimiser.__gc_err__[-1]
    row: dict[str, Any] = {
        "stage": state.stage + 1,
        "supercell": "x".join(map(str, state.constants.multiples)),
        "population": state.population + 1,
        "free_energy_eV": energy,
        "free_energy_error_eV": error,
        "gradient_over_error": float(gradient / gradient_error) if gradient_error else 0.0,
        "structure_gradient_over_error": _ratio(minimiser.__gw__[-1], minimiser.__gw_err__[-1]),
        "kong_liu": float(ensemble.get_effective_sample_size() / ensemble.N),
        "steps": len(minimiser.__gc__),
        "dropped": dropped,
        **{f"seconds_{k}": v for k, v in laps.items()},
    }
    if ensemble.has_stress:
        tensor, spread = minimiser.get_stress_tensor()
        row["pressure_GPa"] = float(np.trace(tensor) / 3 * _ry_bohr3_to_ev() / GPA)
        row["pressure_error_GPa"] = float(np.linalg.norm(np.diag(spread)) / 3 * _ry_bohr3_to_ev() / GPA)
        row["volume_A3"] = float(abs(np.linalg.det(minimiser.dyn.structure.unit_cell)))
    state.history.append(row)
    steps = zip(minimiser.__fe__, minimiser.__fe_err__, minimiser.__KL__, strict=True)
    for index, (value, uncertainty, sample) in enumerate(steps):
        gradient_known = index < len(minimiser.__gc__)
        state.steps.append(
            {
                "stage": state.stage + 1,
                "population": state.population + 1,
                "step": index,
                "free_energy_eV": float(np.real(value)) * to_ev,
                "error_eV": float(np.real(uncertainty)) * to_ev,
                "kong_liu": float(sample / ensemble.N),
                "gradient_over_error": _ratio(minimiser.__gc__[index], minimiser.__gc_err__[index])
                if gradient_known
                else None,
            }
        )


def _ratio(value: float, error: float) -> float:
    return float(value / error) if error else 0.0


def free_energy_hessian(
    constants: ForceConstants,
    engine: EnsembleEngine,
    settings: SschaSettings,
    count: int,
    *,
    four_phonon: bool = False,
    log: Path | None = None,
) -> ForceConstants:
    """Second derivative of the free energy with respect to the centroids, on a fresh large ensemble.

    Parameters
    ----------
    constants
        Converged auxiliary force constants.
    engine, settings
        As in :func:`run`.
    count
        Configurations (5,000-10,000 for converged soft modes).
    four_phonon
        Include the fourth-order term; memory ``(3 N)^4 * 8`` bytes for ``N`` atoms in the supercell.

    Raises
    ------
    InputError
        If the fourth-order tensor would not fit into 32 GB.
    """
    size = (3 * len(constants.supercell)) ** 4 * 8 / 1e9
    if four_phonon and size > 32:
        raise InputError(
            f"the fourth-order term needs {size:.0f} GB for {len(constants.supercell)} atoms: leave it out"
        )
    with _log_to(log):
        dyn = to_cellconstructor(constants)
        dyn.Symmetrize()
        ensemble = draw(dyn, settings.temperature, count, (settings.seed, 10**6))
        ensemble, _ = engine.fill(ensemble, label="free-energy Hessian")
        ensemble.update_weights(dyn, settings.temperature)
        return from_cellconstructor(ensemble.get_free_energy_hessian(include_v4=four_phonon))


def fingerprint(settings: SschaSettings, **more: Any) -> dict[str, Any]:
    """What must be the same for a checkpoint to be continued; more populations may be asked for."""
    values = {**asdict(settings), **more}
    values.pop("max_populations")
    return json.loads(json.dumps(values, default=str))


class _Clock:
    """Wall seconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now


@contextlib.contextmanager
def _log_to(path: Path | None) -> Iterator[None]:
    """python-sscha prints much: into ``path``, or nowhere."""
    import os
    import warnings

    with (
        open(path or os.devnull, "a") as handle,
        contextlib.redirect_stdout(handle),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield
