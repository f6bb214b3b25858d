"""The stochastic self-consistent harmonic approximation on any potential (python-sscha), population by population.

Monacelli et al., J. Phys.: Condens. Matter 33, 363001 (2021). Sampling, minimisation, symmetries and cell steps are
python-sscha's; here are the batched force engine, the checkpoint after every population, and the supercell stages.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hint_plugins.datasets.born import DielectricTensors
from hint_plugins.errors import InputError
from hint_recipes.crystals.force_constants.cellconstructor import from_cellconstructor, output_to, to_cellconstructor
from hint_recipes.crystals.force_constants.force_constants import ForceConstants, with_tensors_of
from hint_recipes.crystals.force_constants.interpolation import interpolate
from hint_recipes.crystals.sscha.cell import choose_cell, move
from hint_recipes.crystals.sscha.ensemble import EnsembleEngine, require_sscha
from hint_recipes.crystals.sscha.ensemble_averages import stress_and_error
from hint_recipes.crystals.sscha.record import record
from hint_recipes.crystals.sscha.settings import SschaSettings
from hint_recipes.crystals.sscha.state import State

if TYPE_CHECKING:
    from sscha.Ensemble import Ensemble

#: No run with smaller populations is called converged: the free energy would follow the noise of the sample.
MIN_CONFIGURATIONS = 20


def start(constants: ForceConstants, floor: float = 20.0) -> tuple[ForceConstants, int]:
    """Symmetrised, positive definite starting force constants and the number of modes that had to be raised."""
    ruled = constants.symmetrized().acoustic_sum_rule()
    raised, changed = ruled.positive_definite(floor)
    return raised.acoustic_sum_rule(), changed


def report_raised(before: ForceConstants, changed: int, floor: float, where: str = "") -> None:
    """Say how many modes of ``before`` :func:`start` had to raise, if any; ``where`` names the stage."""
    if changed:
        lowest = before.acoustic_sum_rule().frequencies().min()
        print(
            f"hint: {where}{changed} starting modes were imaginary or below {floor:g} cm^-1 and were made positive "
            f"(lowest {lowest:.1f} cm^-1)"
        )


def run(
    state: State,
    engine: EnsembleEngine,
    settings: SschaSettings,
    stages: Sequence[tuple[int, int, int]],
    *,
    floor: float = 20.0,
    checkpoint: Path | None = None,
    fingerprint: dict[str, Any] | None = None,
    log: Path | None = None,
    progress: Callable[[State], None] | None = None,
    tensors: DielectricTensors | None = None,
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
    floor
        Lowest starting frequency of the later stages, cm^-1.
    checkpoint, fingerprint
        File to write after every population, and what identifies the run.
    log
        File for the output of python-sscha.
    progress
        Called after every population.
    tensors
        Born effective charges and dielectric tensor, for the interpolation between stages.

    Returns
    -------
    State
        ``converged`` tells whether the last stage did.
    """
    while True:
        if state.converged or state.population >= settings.max_populations:
            if state.stage + 1 >= len(stages):
                return state
            with output_to(log):
                wider = interpolate(with_tensors_of(state.constants, tensors), stages[state.stage + 1])
            constants, changed = start(wider, floor)
            report_raised(wider, changed, floor, f"stage {state.stage + 2}: ")
            state = replace(
                state,
                constants=constants,
                stage=state.stage + 1,
                population=0,
                converged=False,
                stopped="",
                difficult=changed > 0,
            )
        with output_to(log):
            population(state, engine, settings)
        if checkpoint is not None:
            state.save(checkpoint, fingerprint or {})
        if progress is not None:
            progress(state)


def population(state: State, engine: EnsembleEngine, settings: SschaSettings) -> None:
    """Draw, evaluate and minimise one population; updates ``state``."""
    sscha = require_sscha()  # before the clock: the first import takes seconds
    stress = settings.stress or settings.relax_cell
    number = state.population + 1
    clock = _Clock()
    move(state)
    dyn = to_cellconstructor(state.constants)
    dyn.Symmetrize()
    ensemble = draw(dyn, settings.temperature, settings.configurations, (settings.seed, state.stage, number))
    clock.lap("sampling")
    ensemble, pairs = engine.fill(ensemble, stress=stress, label=f"stage {state.stage + 1}, population {number}")
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
    try:
        with _remembered_distances(), np.errstate(all="ignore"):
            converged = loop.relax(restart_from_ens=True, start_pop=number)
        finite = np.isfinite(minimiser.get_free_energy(True)).all() and np.isfinite(minimiser.dyn.dynmats).all()
        reason = "the free energy is not finite"
    except (AssertionError, ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        finite, reason = False, str(error).strip().split("\n")[0]
    if not finite:
        raise InputError(
            f"stage {state.stage + 1}, population {number}: the minimisation failed ({reason}). The sample does not "
            "carry the step: take more configurations, a higher --floor or a stiffer start (--start-from)"
        )
    clock.lap("minimisation")
    record(state, minimiser, pairs, settings.configurations - len(pairs), clock.laps)
    state.constants = from_cellconstructor(minimiser.dyn)
    lowest = np.sort(state.constants.frequencies().ravel())[3]
    state.history[-1]["lowest_cm1"] = float(lowest)
    state.population = number
    at_rest = not settings.relax_cell or choose_cell(state, *stress_and_error(minimiser.ensemble, pairs), settings)
    state.stopped = _open_criterion(state, settings, bool(converged), far, at_rest)
    state.converged = not state.stopped


def _open_criterion(state: State, settings: SschaSettings, small: bool, far: bool, at_rest: bool) -> str:
    """Why the last population does not end the stage; empty when it does."""
    sample = state.history[-1]["kong_liu"]
    reasons = {
        f"a population of {settings.configurations} configurations is too small to call anything converged (at least "
        f"{MIN_CONFIGURATIONS} are needed)": settings.configurations < MIN_CONFIGURATIONS,
        "the gradient is not small against its error": not small,
        "the first population starts far from the solution and uses a lower effective sample": far,
        f"the effective sample is {sample:.2f}, below the ratio of {settings.kong_liu:g}": sample < settings.kong_liu,
        "the stress does not meet the target": not at_rest,
        f"at least {settings.min_populations} populations are asked for": state.population < settings.min_populations,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def draw(dyn: Any, temperature: float, count: int, seed: Sequence[int]) -> Ensemble:
    """An ensemble of ``count`` configurations (with mirror images) of the auxiliary matrix."""
    sscha = require_sscha()
    np.random.seed(list(seed))  # noqa: NPY002  (CellConstructor draws from the global generator)
    ensemble = sscha.Ensemble.Ensemble(dyn, temperature, dyn.GetSupercell())
    ensemble.generate(count)
    return ensemble


@contextlib.contextmanager
def _remembered_distances() -> Iterator[None]:
    """Remember the distances between q points that CellConstructor computes anew in every symmetrisation.

    Every minimisation step symmetrises with the same q points and cell; finding which point a rotation maps to which
    took two thirds of a step for a 3x3x3 grid. Arguments are compared bit by bit, so results are unchanged.
    """
    import cellconstructor as CC

    original, known = CC.Methods.get_min_dist_into_cell, {}

    def remembered(unit_cell: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
        key = unit_cell.tobytes(), first.tobytes(), second.tobytes()
        if key not in known:
            known[key] = original(unit_cell, first, second)
        return known[key]

    CC.Methods.get_min_dist_into_cell = remembered
    try:
        yield
    finally:
        CC.Methods.get_min_dist_into_cell = original


class _Clock:
    """Wall seconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now
