"""Checks of whole files of labels: every structure, and the energies of a file among each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hint_plugins.datasets.codes import holds_hessian, numbered_runs
from hint_plugins.errors import InputError
from hint_plugins.labels.keys import Keys
from hint_plugins.labels.series import EnergySeries
from hint_plugins.labels.settings import AllLabelKeys, CheckSettings
from hint_plugins.labels.structure_check import check_structure
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.progress import progress_bar
from hint_plugins.storage.store import count_structures, read_numbered


@dataclass(frozen=True)
class CheckedLabels:
    """What the checks found.

    Attributes
    ----------
    rows
        One per structure: ``file``, ``index`` (place in the file), ``formula``, ``kind`` of the Hessian label, which
        labels are there, and ``reason``, empty for a good one.
    names
        Names in ``info`` and ``arrays`` of the structures.
    """

    rows: list[dict[str, Any]]
    names: frozenset[str]

    @property
    def bad(self) -> list[dict[str, Any]]:
        """The rows of structures that do not pass."""
        return [row for row in self.rows if row["reason"]]

    @property
    def summary(self) -> dict[str, Any]:
        """Counts, and place and reason of every bad structure."""
        bad = self.bad
        kinds = Counter(row.get("kind") or "unlabelled" for row in self.rows if not row["reason"])
        return {
            "n_input": len(self.rows),
            "n_output": len(self.rows) - len(bad),
            "n_bad": len(bad),
            "n_energies": self._count("energy"),
            "n_forces": self._count("forces"),
            "n_stresses": self._count("stress"),
            "n_full": kinds["full"],
            "n_columns": kinds["columns"],
            "n_projections": kinds["projections"],
            "n_blocks": kinds["block"],
            "n_unlabelled": kinds["unlabelled"],
            "bad": [{k: row[k] for k in ("file", "index", "formula", "reason")} for row in bad],
        }

    @property
    def without_labels(self) -> bool:
        """Whether structures were read, but no label of a known name."""
        labels = any(row.get(key) for row in self.rows for key in ("energy", "forces", "stress", "kind"))
        return self._read > 0 and not labels

    @property
    def _read(self) -> int:
        return sum("energy" in row for row in self.rows)

    def _count(self, label: str) -> int:
        return sum(bool(row.get(label)) for row in self.rows)

    def report(self) -> str:
        """Every bad structure with its reason, and the counts, as text."""
        found = self.summary
        lines = [f"{row['file']}, structure {row['index']} ({row['formula']}): {row['reason']}" for row in self.bad]
        lines += [
            f"{found['n_input']} structures, {found['n_bad']} bad; good: {found['n_full']} full Hessians, "
            f"{found['n_columns']} with columns, {found['n_projections']} with projections, "
            + (f"{found['n_blocks']} with blocks, " if found["n_blocks"] else "")
            + f"{found['n_unlabelled']} without a Hessian",
            f"{found['n_energies']} energies ({self._read - found['n_energies']} missing), {found['n_forces']} forces "
            f"({self._read - found['n_forces']} missing), {found['n_stresses']} stresses",
        ]
        return "\n".join(lines)


def check_labels(
    files: Sequence[Path],
    directory: Path | None = None,
    settings: CheckSettings | None = None,
    *,
    keys: Keys | None = None,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> CheckedLabels:
    """Check geometries, energies, forces, stresses and Hessian labels of files.

    Parameters
    ----------
    files
        Structures (.xyz, .aselmdb, any other format of ASE), files of codes with a Hessian, or directories of these.
    directory
        For ``labels.csv``, ``summary.json`` and ``config.yaml``; None writes nothing.
    settings
        Limits.
    keys
        Names of the labels.
    options
        What ``config.yaml`` keeps; the settings and names by default.
    overwrite
        Replace an earlier result in the directory.

    Returns
    -------
    CheckedLabels
        With the rows in the order of the files and of the structures in them.

    Raises
    ------
    InputError
        If a file is missing, or the directory holds a result.
    StoreError
        If a file as a whole cannot be read; a damaged structure is one of the bad ones.
    """
    settings, keys = settings or CheckSettings(), keys or AllLabelKeys().keys()
    for path in files:
        if not Path(path).exists():
            raise InputError(f"{path}: no such file")
    if directory is None:
        return _checked(files, settings, keys)
    options = {**settings.model_dump(), **vars(keys), "files": list(files)} if options is None else options
    with RunDirectory(directory, "check", options, contents=["labels.csv"], overwrite=overwrite) as run:
        result = _checked(files, settings, keys)
        run.write_csv("labels.csv", result.rows)
        run.finish(result.summary)
    return result


def _checked(files: Sequence[Path], settings: CheckSettings, keys: Keys) -> CheckedLabels:
    names: set[str] = set()
    rows = [row for path in files for row in _rows(Path(path), settings, keys, names)]
    return CheckedLabels(rows, frozenset(names))


def _rows(path: Path, settings: CheckSettings, keys: Keys, names: set[str]) -> list[dict[str, Any]]:
    """Rows of one file in the order of its structures; ``names`` is told of what the structures carry."""
    rows: list[dict[str, Any]] = []

    def unreadable(index: int, reason: str) -> None:
        rows.append({"file": str(path), "index": index, "formula": "", "num_atoms": 0, "reason": reason})

    series, of_codes = EnergySeries(keys), path.is_dir() or holds_hessian(path)
    structures = partial(numbered_runs, incomplete=True) if of_codes else read_numbered
    with progress_bar(None if of_codes else count_structures(path), path.name, "structure") as bar:
        for index, atoms in structures(path, unreadable):
            row = check_structure(atoms, keys, **settings.model_dump())
            if not row.pop("wrong") and not of_codes:  # runs may be of several levels of theory
                series.add(atoms)
            names.update([*atoms.info, *atoms.arrays])
            rows.append({"file": str(path), "index": index} | row)
            bar.update()
    if verdict := series.verdict():
        for row in rows:
            if row.get("energy") and not row["reason"]:
                row["reason"] = verdict
    return sorted(rows, key=lambda row: row["index"])
