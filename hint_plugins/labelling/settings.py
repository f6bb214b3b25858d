"""Settings of whoever makes labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from hint_plugins.settings import ConfigError, Settings, name_values

if TYPE_CHECKING:
    from hint_plugins.labelling.engine import EngineSpec
    from hint_plugins.labelling.record import LabelTask
    from hint_plugins.runs.executors import ExecutorFactory

#: Engines whose labels are too costly to be lost by the batch.
SLOW = ("pyscf", "espresso")


class LabelSettings(Settings):
    """Who makes the labels, and what is wanted for every structure."""

    engine: str = Field(
        "xtb", description="Reference method: xtb, pyscf, espresso, ase (with --calculator), or module:class."
    )
    method: str | None = Field(
        None,
        description="Level of theory. xtb: GFN2-xTB (default), GFN1-xTB; pyscf: FUNCTIONAL/BASIS, for example "
        "wb97x/6-31g*.",
    )
    calculator: str | None = Field(
        None, description="ASE calculator by name (emt) or module:factory, for --engine ase."
    )
    setting: list[str] | None = Field(
        None,
        description="Further settings of the engine, for example accuracy=0.001; may be given several times.",
        json_schema_extra={"flags": ["--set"], "metavar": "NAME=VALUE"},
    )
    kind: str = Field(
        "full",
        description="full: the whole Hessian (6N gradients), with frozen atoms the block of the free ones; "
        "columns: a few columns; projections: products with random directions (2 gradients each); forces: no Hessian. "
        "Use full for few structures, projections for many or large ones.",
    )
    num_probes: int = Field(
        5,
        ge=1,
        description="Number of directions (kind projections) or of columns (kind columns) per structure. Raise it "
        "when the structures are few.",
    )
    step: float | None = Field(
        None,
        description="Displacement of finite differences, A [default: the engine's own]. Raise it when the forces of "
        "the method are noisy.",
    )
    symmetry: bool = Field(
        False,
        description="Kind full, crystals without frozen atoms: displace atoms only that symmetry makes distinct "
        "(phonopy). Use it for supercells of symmetric crystals.",
    )
    whole: bool = Field(
        False,
        description="Kind full: structures with frozen atoms (constraints FixAtoms and FixCartesian) get whole "
        "Hessians, too, as if all atoms were free. By default they get the block of the free atoms, for which only "
        "these are displaced. Use it when the labels shall serve with other atoms frozen, too.",
    )
    seed: int = Field(
        0,
        ge=0,
        description="Seed of the random directions or columns. Change it for other directions of the same structures.",
    )

    def spec(self) -> EngineSpec:
        """The engine.

        Raises
        ------
        ConfigError
            For options of other engines.
        """
        from hint_plugins.labelling.engine import EngineSpec
        from hint_plugins.registries import registries

        options: dict[str, Any] = name_values(self.setting or [])
        if self.method is not None:
            options["method"] = self.method
        if self.calculator is not None:
            if self.engine != "ase":
                raise ConfigError("--calculator belongs to --engine ase")
            options["calculator"] = self.calculator
        elif self.engine == "ase":
            raise ConfigError("--engine ase needs --calculator, a name ASE knows or module:factory")
        return EngineSpec(registries().label_makers.get(self.engine, self.engine), options)

    def task(self) -> LabelTask:
        """What is wanted for every structure.

        Raises
        ------
        ValueError
            For an unknown kind, or a step out of range.
        """
        from hint_plugins.labelling.record import LabelTask

        return LabelTask(self.kind, self.num_probes, self.seed, self.step, symmetry=self.symmetry, whole=self.whole)


class LabelExecution(Settings):
    """Where labels are made, and in which portions."""

    workers: int | None = Field(
        None,
        ge=1,
        description="Number of worker processes, with one thread each [default: all cores]. Lower it when memory is "
        "short.",
    )
    executor: Literal["local", "dask", "parsl"] = Field("local", description="Where workers run: local, dask or parsl.")
    scheduler: str | None = Field(None, description="Address of a running Dask scheduler, tcp://host:port.")
    parsl_config: Path | None = Field(None, description="Python file that defines `config` for Parsl.")
    batch_size: int | None = Field(
        None,
        ge=1,
        description="Number of structures sent to a worker at once; a killed run loses at most the batches under way "
        "[default: 1 with pyscf and espresso, else 8].",
    )
    retry_failed: bool = Field(
        False, description="Compute again what failed in an earlier run. Use it when the cause has been removed."
    )

    @property
    def num_workers(self) -> int:
        """Number of worker processes."""
        from hint_plugins.runs.executors import available_cores

        return self.workers or available_cores()

    def batch_for(self, engine: str) -> int:
        """Number of structures in a batch for an engine."""
        return self.batch_size or (1 if engine in SLOW else 8)

    def opener(self) -> ExecutorFactory:
        """How to open the executor (:func:`hint_plugins.runs.executors.executor_factory`)."""
        from hint_plugins.runs.executors import executor_factory

        return executor_factory(
            self.executor, self.num_workers, scheduler=self.scheduler, parsl_config=self.parsl_config
        )
