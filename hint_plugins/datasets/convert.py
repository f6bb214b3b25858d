"""From any data set that can be read to one file that MACE and fairchem train from, label by label checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.labels.hessian_label import MATRICES, HessianLabel, LabelError
from hint_plugins.labels.keys import Keys, adopt_labels
from hint_plugins.labels.structure_check import check_structure
from hint_plugins.storage.aselmdb import NATIVE

#: So many bad records are named in the report; all are counted.
MAX_NAMED = 1000


@dataclass
class ConversionReport:
    """Counts of records and the quality of their Hessians.

    Attributes
    ----------
    n_input, n_output, n_bad
        Records read, written and left out.
    n_energies, n_forces, n_stresses, n_hessians
        Records written with each label; Hessians of any kind.
    bad
        ``{index, reason}`` of the first :data:`MAX_NAMED` records left out, and their ``file`` where IN has several.
    asymmetry_max, asymmetry_mean
        Of ``max |H - H^T|`` over the full Hessians, eV/A^2, before any symmetrising.
    sum_rule_max, sum_rule_mean
        Of the largest net force that a shift by 1 A of one coordinate raises, eV/A^2.
    """

    n_input: int = 0
    n_output: int = 0
    n_bad: int = 0
    n_energies: int = 0
    n_forces: int = 0
    n_stresses: int = 0
    n_hessians: int = 0
    bad: list[dict[str, Any]] = field(default_factory=list)
    asymmetry_max: float = 0.0
    asymmetry_mean: float = 0.0
    sum_rule_max: float = 0.0
    sum_rule_mean: float = 0.0

    def __post_init__(self) -> None:
        self._file, self._before, self._full = "", 0, 0
        #: Names in ``info`` and ``arrays`` of records without any label.
        self.others: Counter[str] = Counter()

    def begin(self, file: str) -> None:
        """Count the places of the records that follow from 0, in ``file``."""
        self._file, self._before = file, self.n_input

    @property
    def place(self) -> int:
        """Place of the next record in its file."""
        return self.n_input - self._before

    def add_bad(self, index: int, reason: str) -> None:
        """Count a record that is left out."""
        self.n_bad += 1
        if len(self.bad) < MAX_NAMED:
            self.bad.append(({"file": self._file} if self._file else {}) | {"index": index, "reason": reason})

    def add_unreadable(self, index: int, reason: str) -> None:
        """Count a record that the reader could not give."""
        self.n_input += 1
        self.add_bad(index, reason)

    def add_written(self, atoms: Atoms, quality: tuple[float, float] | None) -> None:
        """Count the labels of a record, and take asymmetry and sum rule of a full Hessian into the statistics."""
        self.n_output += 1
        kinds = {
            "n_energies": "REF_energy" in atoms.info,
            "n_forces": "REF_forces" in atoms.arrays,
            "n_stresses": "REF_stress" in atoms.info,
            "n_hessians": any(name.startswith("REF_hessian") for name in atoms.info),
        }
        for name, there in kinds.items():
            setattr(self, name, getattr(self, name) + there)
        if not any(kinds.values()):
            self.others.update([*atoms.info, *(set(atoms.arrays) - NATIVE)])
        if quality is None:
            return
        self._full += 1
        asymmetry, sum_rule = quality
        self.asymmetry_max = max(self.asymmetry_max, asymmetry)
        self.sum_rule_max = max(self.sum_rule_max, sum_rule)
        self.asymmetry_mean += (asymmetry - self.asymmetry_mean) / self._full
        self.sum_rule_mean += (sum_rule - self.sum_rule_mean) / self._full


def adopted(structures: Iterable[Atoms], keys: Keys) -> Iterator[Atoms]:
    """Those structures whose labels can be brought under our names; the checks name the others later."""
    for atoms in structures:
        try:
            adopt_labels(atoms, keys)
        except ValueError:
            continue
        yield atoms


def checked(
    structures: Iterable[Atoms],
    report: ConversionReport,
    *,
    keys: Keys = Keys(),
    symmetrize: bool = False,
    factor: float = 1.0,
    on_bad: Callable[[int, str], None] | None = None,
) -> Iterator[tuple[int, Atoms, tuple[float, float] | None]]:
    """Pass on the structures whose labels stand the checks, under our names.

    Parameters
    ----------
    structures
        Labelled structures.
    report
        Counts the records on the way; what is written is for the caller to add. Records that the reader itself left
        out are to be counted by ``report.add_unreadable``.
    keys
        Names of the labels.
    symmetrize
        Replace a full Hessian or a block by the mean of it and its transpose.
    factor
        Multiplies Hessians, to bring them to eV/A^2.
    on_bad
        Called with index and reason of a bad record; by default it is counted and left out.

    Yields
    ------
    index, atoms, quality
        Place in the file, structure, and ``max |H - H^T|`` and the sum-rule violation of a full Hessian in eV/A^2.
    """
    reject = on_bad or report.add_bad
    for atoms in structures:
        index = report.place
        report.n_input += 1
        quality = None
        try:
            adopt_labels(atoms, keys)
            label = HessianLabel.from_info(atoms.info, len(atoms))
        except (LabelError, ValueError) as error:
            reject(index, str(error))
            continue
        if label is not None:
            label = label.scaled(factor)
            label.to_info(atoms.info)
        if reason := check_structure(atoms)["reason"]:
            reject(index, reason)
            continue
        if label is not None and label.kind in MATRICES:
            matrix = label.products
            if label.kind == "full":
                net = matrix.reshape(len(matrix), -1, 3).sum(axis=1)
                quality = float(np.abs(matrix - matrix.T).max()), float(np.abs(net).max())
            if symmetrize:
                replace(label, products=0.5 * (matrix + matrix.T)).to_info(atoms.info)
        yield index, atoms, quality
