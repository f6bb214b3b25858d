"""Where the independent items of a study run: in this process, or in workers of a process pool, Dask or Parsl."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from hint_plugins.settings import Settings

if TYPE_CHECKING:
    from hint_plugins.runs.executors import ExecutorFactory


class Execution(Settings):
    """Where the items of a study run."""

    workers: int = Field(1, ge=1, description="Worker processes; 1 with the local executor works in this process.")
    executor: Literal["local", "dask", "parsl"] = Field("local", description="Where workers run: local, dask or parsl.")
    scheduler: str | None = Field(None, description="Address of a running Dask scheduler, tcp://host:port.")
    parsl_config: Path | None = Field(None, description="Python file that defines `config` for Parsl.")

    def opener(self) -> ExecutorFactory | None:
        """How to open the executor; None where the items run in this process.

        Raises
        ------
        ExecutorError
            Missing library, or an option that belongs to another executor.
        """
        from hint_plugins.runs.executors import executor_factory

        factory = executor_factory(
            self.executor, self.workers, scheduler=self.scheduler, parsl_config=self.parsl_config
        )
        return factory if self.workers > 1 or self.executor != "local" else None


#: Names of the settings above, which may differ when a run is continued.
EXECUTION = frozenset(Execution.model_fields)
