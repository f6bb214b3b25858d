"""``hint check``: are the labels of a file what they claim to be?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hint_plugins.labels.limits import MAX_ASYMMETRY, MAX_SUM_RULE


def check(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Structures: .xyz, .aselmdb, any other format of ASE, files of codes with a Hessian (.fchk, .hess, "
            "vasprun.xml, ...), or directories of these.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Directory for labels.csv (one line a structure) and summary.json.")
    ] = None,
    hessian_key: Annotated[str, typer.Option(help="Hessian (eV/A^2) in info.")] = "REF_hessian",
    energy_key: Annotated[str, typer.Option(help="Energy (eV) in info.")] = "REF_energy",
    forces_key: Annotated[str, typer.Option(help="Forces (eV/A) in arrays.")] = "REF_forces",
    stress_key: Annotated[str, typer.Option(help="Stress (eV/A^3) in info.")] = "REF_stress",
    virials_key: Annotated[str, typer.Option(help="Virials (eV) in info.")] = "REF_virials",
    max_asymmetry: Annotated[float, typer.Option(min=0, help="Largest max|H - H^T| / max|H|.")] = MAX_ASYMMETRY,
    max_sum_rule: Annotated[float, typer.Option(min=0, help="Largest |sum over atoms| / max|H|.")] = MAX_SUM_RULE,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier result in --out.")] = False,
) -> None:
    """Check geometries, energies, forces, stresses and Hessian labels: lengths, finite numbers, signs, units, symmetry,
    sum rules, order of atoms.

    Names file, place and reason of every bad one, and counts what is missing; exit status 1 if there is a bad one.
    """
    from collections import Counter
    from functools import partial

    from tqdm import tqdm

    from hint_plugins.cli.common import finish
    from hint_plugins.datasets.codes import holds_hessian, numbered_runs
    from hint_plugins.errors import InputError
    from hint_plugins.labels.checks import check_structure
    from hint_plugins.labels.keys import Keys
    from hint_plugins.labels.series import EnergySeries
    from hint_plugins.runs.directory import prepare_output, write_config, write_summary
    from hint_plugins.runs.files import write_csv
    from hint_plugins.storage.store import StoreError, count_structures, read_numbered

    options = {k: v for k, v in locals().items() if isinstance(v, str | int | float | bool | list | Path | None)}
    keys = Keys(energy_key, forces_key, stress_key, hessian_key, virials_key)
    if out is not None:
        prepare_output(out, overwrite=overwrite)
    rows: list[dict[str, Any]] = []
    others: Counter[str] = Counter()

    def unreadable(path: Path, index: int, reason: str) -> None:
        rows.append({"file": str(path), "index": index, "formula": "", "num_atoms": 0, "reason": reason})

    try:
        for path in files:
            if not path.exists():
                raise InputError(f"{path}: no such file")
            series = EnergySeries(keys)
            mine: list[dict[str, Any]] = []
            of_codes = path.is_dir() or holds_hessian(path)
            structures = partial(numbered_runs, incomplete=True) if of_codes else read_numbered
            with tqdm(total=None if of_codes else count_structures(path), unit="structure", desc=path.name) as bar:
                for index, atoms in structures(path, partial(unreadable, path)):
                    row: dict[str, Any] = {"file": str(path), "index": index}
                    row |= check_structure(atoms, keys, max_asymmetry=max_asymmetry, max_sum_rule=max_sum_rule)
                    if not row.pop("wrong") and not of_codes:  # runs may be of several levels of theory
                        series.add(atoms)
                    others.update([*atoms.info, *atoms.arrays])
                    mine.append(row)
                    bar.update()
            if verdict := series.verdict():
                for row in mine:
                    if row["energy"] and not row["reason"]:
                        row["reason"] = verdict
            rows += mine
    except StoreError as error:
        raise InputError(str(error)) from error
    rows.sort(key=lambda row: (files.index(Path(row["file"])), row["index"]))
    bad = [row for row in rows if row["reason"]]
    kinds = Counter(row.get("kind") or "unlabelled" for row in rows if not row["reason"])
    there = {name: sum(bool(row.get(name)) for row in rows) for name in ("energy", "forces", "stress")}
    read = sum("energy" in row for row in rows)
    summary = {
        "n_input": len(rows),
        "n_output": len(rows) - len(bad),
        "n_bad": len(bad),
        "n_energies": there["energy"],
        "n_forces": there["forces"],
        "n_stresses": there["stress"],
        "n_full": kinds["full"],
        "n_columns": kinds["columns"],
        "n_projections": kinds["projections"],
        "n_unlabelled": kinds["unlabelled"],
        "bad": [{k: row[k] for k in ("file", "index", "formula", "reason")} for row in bad],
    }
    if out is not None:
        write_csv(out / "labels.csv", rows)
        write_config(out, "check", options)
        write_summary(out, summary)
    for row in bad:
        typer.echo(f"{row['file']}, structure {row['index']} ({row['formula']}): {row['reason']}")
    good = f"{kinds['full']} full Hessians, {kinds['columns']} with columns, {kinds['projections']} with projections"
    typer.echo(f"{len(rows)} structures, {len(bad)} bad; good: {good}, {kinds['unlabelled']} without a Hessian")
    typer.echo(
        f"{there['energy']} energies ({read - there['energy']} missing), {there['forces']} forces "
        f"({read - there['forces']} missing), {there['stress']} stresses"
    )
    if read and not any(there.values()) and not any(row.get("kind") for row in rows):
        names = ", ".join(sorted(set(others) - {"numbers", "positions"})) or "nothing else"
        typer.echo(
            f"No known label was found under {energy_key}, {forces_key}, {stress_key}, {virials_key}, {hessian_key}; "
            f"the structures have {names}. Name the labels with the options --energy-key ...",
            err=True,
        )
    finish(len(bad))
