"""How hot the molecules of a set get with a potential: one directory, resumable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from hint_plugins.potential import Potential
from hint_plugins.potential.worker import identity
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.items import digest, write_frames
from hint_plugins.runs.progress import progress_bar
from hint_recipes.molecules.stability.plots import plot_stability
from hint_recipes.molecules.stability.ramp import Ramp
from hint_recipes.molecules.stability.settings import RampSettings

#: Options that may differ from those of a run that is continued.
FREE = frozenset({"device", "checkpoint_every", "compare"})
#: Name of the checkpoint among the items of a run.
STATE = "state"


@dataclass(frozen=True)
class Stability:
    """How hot the molecules of a set got.

    Attributes
    ----------
    directory
        Where everything lies: ``stability.csv``, ``stability.png``, ``final.extxyz``, ``summary.json``.
    model
        Name of the potential.
    molecules
        One row per molecule (:meth:`~hint_recipes.molecules.stability.ramp.Ramp.run`).
    num_steps
        Steps that were made.
    """

    directory: Path
    model: str
    molecules: list[dict[str, Any]]
    num_steps: int

    @property
    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` holds; molecules that could not start are among the failed."""
        started = [row for row in self.molecules if row["survived"] or row["time_ps"] > 0]
        temperatures = [row["temperature_K"] for row in started]
        return {
            "model": self.model,
            "n_molecules": len(self.molecules),
            "n_survived": sum(row["survived"] for row in self.molecules),
            "n_failed": len(self.molecules) - len(started),
            "mean_temperature_K": sum(temperatures) / len(temperatures) if temperatures else None,
            "num_steps": self.num_steps,
            "molecules": self.molecules,
        }

    def report(self) -> str:
        """What became of every molecule, as text."""
        lines = []
        for row in self.molecules:
            end = "survived" if row["survived"] else f"{row['reason']} {row['bond'] or row['detail']}"
            lines.append(f"{row['name']}: {end} at {row['temperature_K']:.0f} K, {row['time_ps']:.3f} ps")
        return "\n".join(lines)


def heat_until_broken(
    structures: Sequence[Atoms],
    model: Any,
    directory: Path,
    settings: RampSettings | None = None,
    *,
    checkpoint_every: int = 1000,
    compare: Mapping[str, Sequence[dict[str, Any]]] | None = None,
    device: str | None = None,
    dtype: str | None = None,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Stability:
    """Heat molecules until a bond breaks; all move at once, and an unfinished run is continued.

    Parameters
    ----------
    structures
        Equilibrium structures of molecules; ``info`` may give ``name``.
    model, device, dtype
        What :meth:`hint_plugins.potential.Potential.load` understands.
    directory
        For the results.
    settings
        The ramp.
    checkpoint_every
        Steps between checkpoints.
    compare
        Rows of other models by name, for the bar plot.
    options
        What ``config.yaml`` keeps; the settings by default.
    overwrite
        Discard an earlier run in the directory.

    Returns
    -------
    Stability
        With the molecules in the order of ``structures``.

    Raises
    ------
    InputError
        If the directory holds another run.
    PotentialError
        If the model cannot be loaded.
    """
    settings = settings or RampSettings()
    potential = Potential.load(model, device=device, dtype=dtype)
    ramp = Ramp(structures, potential, settings)
    if options is None:
        options = {**settings.model_dump(), "model": potential.name, "dtype": dtype}
    with RunDirectory(directory, "stability", options, free=FREE, contents=["checkpoint"], overwrite=overwrite) as run:
        store = run.items("checkpoint")
        key = digest(identity(model), dtype, settings.model_dump(), *structures)
        if (state := store.get(STATE, key)) is not None:
            ramp.restore(state)
        with progress_bar(settings.num_steps, f"ramp, {potential.name}", "step") as bar:
            bar.update(ramp.step)

            def keep(ramp: Ramp) -> None:
                store.put(STATE, key, ramp.state())
                bar.set_postfix(alive=len(ramp.living), K=settings.temperature(max(ramp.step - 1, 0)), refresh=False)
                bar.update(ramp.step - bar.n)

            rows = ramp.run(checkpoint_every, keep)
        result = Stability(run.path, potential.name, rows, ramp.step)
        run.write_csv("stability.csv", rows)
        for walker in ramp.walkers:
            walker.atoms.info |= {"name": walker.name, "temperature_K": walker.outcome["temperature_K"]}
        write_frames(run / "final.extxyz", [walker.atoms for walker in ramp.walkers])
        others = compare or {}
        label = potential.name if potential.name not in others else f"{potential.name} ({run.path})"
        plot_stability({**others, label: rows}, run / "stability.png")
        run.finish(result.summary)
    return result
