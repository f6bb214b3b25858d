"""``hint select``: choose which structures are worth a label."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def select(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Structures: any data set that `hint convert` reads.")],
    out: Annotated[Path, typer.Option(help="Output directory.")],
    method: Annotated[
        str,
        typer.Option(
            help="density: rare environments more often (SOAP); energy: by energy above the lowest isomer; random."
        ),
    ] = "density",
    fraction: Annotated[float, typer.Option(help="Part of the structures to take, for energies and forces.")] = 0.1,
    hessian_fraction: Annotated[
        float, typer.Option(help="Part of those, drawn at random, that is to get Hessians; 0 for none.")
    ] = 1.0,
    end: Annotated[str, typer.Option(help="energy: top (high energies, transition states) or bottom.")] = "top",
    neighbours: Annotated[int, typer.Option(help="density: k of the local density.")] = 10,
    components: Annotated[int, typer.Option(help="Principal components of SOAP that are kept.")] = 32,
    r_cut: Annotated[float, typer.Option(help="SOAP cutoff in A.")] = 5.0,
    map_plot: Annotated[
        bool, typer.Option("--map/--no-map", help="Draw the 2-D map (needs SOAP for energy and random, too).")
    ] = True,
    format: Annotated[str, typer.Option(help="Of the data set; auto or as in `hint convert`.")] = "auto",
    output_format: Annotated[str, typer.Option(help="extxyz or aselmdb.")] = "extxyz",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    plugins: Annotated[
        str | None,
        typer.Option(
            envvar="HINT_PLUGINS", help="Plugins whose readers and selectors may be used, separated by commas."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier result in DIR.")] = False,
) -> None:
    """Choose structures to label, and which of them get Hessians.

    DIR gets selected.xyz (or .aselmdb), where `label_request` says "hessian" or "forces" (`hint label` obeys it),
    scores.csv for all readable structures, map.png, summary.json and config.yaml. A structure chosen for forces only
    loses the Hessian label it may carry.
    """
    options = {k: v for k, v in locals().items() if isinstance(v, str | int | float | bool | Path)}
    import csv

    import numpy as np

    from hint_plugins.cli.common import finish
    from hint_plugins.cli.options import use_plugins
    from hint_plugins.datasets import read_dataset
    from hint_plugins.errors import InputError
    from hint_plugins.labelling.record import REQUEST
    from hint_plugins.labels.hessian_label import SUFFIXES
    from hint_plugins.runs.directory import prepare_output, write_config, write_summary
    from hint_plugins.runs.files import replacing
    from hint_plugins.selection.choose import choose
    from hint_plugins.selection.survey import SelectionError
    from hint_plugins.storage.store import StoreError, writing

    if output_format not in ("extxyz", "aselmdb"):
        raise InputError(f"--output-format is extxyz or aselmdb, not {output_format!r}")
    use_plugins(plugins)
    prepare_output(out, overwrite=overwrite)
    bad: list[dict] = []

    def read(count_bad: bool = False):
        def skip(index: int, reason: str) -> None:
            if count_bad:
                bad.append({"index": index, "reason": reason})

        return read_dataset(source, format, skip)

    try:
        chosen = choose(
            read,
            method=method,
            fraction=fraction,
            hessian_fraction=hessian_fraction,
            end=end,
            neighbours=neighbours,
            components=components,
            r_cut=r_cut,
            with_map=map_plot,
            rng=np.random.default_rng(seed),
        )
        target = out / ("selected.aselmdb" if output_format == "aselmdb" else "selected.xyz")
        with (
            writing(target) as write,
            replacing(out / "scores.csv") as temporary,
            temporary.open("w", newline="") as handle,
        ):
            table = csv.writer(handle)
            table.writerow(["index", "formula", "num_atoms", "score", "selected", "hessian"])
            for index, atoms in enumerate(read(count_bad=True)):
                taken, hessian = bool(chosen.taken[index]), bool(chosen.hessian[index])
                table.writerow(
                    [
                        index + len(bad),
                        chosen.formulas[index],
                        len(atoms),
                        f"{chosen.scores[index]:.8g}",
                        int(taken),
                        int(hessian),
                    ]
                )
                if taken:
                    atoms.info[REQUEST] = "hessian" if hessian else "forces"
                    if not hessian:
                        for suffix in SUFFIXES:
                            atoms.info.pop("REF_hessian" + suffix, None)
                    write(atoms)
    except (StoreError, SelectionError) as error:
        raise InputError(str(error)) from error
    if chosen.points is not None:
        from hint_plugins.selection.plot import plot_map

        plot_map(chosen, out / "map.png")
    write_config(out, "select", options)
    counts = {"n_input": len(chosen.taken) + len(bad), "n_output": int(chosen.taken.sum()), "n_bad": len(bad)}
    write_summary(
        out,
        {**counts, "n_hessians": int(chosen.hessian.sum()), "explained_variance": chosen.explained, "bad": bad[:1000]},
    )
    typer.echo(
        f"{counts['n_input']} structures: {counts['n_output']} chosen, {int(chosen.hessian.sum())} for Hessians"
        f" -> {target}"
    )
    for entry in bad[:5]:
        typer.echo(f"  record {entry['index']}: {entry['reason']}", err=True)
    finish(len(bad))
