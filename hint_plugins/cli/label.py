"""``hint label``: energies, forces and second derivatives of structures from a reference method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ase import Atoms

#: Engines whose labels are too costly to be lost by the batch.
SLOW = ("pyscf", "espresso")


def label(
    structures: Annotated[
        Path, typer.Argument(metavar="IN", help="Structures: .xyz, .aselmdb, or any other format of ASE.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Labelled structures: .xyz, .extxyz or .aselmdb.")],
    engine: Annotated[
        str, typer.Option(help="xtb, pyscf, espresso, ase (with --calculator), or module:class.")
    ] = "xtb",
    method: Annotated[
        str | None,
        typer.Option(help="xtb: GFN2-xTB (default), GFN1-xTB; pyscf: FUNCTIONAL/BASIS (wb97x/6-31g*)."),
    ] = None,
    calculator: Annotated[
        str | None, typer.Option(help="ASE calculator by name (emt) or module:factory, for --engine ase.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Further settings of the engine, e.g. accuracy=0.001."),
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            help="full: the whole Hessian (6N gradients); columns: a few columns; "
            "projections: products with random directions (2 gradients each); forces: no Hessian."
        ),
    ] = "full",
    num_probes: Annotated[int, typer.Option(min=1, help="Directions (projections) or columns (columns).")] = 5,
    step: Annotated[
        float | None, typer.Option(help="Displacement of finite differences in A [default: the engine's].")
    ] = None,
    symmetry: Annotated[
        bool, typer.Option(help="full, crystals: displace symmetry-distinct atoms only (phonopy).")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Fixes the random directions or columns.")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes, one thread each [default: all cores].")
    ] = None,
    executor: Annotated[str, typer.Option(help="local, dask or parsl.")] = "local",
    scheduler: Annotated[str | None, typer.Option(help="Address of a Dask scheduler, tcp://host:port.")] = None,
    parsl_config: Annotated[Path | None, typer.Option(help="Python file that defines `config` for Parsl.")] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Structures sent to a worker at once; a killed run loses at most the batches under way "
            "[default: 1 with pyscf and espresso, else 8].",
        ),
    ] = None,
    retry_failed: Annotated[bool, typer.Option(help="Compute again what failed in an earlier run.")] = False,
    plugins: Annotated[
        str | None,
        typer.Option(envvar="HINT_PLUGINS", help="Plugins whose engines may be used, separated by commas."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Discard OUT and the records it was made from.")] = False,
) -> None:
    """Label structures with a reference method.

    Finished batches are on the disk: a run that was stopped or killed goes on when the same command is given
    again, and repeats the batches that were under way. OUT appears at the end, with OUT's stem and .summary.json,
    .failed.csv (what could not be labelled, and why), .doubtful.extxyz (labels that do not pass the check) and
    .config.yaml beside it (OUT's whole name if another OUT of that stem came first); OUT.shards holds the records.
    Frames of IN that cannot be read are among the failed.
    """
    import time

    from hint_plugins.cli.common import finish
    from hint_plugins.cli.options import same_place, stem_beside, use_plugins
    from hint_plugins.errors import InputError
    from hint_plugins.labelling.engine import ENGINES, EngineError, EngineSpec
    from hint_plugins.labelling.record import LabelTask
    from hint_plugins.labelling.run import label_file
    from hint_plugins.labelling.shards import ShardError
    from hint_plugins.runs.executors import ExecutorError, available_cores, executor_factory
    from hint_plugins.runs.files import replacing, write_csv, write_json
    from hint_plugins.storage.store import StoreError, count_structures, read_structures, store_format, write_structures

    options = {k: v for k, v in locals().items() if isinstance(v, str | int | float | bool | list | Path | None)}
    started = time.perf_counter()
    workers = workers or available_cores()
    try:
        store_format(output)
        if same_place(structures, output):
            raise InputError("IN and OUT are the same file")
        if not structures.is_file():
            raise InputError(f"{structures}: no such file")
        n_input = count_structures(structures)
        unreadable: dict[int, str] = {}
        doubtful: list[Atoms] = []
        read = lambda: read_structures(structures, unreadable.__setitem__)  # noqa: E731
        use_plugins(plugins)
        spec = EngineSpec(ENGINES.get(engine, engine), _engine_options(engine, method, calculator, setting or []))
        task = LabelTask(kind, num_probes, seed, step, symmetry=symmetry)
        open_executor = executor_factory(executor, workers, scheduler=scheduler, parsl_config=parsl_config)
        shards = output.with_name(output.name + ".shards")
        if output.exists() and not shards.is_dir() and not overwrite:
            raise InputError(f"{output} exists and was not made by this command: choose another OUT, or --overwrite")
        with _Bar(n_input, engine, kind) as bar:
            summary, failures = label_file(
                read,
                output,
                spec,
                task,
                open_executor,
                shards=shards,
                workers=workers,
                batch_size=batch_size or (1 if engine in SLOW else 8),
                retry_failed=retry_failed,
                fresh=overwrite,
                progress=bar,
                known=bar.known,
                doubtful=doubtful.append,
            )
    except (EngineError, ExecutorError, ShardError, StoreError) as error:
        raise InputError(str(error)) from error
    except ValueError as error:
        raise InputError(str(error)) from error
    summary.n_input += len(unreadable)
    summary.n_failed += len(unreadable)
    failures = _with_unreadable(failures, unreadable)
    stem = stem_beside(output)
    seconds = round(time.perf_counter() - started, 3)
    failed_csv = output.with_name(f"{stem}.failed.csv")
    failed_csv.unlink(missing_ok=True)
    if failures:
        write_csv(failed_csv, failures)
    apart = output.with_name(f"{stem}.doubtful.extxyz")
    apart.unlink(missing_ok=True)
    if doubtful:
        write_structures(apart, doubtful)
    with replacing(output.with_name(f"{stem}.config.yaml")) as temporary:
        import yaml

        from hint_plugins.runs.files import plain

        temporary.write_text(yaml.safe_dump({"command": "label", **plain(options)}, sort_keys=False))
    counts = {**vars(summary), "seconds": seconds}
    write_json(output.with_name(f"{stem}.summary.json"), {**counts, "output": output, "failed": failures[:1000]})
    typer.echo(
        f"{summary.n_input} structures: {summary.n_done} labelled, {summary.n_skipped} there already, "
        f"{summary.n_failed} failed; OUT holds {summary.n_energies} energies, {summary.n_forces} forces, "
        f"{summary.n_stresses} stresses, {summary.n_hessians} Hessians; {seconds:.1f} s -> {output}"
    )
    if summary.n_with_frozen_atoms:
        typer.echo(
            f"{summary.n_with_frozen_atoms} of them have frozen atoms (constraints), which OUT keeps: forces and "
            "second derivatives are those of all atoms, as if they were free"
        )
    if doubtful:
        typer.echo(f"{len(doubtful)} are labelled, but do not pass the check (`hint check`): see {apart}", err=True)
    for item in failures[:10]:
        typer.echo(f"{structures}, structure {item['index']} ({item['formula']}): {item['error']}", err=True)
    if len(failures) > 10:
        typer.echo(f"the others are in {failed_csv}", err=True)
    finish(summary.n_failed)


def _with_unreadable(failures: list[dict], unreadable: dict[int, str]) -> list[dict]:
    """Number the failures as the file does, and add the frames that could not be read."""
    lines = [{"index": i, "key": "", "formula": "", "error": f"cannot be read: {r}"} for i, r in unreadable.items()]
    for entry in failures:
        index = entry["index"]
        for other in sorted(unreadable):
            index += other <= index
        lines.append(entry | {"index": index})
    return sorted(lines, key=lambda line: line["index"])


def _engine_options(engine: str, method: str | None, calculator: str | None, settings: list[str]) -> dict:
    """Keyword arguments of the engine from the command line; values are read as YAML scalars."""
    from hint_plugins.cli.options import name_values
    from hint_plugins.errors import InputError

    options = name_values(settings)
    if method is not None:
        options["method"] = method
    if calculator is not None:
        if engine != "ase":
            raise InputError("--calculator belongs to --engine ase")
        options["calculator"] = calculator
    elif engine == "ase":
        raise InputError("--engine ase needs --calculator, a name ASE knows or module:factory")
    return options


class _Bar:
    """Progress with rate and time left on stderr."""

    def __init__(self, total: int, engine: str, kind: str) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total, desc=f"{engine} {kind}", unit="label", disable=None, smoothing=0.05)
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
