"""Labels for all structures of a file: resumable, with what failed and what is doubtful apart."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from hint_plugins.errors import InputError
from hint_plugins.labelling.assembling import LabelSummary
from hint_plugins.labelling.run import label_file
from hint_plugins.labelling.settings import LabelExecution, LabelSettings
from hint_plugins.runs.files import write_csv
from hint_plugins.runs.output_file import OutputFile
from hint_plugins.runs.progress import progress_bar
from hint_plugins.storage.store import count_structures, read_numbered, store_format, write_structures

#: At most this many failures are in the summary; all are in the table.
MAX_NAMED = 1000


@dataclass(frozen=True)
class LabelledStructures:
    """What became of the structures of a file.

    Attributes
    ----------
    output
        The labelled structures.
    summary
        Counts (:class:`~hint_plugins.labelling.assembling.LabelSummary`), ``seconds``, and the first failures.
    failures
        ``index`` (place in the input), ``key``, ``formula`` and ``error`` of every structure without a label.
    failed
        Table of the failures, or None.
    doubtful
        File of structures whose labels do not pass the check, or None, and how many they are.
    """

    output: Path
    summary: dict[str, Any]
    failures: list[dict[str, Any]]
    failed: Path | None
    doubtful: Path | None
    n_doubtful: int = 0

    def report(self) -> str:
        """The counts as text."""
        n = self.summary
        lines = [
            f"{n['n_input']} structures: {n['n_done']} labelled, {n['n_skipped']} there already, "
            f"{n['n_failed']} failed; OUT holds {n['n_energies']} energies, {n['n_forces']} forces, "
            f"{n['n_stresses']} stresses, {n['n_hessians']} Hessians; {n['seconds']:.1f} s -> {self.output}"
        ]
        if n["n_with_frozen_atoms"]:
            lines.append(
                f"{n['n_with_frozen_atoms']} of them have frozen atoms (constraints), which OUT keeps: forces are "
                f"those of all atoms; {n['n_blocks']} Hessians are the block of the free atoms"
            )
        return "\n".join(lines)

    def warnings(self, source: Path, most: int = 10) -> list[str]:
        """What is doubtful, and the first failures."""
        lines = []
        if self.n_doubtful:
            lines.append(
                f"{self.n_doubtful} are labelled, but do not pass the check (`hint check`): see {self.doubtful}"
            )
        for item in self.failures[:most]:
            lines.append(f"{source}, structure {item['index']} ({item['formula']}): {item['error']}")
        if len(self.failures) > most:
            lines.append(f"the others are in {self.failed}")
        return lines


def label_structures(
    source: Path,
    output: Path,
    settings: LabelSettings | None = None,
    *,
    execution: LabelExecution | None = None,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> LabelledStructures:
    """Label the structures of a file with a reference method.

    Finished batches are on the disk: a run that was stopped or killed goes on when the same call is made again, and
    repeats the batches that were under way.

    Parameters
    ----------
    source
        Structures: ``.xyz``, ``.aselmdb``, or any other format of ASE.
    output
        ``.xyz``, ``.extxyz`` or ``.aselmdb``; appears whole at the end, with its stem and ``.summary.json``,
        ``.failed.csv``, ``.doubtful.extxyz`` and ``.config.yaml`` beside it. ``output.shards`` holds the records.
    settings
        Who makes the labels, and which.
    execution
        Where they are made.
    options
        What ``config.yaml`` keeps; the settings by default.
    overwrite
        Discard the output and the records it was made from.

    Raises
    ------
    InputError
        If a file is missing, or the output may not be written.
    EngineError, ExecutorError, ShardError, StoreError, ConfigError, ValueError
        With what to do about it; finished records are safe in every case.
    """
    settings, execution = settings or LabelSettings(), execution or LabelExecution()
    source, output = Path(source), Path(output)
    started = time.perf_counter()
    store_format(output)
    file = OutputFile(output, source)
    if not source.is_file():
        raise InputError(f"{source}: no such file")
    n_input = count_structures(source)
    spec, task, open_executor = settings.spec(), settings.task(), execution.opener()
    shards = output.with_name(output.name + ".shards")
    if output.exists() and not shards.is_dir() and not overwrite:
        raise InputError(f"{output} exists and was not made by this command: choose another OUT, or --overwrite")
    unreadable: dict[int, str] = {}
    doubtful: list[Atoms] = []
    with _Bar(n_input, f"{settings.engine} {settings.kind}") as bar:
        counts, failures = label_file(
            lambda: read_numbered(source, unreadable.__setitem__),
            output,
            spec,
            task,
            open_executor,
            shards=shards,
            workers=execution.num_workers,
            batch_size=execution.batch_for(settings.engine),
            retry_failed=execution.retry_failed,
            fresh=overwrite,
            progress=bar,
            known=bar.known,
            doubtful=doubtful.append,
        )
    options = {**settings.model_dump(), "structures": source, "output": output} if options is None else options
    failures += [{"index": i, "key": "", "formula": "", "error": f"cannot be read: {r}"} for i, r in unreadable.items()]
    failures.sort(key=lambda line: line["index"])
    return _finished(file, counts, failures, doubtful, len(unreadable), started, options)


def _finished(
    file: OutputFile,
    counts: LabelSummary,
    failures: list[dict[str, Any]],
    doubtful: list[Atoms],
    n_unreadable: int,
    started: float,
    options: Mapping[str, Any],
) -> LabelledStructures:
    """Write what lies beside the output, and put the result together."""
    counts.n_input += n_unreadable
    counts.n_failed += n_unreadable
    failed, apart = file.beside("failed.csv"), file.beside("doubtful.extxyz")
    for path in (failed, apart):
        path.unlink(missing_ok=True)
    if failures:
        write_csv(failed, failures)
    if doubtful:
        write_structures(apart, doubtful)
    file.write_config("label", options)
    summary = {**vars(counts), "seconds": round(time.perf_counter() - started, 3), "failed": failures[:MAX_NAMED]}
    file.write_summary(summary)
    return LabelledStructures(
        file.path,
        summary,
        failures,
        failed if failures else None,
        apart if doubtful else None,
        len(doubtful),
    )


class _Bar:
    """Progress with rate, time left and failures on the terminal."""

    def __init__(self, total: int, what: str) -> None:
        self._bar = progress_bar(total, what, "label")
        self._failed = 0

    def known(self, count: int) -> None:
        """Leave out what earlier runs did, so that rate and time left are those of this run."""
        self._bar.total = max(self._bar.total - count, 0)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, made: int, failed: int) -> None:
        self._failed += failed
        if self._failed:
            self._bar.set_postfix(failed=self._failed, refresh=False)
        self._bar.update(made)
