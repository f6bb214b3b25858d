"""Stages of the study: what is finished is kept with the options that made it, and never made twice."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hint_plugins.cli.common import fail
from hint_plugins.errors import InputError
from hint_plugins.runs.files import plain, write_json
from hint_plugins.runs.processes import run
from hint_plugins.selection.survey import SelectionError
from hint_plugins.storage.store import StoreError

#: Statuses of a ``hint`` command that left a result: all went well, or some items failed and are named there.
DONE, SOME_FAILED = 0, 1


def tool(name: str) -> str:
    """Path of a command of this environment."""
    return str(Path(sys.executable).parent / name)


def command(
    directory: Path,
    *words: Any,
    statuses: Sequence[int] = (DONE,),
    log: str = "log.txt",
    env: dict[str, str] | None = None,
) -> None:
    """Run a command of this environment in ``directory``, with one thread; it ends with this process.

    Parameters
    ----------
    directory
        Where it runs and keeps its output, in ``log``.
    words
        The command line; the first word is the name of an installed command.
    statuses
        Exit statuses that count as success.
    env
        Further variables of its environment.

    Raises
    ------
    RuntimeError
        For any other status: the command and the end of its output.
    """
    line = [str(word) for word in words]
    file = directory / log
    with file.open("a") as handle:
        handle.write(f"$ {shlex.join(line)}\n")
        handle.flush()
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | (env or {})
        status = run([tool(line[0]), *line[1:]], cwd=directory, env=environment, output=handle)
    if status not in statuses:
        tail = "\n".join(file.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"{shlex.join(line[:2])} ended with status {status} ({file}):\n{tail}")


def stage(directory: Path, options: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Make what belongs into ``directory``, unless that is finished.

    Parameters
    ----------
    directory
        Of this stage; ``stage.json`` in it holds the options and, once finished, what ``make`` gave.
    options
        Everything that decides the result.
    make
        Makes it, or continues what a killed call left; returns counts for the summary.

    Returns
    -------
    dict
        What ``make`` gave, and ``cpu_seconds`` of the calls that were not killed.

    Raises
    ------
    InputError
        If the directory holds a stage with other options.
    """
    file = directory / "stage.json"
    options = json.loads(json.dumps(plain(options)))
    earlier = json.loads(file.read_text()) if file.is_file() else {"options": options}
    refuse_changes(directory, earlier["options"], options)
    if "result" in earlier:
        return earlier["result"]
    directory.mkdir(parents=True, exist_ok=True)
    write_json(file, {"options": options})
    before, started = _cpu(), time.monotonic()
    result = make() | {"cpu_seconds": round(_cpu() - before, 1), "seconds": round(time.monotonic() - started, 1)}
    write_json(file, {"options": options, "result": result})
    return json.loads(file.read_text())["result"]


def refuse_changes(directory: Path, was: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ``InputError`` for the first option (by name) that differs between two sets of them."""
    for name in sorted(was.keys() | now.keys()):
        if was.get(name) != now.get(name):
            change = f"{name} = {was.get(name)} (now {now.get(name)})"
            raise InputError(f"{directory} was made with {change}: choose another --out, or remove it")


def finished(directory: Path) -> bool:
    """Whether the stage in ``directory`` is finished."""
    file = directory / "stage.json"
    return file.is_file() and "result" in json.loads(file.read_text())


def _cpu() -> float:
    """Processor time of this process and of the programs that it waited for, s."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Rows with the same keys as a Markdown table."""
    if not rows:
        return "(nothing)"
    lines = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    lines += ["| " + " | ".join(_cell(value) for value in row.values()) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextlib.contextmanager
def told() -> Any:
    """Bad input ends the script with one sentence instead of a traceback."""
    try:
        yield
    except (InputError, StoreError, SelectionError, RuntimeError) as error:
        fail(str(error))
