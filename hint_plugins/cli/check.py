"""``hint check``: are the labels of a file what they claim to be?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hint_plugins.labels.limits import MAX_ASYMMETRY, MAX_SUM_RULE


def check(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Structures: .xyz, .aselmdb, or any other format of ASE.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Directory for labels.csv (one line a structure) and summary.json.")
    ] = None,
    hessian_key: Annotated[str, typer.Option(help="Hessian (eV/A^2) in info.")] = "REF_hessian",
    energy_key: Annotated[str, typer.Option(help="Energy (eV) in info.")] = "REF_energy",
    forces_key: Annotated[str, typer.Option(help="Forces (eV/A) in arrays.")] = "REF_forces",
    max_asymmetry: Annotated[float, typer.Option(min=0, help="Largest max|H - H^T| / max|H|.")] = MAX_ASYMMETRY,
    max_sum_rule: Annotated[float, typer.Option(min=0, help="Largest |sum over atoms| / max|H|.")] = MAX_SUM_RULE,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier result in --out.")] = False,
) -> None:
    """Check energies, forces and Hessian labels: length, finite numbers, symmetry, sum rules, units, atom order.

    Names file, frame and reason of every bad one; exit status 1 if there is any.
    """
    from collections import Counter
    from functools import partial

    from tqdm import tqdm

    from hint_plugins.cli.common import InputError, finish, prepare_output, write_config, write_csv, write_summary
    from hint_plugins.labels.checks import check_structure
    from hint_plugins.labels.store import StoreError, count_structures, read_structures

    options = {k: v for k, v in locals().items() if isinstance(v, str | int | float | bool | list | Path | None)}
    if out is not None:
        prepare_output(out, overwrite=overwrite)
    rows: list[dict[str, Any]] = []

    def unreadable(path: Path, index: int, reason: str) -> None:
        rows.append({"file": str(path), "index": index, "formula": "", "num_atoms": 0, "reason": reason})

    try:
        for path in files:
            if not path.is_file():
                raise InputError(f"{path}: no such file")
            bar = tqdm(total=count_structures(path), unit="structure", desc=path.name)
            structures = read_structures(path, partial(unreadable, path))
            with bar:
                for index, atoms in enumerate(structures):
                    row: dict[str, Any] = {"file": str(path), "index": index}
                    row |= check_structure(
                        atoms,
                        hessian_key,
                        energy_key,
                        forces_key,
                        max_asymmetry=max_asymmetry,
                        max_sum_rule=max_sum_rule,
                    )
                    rows.append(row)
                    bar.update()
    except StoreError as error:
        raise InputError(str(error)) from error
    bad = [row for row in rows if row["reason"]]
    kinds = Counter(row.get("kind") or "unlabelled" for row in rows if row not in bad)
    summary = {
        "n_input": len(rows),
        "n_output": len(rows) - len(bad),
        "n_bad": len(bad),
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
    finish(len(bad))
