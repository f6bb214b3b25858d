"""``hint displace``: new geometries from known ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def displace(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Structures: any data set that `hint convert` reads.")],
    out: Annotated[Path, typer.Option(help="Output directory.")],
    method: Annotated[
        str,
        typer.Option(
            help="gaussian: every coordinate by a normal deviate (crystals, molecules); normal-modes: harmonic "
            "samples of molecules; path: geodesic path between every first and second structure of IN."
        ),
    ] = "gaussian",
    count: Annotated[int, typer.Option(min=1, help="Structures made from each (path: images, ends included).")] = 30,
    sigma: Annotated[float, typer.Option(help="gaussian: standard deviation in A.")] = 0.4,
    keep_centre: Annotated[
        bool, typer.Option("--keep-centre/--free-centre", help="gaussian: take the mean displacement away.")
    ] = True,
    temperature: Annotated[float, typer.Option(help="normal-modes: K.")] = 300.0,
    classical: Annotated[bool, typer.Option(help="normal-modes: classical widths, no zero-point motion.")] = False,
    engine: Annotated[
        str, typer.Option(help="normal-modes: engine for Hessians of structures that carry none.")
    ] = "xtb",
    format: Annotated[str, typer.Option(help="Of IN; auto or as in `hint convert`.")] = "auto",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier result in DIR.")] = False,
) -> None:
    """Displace structures: for labels around a crystal, a minimum, a transition state, along a reaction.

    DIR gets structures.xyz (without labels; `parent` is the number of the structure in IN), summary.json and
    config.yaml. A structure that cannot be displaced is named in summary.json.
    """
    import numpy as np

    from hint_plugins.cli.common import finish
    from hint_plugins.datasets import read_dataset
    from hint_plugins.errors import InputError
    from hint_plugins.labelling.engine import EngineError
    from hint_plugins.runs.directory import prepare_output, write_config, write_summary
    from hint_plugins.selection.batch import displaced
    from hint_plugins.selection.displacement import DisplacementError
    from hint_plugins.storage.store import StoreError, writing

    options = {k: v for k, v in locals().items() if isinstance(v, str | int | float | bool | Path)}
    prepare_output(out, overwrite=overwrite)
    failed: list[dict] = []
    n_input = n_output = 0
    try:
        with writing(out / "structures.xyz") as write:
            unreadable: list[int] = []

            def skip(index: int, reason: str) -> None:
                unreadable.append(index)
                failed.append({"index": index, "reason": reason})

            parents = read_dataset(source, format, skip)
            for parent, result in displaced(
                parents,
                method,
                count,
                np.random.default_rng(seed),
                sigma=sigma,
                keep_centre=keep_centre,
                temperature=temperature,
                quantum=not classical,
                engine=engine,
            ):
                n_input += 1
                parent += len(unreadable)
                if isinstance(result, Exception):
                    failed.append({"index": parent, "reason": str(result)})
                    continue
                for atoms in result:
                    atoms.info["parent"] = parent
                    write(atoms)
                    n_output += 1
    except (StoreError, DisplacementError, EngineError) as error:
        raise InputError(str(error)) from error
    n_input += len(unreadable)
    write_config(out, "displace", options)
    write_summary(out, {"n_input": n_input, "n_output": n_output, "n_bad": len(failed), "bad": failed})
    typer.echo(f"{n_output} structures -> {out / 'structures.xyz'}; {len(failed)} of {n_input} failed")
    for entry in failed[:5]:
        typer.echo(f"  structure {entry['index']}: {entry['reason']}", err=True)
    finish(len(failed))
