"""A data set in any format to one file that MACE and fairchem train from."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hint_plugins.datasets.convert import ConversionReport, adopted, checked
from hint_plugins.datasets.energies import AtomicEnergies, aligned
from hint_plugins.datasets.reading import data_files, detect_format, read_dataset
from hint_plugins.datasets.settings import ConvertSettings
from hint_plugins.errors import InputError
from hint_plugins.labels.keys import Keys
from hint_plugins.registries import registries
from hint_plugins.runs.files import replacing
from hint_plugins.runs.output_file import OutputFile
from hint_plugins.runs.progress import progress_bar
from hint_plugins.settings import name_values
from hint_plugins.storage.store import OnBad, StoreError, UnwritableError, raise_bad, store_format, writing
from hint_plugins.units import HESSIAN_UNITS


@dataclass(frozen=True)
class ConvertedDataset:
    """What was converted.

    Attributes
    ----------
    source, output
        From where, to where.
    counts
        Records and labels, what was left out, and the quality of the Hessians.
    """

    source: Path
    output: Path
    counts: ConversionReport

    @property
    def summary(self) -> dict[str, Any]:
        """What the summary beside the output holds."""
        return asdict(self.counts)

    def report(self) -> str:
        """The counts as text."""
        n = self.counts
        return (
            f"{n.n_input} records: {n.n_output} written, {n.n_bad} bad; {n.n_energies} energies, "
            f"{n.n_forces} forces, {n.n_stresses} stresses, {n.n_hessians} Hessians"
            f" (asymmetry up to {n.asymmetry_max:.2g}, sum rule off by up to {n.sum_rule_max:.2g} eV/A^2)"
            f" -> {self.output}"
        )

    def warnings(self) -> list[str]:
        """That there are no labels, and the first bad records."""
        n, lines = self.counts, []
        if n.n_output and not (n.n_energies or n.n_forces or n.n_stresses or n.n_hessians):
            there = f" It has {', '.join(sorted(n.others))}." if n.others else ""
            lines.append(
                f"No known label was found in {self.source}.{there} Name the labels: --energy-key, --forces-key, "
                "--stress-key, --virials-key, --hessian-key"
            )
        for entry in n.bad[:5]:
            where = f"{entry['file']}, record" if "file" in entry else f"{self.source}, record"
            lines.append(f"  {where} {entry['index']}: {entry['reason']}")
        return lines


def convert_dataset(
    source: Path,
    output: Path,
    settings: ConvertSettings | None = None,
    *,
    keys: Keys | None = None,
    overwrite: bool = False,
) -> ConvertedDataset:
    """Convert a data set, checking every record; records stream through, so that a set of any size fits.

    Parameters
    ----------
    source
        File or directory.
    output
        ``.aselmdb``, ``.xyz``, ``.extxyz`` or ``.extxyz.gz``; its stem and ``.summary.json`` appear beside it.
    settings
        Format, units, and what is done on the way.
    keys
        Names of the labels.
    overwrite
        Replace the output if it exists.

    Raises
    ------
    InputError
        If a file is missing, the output may not be written, or settings do not fit the format.
    StoreError
        If the data set cannot be read or holds nothing, and for the first bad record with ``on_bad`` "error".
    """
    settings, keys = settings or ConvertSettings(), keys or Keys()
    source, output = Path(source), Path(output)
    if store_format(output) != "aselmdb" and settings.metadata:
        raise InputError("--metadata belongs to an .aselmdb output")
    if settings.metadata:
        _require_alone(output)
    file = OutputFile(output, source)
    file.take(overwrite=overwrite)
    options = name_values(settings.setting or [])
    if not source.exists():
        raise InputError(f"{source}: no such file or directory")
    files = data_files(source, settings.format)
    other_unit = settings.hessian_unit != "eV/A^2"
    if other_unit and (known := _format_with_unit(files[0] if files else source, settings.format)):
        raise InputError(f"the format {known} has units of its own and is read in eV/A^2: drop --hessian-unit")
    shifts = _shifts(source, settings, keys, options)
    counts = ConversionReport()
    natoms: list[int] = []
    labelled: list[bool] = []
    with writing(output) as write, progress_bar(None, source.name, "record") as bar:
        for part in files:
            counts.begin(part.name if len(files) > 1 else "")
            stop = settings.on_bad == "error"
            reject: OnBad = raise_bad(part) if stop else counts.add_bad
            records = read_dataset(part, settings.format, reject if stop else counts.add_unreadable, **options)
            for index, atoms, quality in checked(
                itertools.islice(records, _left(settings, counts)),
                counts,
                keys=keys,
                symmetrize=settings.symmetrize,
                factor=HESSIAN_UNITS[settings.hessian_unit],
                on_bad=reject,
            ):
                bar.update()
                found = next(iter(aligned([atoms], *shifts))) if shifts else atoms
                try:
                    write(found)
                except UnwritableError as error:
                    reject(index, str(error))
                    continue
                counts.add_written(found, quality)
                natoms.append(len(found))
                labelled.append(any(key.startswith("REF_hessian") for key in found.info))
        if not counts.n_input:
            raise StoreError(f"{source} holds no structures")
    if settings.metadata:
        with replacing(output.parent / "metadata.npz") as temporary:
            np.savez(temporary, natoms=np.array(natoms), has_hessian=np.array(labelled))
    result = ConvertedDataset(source, output, counts)
    file.write_summary(result.summary)
    return result


def _left(settings: ConvertSettings, counts: ConversionReport) -> int | None:
    """How many records may still be read; None for all."""
    return None if settings.limit is None else max(settings.limit - counts.n_input, 0)


def _shifts(
    source: Path, settings: ConvertSettings, keys: Keys, options: Mapping[str, Any]
) -> tuple[AtomicEnergies, ...]:
    """Energies per element of this level of theory and of the one to align to; nothing where none is asked for."""
    if settings.align_to is None:
        return ()
    if settings.align_from is None:
        same_level = adopted(read_dataset(source, settings.format, lambda *_: None, **options), keys)
    else:
        same_level = read_dataset(settings.align_from)
    return AtomicEnergies(same_level), AtomicEnergies(read_dataset(settings.align_to))


def _require_alone(output: Path) -> None:
    """metadata.npz belongs to a directory: with two databases in it, both hosts would count wrongly."""
    others = [p.name for p in output.parent.glob("*.aselmdb") if p.name != output.name and p.name[0] != "."]
    if others:
        raise InputError(f"--metadata: {output.parent} holds {others[0]} too; give each .aselmdb its own directory")


def _format_with_unit(source: Path, format: str) -> str:
    """The name of the format if its Hessians have a unit of their own; empty for structures with any labels."""
    name = detect_format(source) if format == "auto" else format
    return name if name in registries().readers and name not in ("extxyz", "aselmdb", "ase") else ""
