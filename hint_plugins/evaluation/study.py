"""Errors of a potential on labelled files: one directory, resumable, with parity plots."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.errors import InputError
from hint_plugins.evaluation.errors import Part, evaluate_part, summarise
from hint_plugins.evaluation.parity import plot_parity
from hint_plugins.evaluation.settings import EvaluateSettings
from hint_plugins.labels.hessian_label import SUFFIXES
from hint_plugins.labels.keys import Keys
from hint_plugins.potential import Potential
from hint_plugins.potential.worker import identity
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.items import digest, file_digest
from hint_plugins.runs.progress import progress_bar
from hint_plugins.storage.store import count_structures, read_numbered, read_structures

#: Structures in one part: what is lost when a run is killed.
PART = 64
#: At most this many points are shown of one quantity.
MAX_POINTS = 20000
#: What the terminal shows, in this order.
SHOWN = {
    "energy_mae_per_atom": "energy MAE per atom",
    "forces_mae": "force MAE",
    "stress_mae": "stress MAE",
    "hessian_mae": "Hessian MAE",
    "eigenvalue_mae": "eigenvalue MAE",
    "frequency_mae_cm1": "frequency MAE",
    "asymmetry": "asymmetry of the prediction",
    "hvp_mae": "Hessian product MAE",
}


@dataclass(frozen=True)
class Evaluation:
    """Errors of a potential.

    Attributes
    ----------
    directory
        Where ``structures.csv``, ``parity.png`` and ``summary.json`` lie.
    summary
        Means over all structures (:func:`~hint_plugins.evaluation.errors.summarise`), ``model``, ``data``, ``seconds``.
    rows
        Errors of every structure: eV, A, cm^-1.
    """

    directory: Path
    summary: dict[str, Any]
    rows: list[dict[str, Any]]

    def report(self) -> str:
        """The means as a table."""
        found = self.summary
        units = {"frequency_mae_cm1": "cm^-1", **found["units"]}
        lines = [f"{found['n_structures']} structures, {found['n_hessians']} Hessians, {found['n_failed']} failed"]
        there = {f"{text} ({units[key]})": found[key] for key, text in SHOWN.items() if found[key] is not None}
        return "\n".join(lines + [f"  {text:<38}{value:.6g}" for text, value in there.items()])


def evaluate_potential(
    model: Any,
    data: Sequence[Path],
    directory: Path,
    settings: EvaluateSettings | None = None,
    *,
    keys: Keys | None = None,
    device: str | None = None,
    dtype: str | None = None,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Evaluation:
    """Errors of energies, forces, stresses, Hessians, eigenvalues and frequencies on labelled files.

    Structures without a label are skipped for that quantity. A run that was stopped goes on when it is repeated.

    Parameters
    ----------
    model, device, dtype
        What :meth:`hint_plugins.potential.Potential.load` understands.
    data
        Labelled structures: ``.xyz``, ``.aselmdb``, or any other format of ASE.
    directory
        For the results.
    settings
        How much is evaluated.
    keys
        Names of the labels.
    options
        What ``config.yaml`` keeps; the settings and names by default.
    overwrite
        Replace an earlier result in the directory.

    Raises
    ------
    InputError
        If a file is missing or holds no label under these names, or the directory holds a result.
    StoreError
        If a file as a whole cannot be read.
    PotentialError
        If the model cannot be loaded.
    """
    started = time.perf_counter()
    settings, keys, data = settings or EvaluateSettings(), keys or Keys(), [Path(path) for path in data]
    for path in data:
        if not path.is_file():
            raise InputError(f"{path}: no such file")
    total = sum(count_structures(path) for path in data)
    name = model if isinstance(model, str) else type(model).__name__
    options = {**settings.model_dump(), **asdict(keys), "model": name, "data": data} if options is None else options
    unreadable: list[dict[str, Any]] = []
    contents = ["structures.csv", "parity.png"]
    with RunDirectory(directory, "evaluate", options, contents=contents, overwrite=overwrite) as run:
        potential = Potential.load(model, device, dtype)
        key = digest(identity(model), dtype, asdict(keys), settings.model_dump(), *(file_digest(str(f)) for f in data))
        store, parts = run.items(".parts"), []
        chosen = _chosen(data, keys, settings)
        with progress_bar(total, "evaluate", "structure") as bar:
            for number, path, places, batch in _batches(data, unreadable):
                item = f"{number}-{places[0]:09d}"
                stored = store.get(item, key)
                if stored is None:
                    wanted = None if chosen is None else {place for where, place in chosen if where == number}
                    part = evaluate_part(potential, batch, places, keys, hessians=wanted, seed=settings.seed)
                    store.put(
                        item, key, {"rows": [row | {"file": str(path)} for row in part.rows], "points": part.points}
                    )
                    stored = store.get(item, key) or {}
                points = {quantity: np.array(both, dtype=float) for quantity, both in stored["points"].items()}
                parts.append(Part(stored["rows"], points))
                bar.update(len(batch))
        rows = [row for part in parts for row in part.rows]
        summary = summarise(rows)
        _require_labels(summary, rows, unreadable, data, keys)
        summary["n_failed"] += len(unreadable)
        summary["failed"] += unreadable
        run.write_csv("structures.csv", rows)
        plot_parity(_joined(parts, settings.seed), run / "parity.png", summary, potential.name)
        summary = {"model": name, "data": list(map(str, data)), **summary}
        summary["seconds"] = round(time.perf_counter() - started, 3)
        run.finish(summary)
        shutil.rmtree(store.directory, ignore_errors=True)
    return Evaluation(run.path, summary, rows)


def _batches(
    data: Sequence[Path], unreadable: list[dict[str, Any]]
) -> Iterator[tuple[int, Path, list[int], list[Atoms]]]:
    """Structures of all files in parts: number of the file, file, places in it, structures; damaged ones are noted."""
    for number, path in enumerate(data):

        def bad(where: int, reason: str, path: Path = path) -> None:
            unreadable.append({"file": str(path), "index": where, "formula": "", "reason": reason})

        structures = read_numbered(path, bad)
        while batch := list(islice(structures, PART)):
            yield number, path, [place for place, _ in batch], [atoms for _, atoms in batch]


def _chosen(data: Sequence[Path], keys: Keys, settings: EvaluateSettings) -> set[tuple[int, int]] | None:
    """Number of the file and place of the structures whose Hessian is computed; None for all."""
    if settings.max_hessians is None:
        return None
    labelled = [
        (number, place)
        for number, _, places, batch in _batches(data, [])
        for place, atoms in zip(places, batch, strict=True)
        if any(keys.hessian + suffix in atoms.info for suffix in SUFFIXES)
    ]
    count = min(settings.max_hessians, len(labelled))
    return {labelled[k] for k in np.random.default_rng(settings.seed).choice(len(labelled), count, replace=False)}


def _require_labels(
    summary: Mapping[str, Any], rows: Sequence[Any], unreadable: Sequence[Any], data: Sequence[Path], keys: Keys
) -> None:
    if summary["n_energies"] or summary["n_forces"] or summary["n_hessians"] or summary["n_failed"]:
        return
    if not (unreadable or rows):
        raise InputError(f"{', '.join(map(str, data))}: no structures")
    if rows and not summary["n_products"]:
        raise InputError(f"{data[0]}: no labels under {keys.energy}, {keys.forces}, {keys.hessian}{_present(data[0])}")


def _present(path: Path) -> str:
    atoms = next(iter(read_structures(path)), None)
    if atoms is None:
        return ""
    arrays = sorted(set(atoms.arrays) - {"numbers", "positions"})
    return f"; the first structure has info {sorted(atoms.info) or 'nothing'} and arrays {arrays or 'nothing'}"


def _joined(parts: Sequence[Part], seed: int) -> dict[str, np.ndarray]:
    """Points of all parts, at most :data:`MAX_POINTS` of one quantity."""
    points = {}
    for name in {name for part in parts for name in part.points}:
        both = np.concatenate([part.points[name] for part in parts if name in part.points], axis=1)
        if both.shape[1] > MAX_POINTS:
            both = both[:, np.random.default_rng(seed).choice(both.shape[1], MAX_POINTS, replace=False)]
        points[name] = both
    return points
