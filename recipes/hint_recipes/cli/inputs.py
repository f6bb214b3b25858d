"""Reading what the studies' commands are given; every problem is a sentence."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hint_plugins.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

    from hint_recipes.molecules.transition_states.reaction import Reaction


def read_frames(paths: list[Path]) -> list[Atoms]:
    """All structures of the files (extxyz, aselmdb, or any other format that ASE reads).

    Raises
    ------
    InputError
        Missing, unreadable or empty file.
    """
    from hint_plugins.storage.store import read_structures

    frames: list[Atoms] = []
    for path in paths:
        if not path.is_file():
            raise InputError(f"no such file: {path}")
        try:
            found = list(read_structures(path))
        except (ValueError, OSError) as error:
            raise InputError(str(error)) from error
        if not found:
            raise InputError(f"{path}: holds no structure")
        frames += found
    return frames


def read_reactions(paths: list[Path], only: list[str] | None = None, *, advice: str = "") -> list[Reaction]:
    """The reactions of the files, or those named in ``only``; ``advice`` ends the sentence about other structures.

    Raises
    ------
    InputError
        As :func:`read_frames`; structures without reaction and role; an unknown name.
    """
    from hint_recipes.molecules.transition_states.reaction import group_reactions

    frames = read_frames(paths)
    try:
        found = group_reactions(frames)
    except ValueError as error:
        raise InputError(f"{error}{advice}") from error
    names = _chosen([reaction.name for reaction in found], only)
    return [reaction for reaction in found if reaction.name in names]


def read_paths(
    files: list[Path], only: list[str] | None = None, *, as_is: bool = False
) -> dict[str, Reaction | list[Atoms]]:
    """Reactions by name; with ``as_is`` the frames of each file are the images of a path, named after the file.

    Raises
    ------
    InputError
        As :func:`read_reactions`.
    """
    if not as_is:
        advice = " (or is the file a path itself? then add --as-is)"
        return {reaction.name: reaction for reaction in read_reactions(files, only, advice=advice)}
    found = {file.name.split(".")[0] + f"-{k}" * (k > 0): read_frames([file]) for k, file in enumerate(files)}
    names = _chosen(list(found), only)
    return {name: frames for name, frames in found.items() if name in names}


def _chosen(names: list[str], only: list[str] | None) -> list[str]:
    unknown = sorted(set(only or ()) - set(names))
    if unknown:
        raise InputError(f"--only {unknown[0]}: no such reaction in the input")
    return only or names


def earlier_summaries(directories: list[Path], command: str, *keys: str) -> dict[str, dict[str, Any]]:
    """``summary.json`` of earlier runs by model (by directory, where two have the same model), for ``--compare``.

    ``keys`` are the entries that a result of ``command`` has.

    Raises
    ------
    InputError
        If a directory holds no finished result of ``command``.
    """
    import json

    summaries: dict[str, dict[str, Any]] = {}
    for directory in directories:
        try:
            summary = json.loads((directory / "summary.json").read_text())
            name, *_ = (summary[key] for key in ("model", *keys))
            summaries[name if name not in summaries else str(directory)] = summary
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"--compare {directory}: not a finished result of `{command}` ({error})") from error
    return summaries


def need(extra: str, *modules: str) -> None:
    """Refuse to start without the libraries of a study; ``extra`` is the one of this package that brings them."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise InputError(f"{', '.join(missing)} {verb} not installed: pip install 'hint-plugins[{extra}]'")


def open_run(
    out: Path,
    command: str,
    options: dict[str, Any],
    *,
    overwrite: bool | None,
    neutral: set[str],
    cleared: tuple[str, ...],
) -> Path:
    """Prepare the output directory of a study that continues what an earlier call began.

    Parameters
    ----------
    out
        Directory.
    command, options
        Written to ``config.yaml``.
    overwrite
        Discard an earlier run; None if the command cannot.
    neutral
        Options that may differ from the run that is continued.
    cleared
        Folders in ``out`` that an overwritten run leaves behind.

    Raises
    ------
    InputError
        If the directory holds a run with other options, and may not be overwritten.
    """
    import shutil

    import yaml

    from hint_plugins.runs.directory import prepare_output, write_config
    from hint_plugins.runs.files import plain

    options = {k: plain(v) for k, v in options.items() if k != "overwrite"}
    config = out / "config.yaml"
    way_out = "choose another --out, or " + ("remove it" if overwrite is None else "add --overwrite")
    if config.is_file() and not overwrite:
        earlier = yaml.safe_load(config.read_text()) or {}
        if earlier.pop("command", None) != command:
            raise InputError(f"{out} holds the result of another command: {way_out}")
        for name, value in options.items():
            if name not in neutral | {"out"} and earlier.get(name) != value:
                raise InputError(f"{out} holds a run with {name} = {earlier.get(name)} (now {value}): {way_out}")
    out = prepare_output(out, overwrite=bool(overwrite), resume=config.is_file())
    if overwrite:
        for folder in cleared:
            shutil.rmtree(out / folder, ignore_errors=True)
    (out / "summary.json").unlink(missing_ok=True)
    write_config(out, command, options)
    return out
