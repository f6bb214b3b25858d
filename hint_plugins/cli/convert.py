"""``hint convert``: published data sets to files that MACE and fairchem train from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Data set: file or directory.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help=".aselmdb, .xyz, .extxyz or .extxyz.gz.")],
    format: Annotated[
        str,
        typer.Option(
            help="auto, extxyz, aselmdb, ase (any other format that ASE reads), horm, transition1x, rgd1, "
            "hessian-qm9, deepmd, phonopy, qe-fc, openreact, codes (files of Gaussian, ORCA, VASP, ...) or "
            "module:function."
        ),
    ] = "auto",
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Option of the reader, e.g. split=train, energy=ae."),
    ] = None,
    hessian_unit: Annotated[
        str, typer.Option(help="Unit of the Hessians in IN: eV/A^2, Ha/Bohr^2, Ry/Bohr^2 or eV/Bohr^2.")
    ] = "eV/A^2",
    energy_key: Annotated[str, typer.Option(help="Energy (eV) in info.")] = "REF_energy",
    forces_key: Annotated[str, typer.Option(help="Forces (eV/A) in arrays.")] = "REF_forces",
    stress_key: Annotated[str, typer.Option(help="Stress (eV/A^3) in info, six numbers or 3x3.")] = "REF_stress",
    virials_key: Annotated[
        str, typer.Option(help="Virials (eV) in info; written as the stress -virials/volume.")
    ] = "REF_virials",
    hessian_key: Annotated[str, typer.Option(help="Hessian in info.")] = "REF_hessian",
    symmetrize: Annotated[bool, typer.Option(help="Write (H + H^T)/2 for full Hessians.")] = False,
    align_to: Annotated[
        Path | None,
        typer.Option(
            help="Shift the energies by a constant an element to the scale of this data set (another level of theory)."
        ),
    ] = None,
    align_from: Annotated[
        Path | None,
        typer.Option(
            help="With --align-to: labelled as IN is; gives the constants instead of IN, so that several files (the "
            "training and the test part) get the same."
        ),
    ] = None,
    on_bad: Annotated[
        str, typer.Option(help="drop: leave bad records out and name them; error: stop at the first.")
    ] = "drop",
    limit: Annotated[int | None, typer.Option(min=1, help="Read so many records at most.")] = None,
    metadata: Annotated[
        bool, typer.Option(help="Write metadata.npz (natoms, has_hessian) beside an .aselmdb, for fairchem.")
    ] = False,
    plugins: Annotated[
        str | None,
        typer.Option(envvar="HINT_PLUGINS", help="Plugins whose readers may be used, separated by commas."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace OUT if it exists.")] = False,
) -> None:
    """Convert a data set, checking every record.

    Records stream through: a set of any size fits. Beside OUT appears OUT's stem with .summary.json (its whole name
    if another OUT of that stem came first): the counts of records and of each label, the records left out with
    reasons, and the asymmetry and sum-rule residuals of the Hessians.
    """
    import itertools
    from dataclasses import asdict

    import numpy as np
    from tqdm import tqdm

    from hint_plugins.cli.common import finish
    from hint_plugins.cli.options import name_values, refuse_existing, stem_beside, use_plugins
    from hint_plugins.curvature.layouts import UNITS
    from hint_plugins.datasets import data_files, read_dataset
    from hint_plugins.datasets.convert import ConversionReport, adopted, checked
    from hint_plugins.datasets.energies import AtomicEnergies, aligned
    from hint_plugins.errors import InputError
    from hint_plugins.labels.keys import Keys
    from hint_plugins.runs.files import replacing, write_json
    from hint_plugins.storage.store import StoreError, UnwritableError, raise_bad, store_format, writing

    if hessian_unit not in UNITS:
        raise InputError(f"unknown unit {hessian_unit!r}: choose {', '.join(UNITS)}")
    if align_from is not None and align_to is None:
        raise InputError("--align-from belongs to --align-to")
    if on_bad not in ("drop", "error"):
        raise InputError(f"--on-bad is drop or error, not {on_bad!r}")
    use_plugins(plugins)
    report = ConversionReport()
    keys = Keys(energy_key, forces_key, stress_key, hessian_key, virials_key)
    natoms: list[int] = []
    labelled: list[bool] = []
    try:
        kind = store_format(output)
        if metadata:
            _metadata_allowed(output, kind)
        refuse_existing(output, overwrite, source)
        options = name_values(setting or [])
        if not source.exists():
            raise InputError(f"{source}: no such file or directory")
        files = data_files(source, format)
        if hessian_unit != "eV/A^2" and (known := _format_with_unit(files[0] if files else source, format)):
            raise InputError(f"the format {known} has units of its own and is read in eV/A^2: drop --hessian-unit")
        shifts: tuple[AtomicEnergies, ...] = ()
        if align_to is not None:
            if align_from is None:
                same_level = adopted(read_dataset(source, format, lambda *_: None, **options), keys)
            else:
                same_level = read_dataset(align_from)
            shifts = (AtomicEnergies(same_level), AtomicEnergies(read_dataset(align_to)))
        bar = tqdm(unit="record", disable=None)
        with writing(output) as write, bar:
            for file in files:
                report.begin(file.name if len(files) > 1 else "")
                reject = raise_bad(file) if on_bad == "error" else report.add_bad
                records = read_dataset(file, format, reject if on_bad == "error" else report.add_unreadable, **options)
                left = None if limit is None else max(limit - report.n_input, 0)
                for index, atoms, quality in checked(
                    itertools.islice(records, left),
                    report,
                    keys=keys,
                    symmetrize=symmetrize,
                    factor=UNITS[hessian_unit],
                    on_bad=reject,
                ):
                    bar.update()
                    if shifts:
                        (atoms,) = aligned([atoms], *shifts)
                    try:
                        write(atoms)
                    except UnwritableError as error:
                        reject(index, str(error))
                        continue
                    report.add_written(atoms, quality)
                    if metadata:
                        natoms.append(len(atoms))
                        labelled.append(any(key.startswith("REF_hessian") for key in atoms.info))
            if not report.n_input:
                raise StoreError(f"{source} holds no structures")
    except (StoreError, ValueError) as error:
        raise InputError(str(error)) from error
    if metadata:
        with replacing(output.parent / "metadata.npz") as temporary:
            np.savez(temporary, natoms=np.array(natoms), has_hessian=np.array(labelled))
    write_json(output.with_name(f"{stem_beside(output)}.summary.json"), {**asdict(report), "output": output})
    typer.echo(
        f"{report.n_input} records: {report.n_output} written, {report.n_bad} bad; {report.n_energies} energies, "
        f"{report.n_forces} forces, {report.n_stresses} stresses, {report.n_hessians} Hessians"
        f" (asymmetry up to {report.asymmetry_max:.2g}, sum rule off by up to {report.sum_rule_max:.2g} eV/A^2)"
        f" -> {output}"
    )
    if report.n_output and not (report.n_energies or report.n_forces or report.n_stresses or report.n_hessians):
        there = f" It has {', '.join(sorted(report.others))}." if report.others else ""
        typer.echo(
            f"No known label was found in {source}.{there} Name the labels: --energy-key, --forces-key, --stress-key, "
            "--virials-key, --hessian-key",
            err=True,
        )
    for entry in report.bad[:5]:
        where = f"{entry['file']}, record" if "file" in entry else f"{source}, record"
        typer.echo(f"  {where} {entry['index']}: {entry['reason']}", err=True)
    finish(report.n_bad)


def _metadata_allowed(output: Path, kind: str) -> None:
    """metadata.npz belongs to a directory: with two databases in it, both hosts would count wrongly."""
    from hint_plugins.errors import InputError

    if kind != "aselmdb":
        raise InputError("--metadata belongs to an .aselmdb output")
    others = [p.name for p in output.parent.glob("*.aselmdb") if p.name != output.name and p.name[0] != "."]
    if others:
        raise InputError(f"--metadata: {output.parent} holds {others[0]} too; give each .aselmdb its own directory")


def _format_with_unit(source: Path, format: str) -> str:
    """The name of the format if its Hessians have a unit of their own; empty for structures with any labels."""
    from hint_plugins.datasets import READERS, detect_format

    name = detect_format(source) if format == "auto" else format
    return name if name in READERS and name not in ("extxyz", "aselmdb", "ase") else ""
