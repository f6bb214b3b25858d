"""``hint evaluate``: errors of a potential on labelled structures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hint_plugins.cli.options import Device

if TYPE_CHECKING:
    from ase import Atoms

    from hint_plugins.evaluation.errors import Keys, Part

#: Structures in one part: what is lost when a run is killed.
PART = 64


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Model file (file#head), tblite:GFN2-xTB, emt or module:factory.")
    ],
    data: Annotated[
        list[Path],
        typer.Argument(metavar="DATA...", help="Labelled structures: .xyz, .aselmdb, or any other format of ASE."),
    ],
    out: Annotated[Path, typer.Option(help="Directory for the results.")],
    energy_key: Annotated[str, typer.Option(help="Reference energy (eV) in info.")] = "REF_energy",
    forces_key: Annotated[str, typer.Option(help="Reference forces (eV/A) in arrays.")] = "REF_forces",
    stress_key: Annotated[str, typer.Option(help="Reference stress (eV/A^3) in info.")] = "REF_stress",
    hessian_key: Annotated[str, typer.Option(help="Reference Hessian (eV/A^2) in info.")] = "REF_hessian",
    max_hessians: Annotated[
        int | None, typer.Option(min=0, help="Compute at most so many Hessians, a random selection [default: all].")
    ] = None,
    device: Device = None,
    dtype: Annotated[str | None, typer.Option(help="float64 or float32 [default: the model's].")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of random selections.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier result in --out.")] = False,
) -> None:
    """Errors of a potential on labelled structures: energy, forces, Hessian, eigenvalues, frequencies.

    Writes summary.json, structures.csv (one line a structure), parity.png and config.yaml. Units: eV, Angstrom,
    cm^-1. Structures without a label are skipped for that quantity. A killed run goes on when it is repeated.
    """
    import shutil
    import time

    from tqdm import tqdm

    from hint_plugins.cli.common import finish
    from hint_plugins.errors import InputError
    from hint_plugins.evaluation.errors import Keys, evaluate_part, summarise
    from hint_plugins.evaluation.parity import plot_parity
    from hint_plugins.potential import Potential, PotentialError
    from hint_plugins.runs.directory import prepare_output, write_config, write_summary
    from hint_plugins.runs.files import write_csv
    from hint_plugins.storage.store import StoreError, count_structures

    options = {k: v for k, v in locals().items() if k in OPTIONS}
    started = time.perf_counter()
    keys = Keys(energy_key, forces_key, stress_key, hessian_key)
    unreadable: list[dict[str, Any]] = []
    try:
        total = sum(count_structures(path) if path.is_file() else _missing(path) for path in data)
        prepare_output(out, overwrite=overwrite)
        potential = Potential.load(model, device, dtype)
        chosen = _choose(data, keys, max_hessians, seed)
        parts = _parts_directory(out, options, data)
        done: list[Part] = []
        with tqdm(total=total, unit="structure", desc="evaluate") as bar:
            for path, places, batch in _batches(data, unreadable):
                file = parts / f"{data.index(path)}-{places[0]:09d}.npz"
                part = _load_part(file)
                if part is None:
                    wanted = None if chosen is None else {k for where, k in chosen if where == path}
                    part = evaluate_part(
                        potential,
                        batch,
                        places,
                        keys,
                        hessians=wanted,
                        seed=seed,
                    )
                    for row in part.rows:
                        row["file"] = str(path)
                    _save_part(part, file)
                done.append(part)
                bar.update(len(batch))
    except (StoreError, PotentialError) as error:
        raise InputError(str(error)) from error
    rows = [row for part in done for row in part.rows]
    summary = summarise(rows)
    if not (summary["n_energies"] or summary["n_forces"] or summary["n_hessians"] or summary["n_failed"]):
        if not (unreadable or rows):
            raise InputError(f"{', '.join(map(str, data))}: no structures")
        if rows and not summary["n_products"]:
            raise InputError(f"{data[0]}: no labels under {energy_key}, {forces_key}, {hessian_key}{_present(data[0])}")
    summary["n_failed"] += len(unreadable)
    summary["failed"] += unreadable
    write_csv(out / "structures.csv", rows)
    plot_parity(_joined(done, seed), out / "parity.png", summary, potential.name)
    write_config(out, "evaluate", options)
    seconds = round(time.perf_counter() - started, 3)
    write_summary(out, {"model": model, "data": list(map(str, data)), **summary, "seconds": seconds})
    shutil.rmtree(parts.parent, ignore_errors=True)
    for line in _table(summary):
        typer.echo(line)
    for item in summary["failed"][:10]:
        typer.echo(f"{item['file']}, structure {item['index']} ({item['formula']}): {item['reason']}", err=True)
    finish(summary["n_failed"])


OPTIONS = (
    "model",
    "data",
    "out",
    "energy_key",
    "forces_key",
    "stress_key",
    "hessian_key",
    "max_hessians",
    "device",
    "dtype",
    "seed",
)


def _missing(path: Path) -> int:
    from hint_plugins.errors import InputError

    raise InputError(f"{path}: no such file")


def _batches(data: list[Path], unreadable: list[dict[str, Any]]) -> Iterator[tuple[Path, list[int], list[Atoms]]]:
    """Structures of all files in parts: file, places in it, structures; damaged records are noted."""
    from itertools import islice

    from hint_plugins.storage.store import read_numbered

    for path in data:

        def bad(where: int, reason: str, path: Path = path) -> None:
            unreadable.append({"file": str(path), "index": where, "formula": "", "reason": reason})

        structures = read_numbered(path, bad)
        while batch := list(islice(structures, PART)):
            yield path, [place for place, _ in batch], [atoms for _, atoms in batch]


def _choose(data: list[Path], keys: Keys, limit: int | None, seed: int) -> set[tuple[Path, int]] | None:
    """File and index of the structures whose Hessian is computed; None for all."""
    import numpy as np

    from hint_plugins.labels.hessian_label import SUFFIXES

    if limit is None:
        return None
    labelled = [
        (path, place)
        for path, places, batch in _batches(data, [])
        for place, atoms in zip(places, batch, strict=True)
        if any(keys.hessian + suffix in atoms.info for suffix in SUFFIXES)
    ]
    count = min(limit, len(labelled))
    return {labelled[k] for k in np.random.default_rng(seed).choice(len(labelled), count, replace=False)}


def _parts_directory(out: Path, options: dict[str, Any], data: list[Path]) -> Path:
    """Where finished parts are kept; those of other options or files are discarded."""
    import shutil

    files = [*data, Path(str(options["model"]).split("#")[0])]
    stamps = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.exists()]
    state = json.dumps([{k: str(v) for k, v in options.items() if k != "out"}, stamps], sort_keys=True)
    parts = out / ".parts" / hashlib.sha256(state.encode()).hexdigest()[:16]
    if (out / ".parts").exists() and not parts.exists():
        shutil.rmtree(out / ".parts")
    parts.mkdir(parents=True, exist_ok=True)
    return parts


def _save_part(part: Part, file: Path) -> None:
    import numpy as np

    from hint_plugins.runs.files import replacing

    with replacing(file) as temporary, temporary.open("wb") as handle:
        np.savez(handle, rows=np.array(json.dumps(part.rows)), **part.points)  # type: ignore[arg-type]


def _load_part(file: Path) -> Part | None:
    import numpy as np

    from hint_plugins.evaluation.errors import Part

    if not file.exists():
        return None
    with np.load(file) as content:
        return Part(json.loads(str(content["rows"])), {k: content[k] for k in content.files if k != "rows"})


def _joined(parts: list[Part], seed: int) -> dict[str, Any]:
    """Points of all parts, at most 20000 a quantity."""
    import numpy as np

    points = {}
    for name in {name for part in parts for name in part.points}:
        both = np.concatenate([part.points[name] for part in parts if name in part.points], axis=1)
        if both.shape[1] > 20000:
            both = both[:, np.random.default_rng(seed).choice(both.shape[1], 20000, replace=False)]
        points[name] = both
    return points


def _present(path: Path) -> str:
    from hint_plugins.storage.store import read_structures

    atoms = next(iter(read_structures(path)), None)
    if atoms is None:
        return ""
    arrays = sorted(set(atoms.arrays) - {"numbers", "positions"})
    return f"; the first structure has info {sorted(atoms.info) or 'nothing'} and arrays {arrays or 'nothing'}"


def _table(summary: dict[str, Any]) -> list[str]:
    names = {
        "energy_mae_per_atom": "energy MAE per atom",
        "forces_mae": "force MAE",
        "stress_mae": "stress MAE",
        "hessian_mae": "Hessian MAE",
        "eigenvalue_mae": "eigenvalue MAE",
        "frequency_mae_cm1": "frequency MAE",
        "asymmetry": "asymmetry of the prediction",
        "hvp_mae": "Hessian product MAE",
    }
    units = {"frequency_mae_cm1": "cm^-1", **summary["units"]}
    lines = [f"{summary['n_structures']} structures, {summary['n_hessians']} Hessians, {summary['n_failed']} failed"]
    there = {f"{text} ({units[key]})": summary[key] for key, text in names.items() if summary[key] is not None}
    return lines + [f"  {text:<38}{value:.6g}" for text, value in there.items()]
