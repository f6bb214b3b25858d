"""The data sets of a run while it trains: whose labels were dropped, and energies in another unit."""

from __future__ import annotations

import logging

from fairchem.core.common import distutils
from fairchem.core.common.distutils import get_device_for_local_rank
from fairchem.core.datasets.mt_concat_dataset import ConcatDataset

from hint_fairchem.dataset import HessianAseDBDataset, hessian_datasets
from hint_fairchem.options import Hint, require_same

log = logging.getLogger(__name__)


class WatchedDatasets:
    """Data sets of the training and validation loaders; they read labels with the plugins of one callback."""

    def __init__(self, hint: Hint) -> None:
        self.hint = hint
        self.datasets: list[tuple[str, HessianAseDBDataset]] = []
        self._dropped = 0

    def take(self, joined: ConcatDataset) -> None:
        """Add the data sets of a loader.

        Raises
        ------
        ConfigError
            If one of them has another ``hint:`` block.
        """
        for name, dataset in zip(joined.dataset_names, hessian_datasets(joined), strict=True):
            require_same(self.hint, dataset.hint, f"data set {name}")
            dataset.hint = self.hint
            self.datasets.append((name, dataset))

    def report_labels(self) -> None:
        """Say how many structures of each carry a label."""
        for name, dataset in self.datasets:
            level = logging.INFO if dataset.labelled.any() else logging.WARNING
            log.log(level, "%s: %d of %d structures labelled", name, dataset.labelled.sum(), len(dataset.labelled))

    def report_dropped(self) -> None:
        """Say how many labels have been dropped so far, when it is news; all processes call this together."""
        counts: dict[str, int] = {}
        for name, dataset in self.datasets:
            flags = distutils.all_reduce(dataset.dropped.float(), device=get_device_for_local_rank())
            counts[name] = counts.get(name, 0) + int((flags > 0).sum())
        total = sum(counts.values())
        if total != self._dropped:
            listed = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
            log.warning("%d Hessian labels failed their checks and were dropped (%s)", total, listed)
        self._dropped = total

    def judge_energies(self) -> None:
        """Warn of data sets whose energies do not belong to their forces, or are in Hartree."""
        for name, dataset in self.datasets:
            if verdict := dataset.energy_verdict():
                log.warning("%s: %s", name, verdict)
