"""From any data set that can be read to one file that MACE and fairchem train from, label by label checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.labels.checks import check_label
from hint_plugins.labels.hessian_label import HessianLabel, LabelError

#: So many bad records are named in the report; all are counted.
MAX_NAMED = 1000


@dataclass
class ConversionReport:
    """Counts of records and the quality of their Hessians.

    Attributes
    ----------
    n_input, n_output, n_bad, n_hessians
        Records read, written, left out, and written with a Hessian of any kind.
    bad
        ``{index, reason}`` of the first :data:`MAX_NAMED` records left out.
    asymmetry_max, asymmetry_mean
        Of ``max |H - H^T|`` over the full Hessians, eV/A^2, before any symmetrising.
    sum_rule_max, sum_rule_mean
        Of the largest net force that a shift by 1 A of one coordinate raises, eV/A^2.
    """

    n_input: int = 0
    n_output: int = 0
    n_bad: int = 0
    n_hessians: int = 0
    bad: list[dict[str, Any]] = field(default_factory=list)
    asymmetry_max: float = 0.0
    asymmetry_mean: float = 0.0
    sum_rule_max: float = 0.0
    sum_rule_mean: float = 0.0

    def add_bad(self, index: int, reason: str) -> None:
        """Count a record that is left out."""
        self.n_bad += 1
        if len(self.bad) < MAX_NAMED:
            self.bad.append({"index": index, "reason": reason})

    def add_unreadable(self, index: int, reason: str) -> None:
        """Count a record that the reader could not give."""
        self.n_input += 1
        self.add_bad(index, reason)

    def add_quality(self, asymmetry: float, sum_rule: float) -> None:
        """Take one full Hessian into the statistics."""
        self.n_hessians += 1
        weight = 1.0 / self.n_hessians
        self.asymmetry_max = max(self.asymmetry_max, asymmetry)
        self.sum_rule_max = max(self.sum_rule_max, sum_rule)
        self.asymmetry_mean += weight * (asymmetry - self.asymmetry_mean)
        self.sum_rule_mean += weight * (sum_rule - self.sum_rule_mean)


def checked(
    structures: Iterable[Atoms],
    report: ConversionReport,
    *,
    symmetrize: bool = False,
    factor: float = 1.0,
    on_bad: Callable[[int, str], None] | None = None,
) -> Iterator[Atoms]:
    """Pass on the structures whose Hessian label stands the checks.

    Parameters
    ----------
    structures
        Labelled structures.
    report
        Filled on the way. Records that the reader itself left out are to be counted by ``report.add_unreadable``.
    symmetrize
        Replace a full Hessian by the mean of it and its transpose.
    factor
        Multiplies Hessians, to bring them to eV/A^2.
    on_bad
        Called with index and reason of a bad label; by default it is counted and left out.
    """
    reject = on_bad or report.add_bad
    for atoms in structures:
        index = report.n_input
        report.n_input += 1
        try:
            label = HessianLabel.from_info(atoms.info, len(atoms))
        except LabelError as error:
            reject(index, str(error))
            continue
        if label is not None:
            label = HessianLabel(label.kind, factor * label.products, label.directions)
            found = check_label(label, atoms, atoms.arrays.get("REF_forces"))
            if not found.ok:
                reject(index, "; ".join(found.reasons))
                continue
            matrix = label.products
            if label.kind == "full":
                net = matrix.reshape(len(matrix), -1, 3).sum(axis=1)
                report.add_quality(float(np.abs(matrix - matrix.T).max()), float(np.abs(net).max()))
                if symmetrize:
                    label = HessianLabel.full(0.5 * (matrix + matrix.T))
            else:
                report.n_hessians += 1
            label.to_info(atoms.info)
        report.n_output += 1
        yield atoms
