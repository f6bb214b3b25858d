"""One SSCHA run in one directory, step by step: start, populations, fresh ensemble, Hessian, correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ase import Atoms

from hint_plugins.datasets.born import DielectricTensors
from hint_plugins.errors import InputError
from hint_plugins.runs.directory import write_summary
from hint_plugins.runs.progress import note
from hint_recipes.crystals.force_constants.cellconstructor import output_to
from hint_recipes.crystals.force_constants.dielectric import missing_charges
from hint_recipes.crystals.force_constants.dielectric_files import read_tensors
from hint_recipes.crystals.force_constants.files import read_force_constants
from hint_recipes.crystals.force_constants.force_constants import ForceConstants, with_tensors_of
from hint_recipes.crystals.force_constants.from_potential import force_constants_from_potential
from hint_recipes.crystals.phonons.dense_mesh import DenseMesh, dense_mesh
from hint_recipes.crystals.sscha.cell import require_stress, static_start
from hint_recipes.crystals.sscha.correction import correct
from hint_recipes.crystals.sscha.ensemble import EnsembleEngine
from hint_recipes.crystals.sscha.free_energy_hessian import free_energy_hessian
from hint_recipes.crystals.sscha.fresh_ensemble import FreshEnsemble, kept_fresh_ensemble
from hint_recipes.crystals.sscha.known_potential import KnownPotential
from hint_recipes.crystals.sscha.output import Progress, write_history, write_tables
from hint_recipes.crystals.sscha.populations import report_raised, start
from hint_recipes.crystals.sscha.populations import run as run_populations
from hint_recipes.crystals.sscha.request import (
    CHECKPOINT,
    FRESH,
    check_request,
    correction_mark,
    earlier_run,
    finished_run,
    identity,
    times,
)
from hint_recipes.crystals.sscha.settings import SschaSettings
from hint_recipes.crystals.sscha.state import State
from hint_recipes.crystals.sscha.summary import summarise


@dataclass(frozen=True)
class SschaRun:
    """One SSCHA run: what is computed, and where.

    Attributes
    ----------
    crystal
        Unit cell with its masses.
    stages
        Repetitions of the unit cell, one after the other.
    model
        The model.
    directory
        For the results.
    settings
        Of the run; ``stages`` hold for its supercells.
    reference
        For the free-energy correction.

    Raises
    ------
    InputError
        For settings that cannot work (:func:`~hint_recipes.crystals.sscha.request.check_request`).
    """

    crystal: Atoms
    stages: Sequence[tuple[int, int, int]]
    model: KnownPotential
    directory: Path
    settings: SschaSettings
    reference: KnownPotential | None = None

    def __post_init__(self) -> None:
        check_request(self.settings, self.crystal, self.stages, with_reference=self.reference is not None)

    @cached_property
    def engine(self) -> EnsembleEngine:
        """The force engine."""
        limits = self.settings.on_bad, self.settings.max_energy, self.settings.max_force
        return EnsembleEngine(self.model.potential, *limits, self.directory)

    @cached_property
    def mark(self) -> dict[str, Any]:
        """What identifies the run."""
        return identity(self.crystal, self.engine, self.settings, self.stages, self.model.identity)

    @cached_property
    def _given(self) -> ForceConstants | None:
        """Force constants of the file to start from; None where there is none."""
        source = self.settings.start_from
        return None if source is None else read_force_constants(source, self.crystal)

    @cached_property
    def tensors(self) -> DielectricTensors | None:
        """Born effective charges and dielectric tensor: of their own file, or of the file to start from."""
        if self.settings.born is not None:
            return read_tensors(self.settings.born, self.crystal)
        return None if self._given is None else self._given.tensors

    def earlier(self) -> State | None:
        """The state of this run in its directory; None where there is none (:func:`earlier_run`).

        Raises
        ------
        InputError
            If the directory holds another run.
        """
        return earlier_run(self.directory, self.mark)

    def finished(self) -> dict[str, Any] | None:
        """The summary in the directory, where it holds all that is asked for; else None."""
        summary = finished_run(self.directory, self.mark, self.settings)
        if summary is None:
            return None
        if summary.get("born_charges") != (None if self.tensors is None else self.tensors.born.tolist()):
            return None
        hessian = summary.get("free_energy_hessian", {}).get("configurations", 0)
        if hessian != self.settings.hessian_configurations:
            return None
        if self.reference is not None:
            wanted = correction_mark(self.reference.identity, self.settings.reference_configurations)
            if not wanted.items() <= summary.get("correction", {}).items():
                return None
        return summary

    def run(self) -> dict[str, Any]:
        """Compute what is missing; every population is kept, and results are written before Hessian and correction.

        Returns
        -------
        dict
            What ``summary.json`` holds (:class:`hint_recipes.crystals.sscha.study.Sscha`).

        Raises
        ------
        InputError
            If the directory holds another run, or a step fails.
        """
        earlier = self.earlier()
        (self.directory / "summary.json").unlink(missing_ok=True)
        potential, settings = self.model.potential, self.settings
        if settings.stress or settings.relax_cell:
            require_stress(potential, self.crystal)
        crystal = self.crystal if settings.start_from else static_start(potential, self.crystal, settings)
        state = self._first_state(crystal) if earlier is None else earlier
        harmonic = force_constants_from_potential(potential, crystal, self.stages[-1])
        harmonic = harmonic.symmetrized().acoustic_sum_rule()
        static = float(potential.evaluate([crystal]).energies[0])
        state = self._populations(state, static)
        fresh, mesh = self._averages(state)
        summary = summarise(state, settings, fresh, mesh, harmonic=harmonic, static=static)
        summary["fingerprint"] = self.mark
        summary |= self._polar_part()
        sources = {
            "harmonic": with_tensors_of(harmonic, self.tensors),
            "sscha": with_tensors_of(state.constants, self.tensors),
        }
        self._write(summary, sources)
        if settings.hessian_configurations:
            self._add_hessian(summary, sources)
        if self.reference is not None:
            self._add_correction(summary, state.constants)
        return summary

    @property
    def _log(self) -> Path:
        return self.directory / "sscha.log"

    def _first_state(self, crystal: Atoms) -> State:
        """A start with positive frequencies."""
        first = self._starting_point(crystal)
        constants, changed = start(first, self.settings.floor)
        report_raised(first, changed, self.settings.floor)
        return State(constants, difficult=changed > 0)

    def _starting_point(self, crystal: Atoms) -> ForceConstants:
        """The force constants of the first stage: the model's, or those of a file."""
        source, multiples, constants = self.settings.start_from, self.stages[0], self._given
        if constants is None:
            return force_constants_from_potential(self.model.potential, crystal, multiples)
        if constants.multiples != tuple(multiples):
            raise InputError(
                f"{source} holds a {times(constants.multiples)} supercell, the run starts with {times(multiples)}: "
                "use the same, or a --stage of that size"
            )
        return constants

    def _populations(self, state: State, static: float) -> State:
        """All populations of all stages, with a checkpoint after each; ``static`` is the static energy, eV."""
        with Progress(self.settings.max_populations * len(self.stages), len(state.history)) as progress:

            def report(now: State) -> None:
                progress(now)
                write_history(self.directory, now, static)

            return run_populations(
                state,
                self.engine,
                self.settings,
                self.stages,
                floor=self.settings.floor,
                checkpoint=self.directory / CHECKPOINT,
                fingerprint=self.mark,
                log=self._log,
                progress=report,
                tensors=self.tensors,
            )

    def _averages(self, state: State) -> tuple[FreshEnsemble, DenseMesh]:
        """What the converged matrix is worth on a fresh ensemble, and what its supercell leaves out."""
        settings = self.settings
        count = settings.final_configurations or settings.configurations
        with output_to(self._log):
            fresh = kept_fresh_ensemble(self.directory / FRESH, state.constants, self.engine, settings, count)
            mesh = dense_mesh(with_tensors_of(state.constants, self.tensors), settings.temperature)
        if not mesh.usable:
            note(
                f"{mesh.num_imaginary} modes of the interpolated auxiliary matrix are imaginary on the dense mesh: "
                "the free energy is that of the supercell alone; take a larger supercell"
            )
        return fresh, mesh

    def _polar_part(self) -> dict[str, Any]:
        """Born charges for the summary, or the sentence that they may be missing."""
        if self.tensors is not None:
            return {"born_charges": self.tensors.born.tolist(), "dielectric_tensor": self.tensors.dielectric.tolist()}
        text = missing_charges(self.crystal)
        return {} if text is None else {"note": text}

    def _write(self, summary: dict[str, Any], sources: dict[str, ForceConstants]) -> None:
        write_tables(self.directory, sources, sources["sscha"].primitive)
        write_summary(self.directory, summary)

    def _add_hessian(self, summary: dict[str, Any], sources: dict[str, ForceConstants]) -> None:
        """Add the Hessian of the free energy to the results."""
        count = self.settings.hessian_configurations
        curved = free_energy_hessian(
            sources["sscha"], self.engine, self.settings, count, four_phonon=self.settings.four_phonon, log=self._log
        )
        sources["free-energy-hessian"] = with_tensors_of(curved.constants, self.tensors)
        summary["free_energy_hessian"] = {"configurations": count, **curved.summary()}
        self._write(summary, sources)

    def _add_correction(self, summary: dict[str, Any], constants: ForceConstants) -> None:
        """Add the correction to the reference method to the results."""
        assert self.reference is not None
        count = self.settings.reference_configurations
        found = correct(constants, self.engine, self.settings, self.reference, count, self.directory)
        summary["correction"] = {**correction_mark(self.reference.identity, count), **found}
        write_summary(self.directory, summary)
