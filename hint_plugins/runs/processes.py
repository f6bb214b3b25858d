"""Other programs that end with this one, however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_RUNNING: set[subprocess.Popen] = set()


def tethered(command: Sequence[Any]) -> list[str]:
    """The command line that runs ``command`` for no longer than this process lives."""
    program = Path(__file__).with_name("tether.py")
    return [sys.executable, "-I", "-S", str(program), str(os.getpid()), *map(str, command)]


def run(
    command: Sequence[Any], *, cwd: Path, output: IO[str] | int | None = None, env: Mapping[str, str] | None = None
) -> int:
    """Run a program to its end, or until this process ends or is interrupted.

    Parameters
    ----------
    command
        Words of the command line.
    cwd
        Where it runs.
    output
        Takes stdout and stderr together.
    env
        Its environment; by default that of this process.

    Returns
    -------
    int
        Exit status.
    """
    process = subprocess.Popen(tethered(command), cwd=cwd, env=env, stdout=output, stderr=subprocess.STDOUT)
    _RUNNING.add(process)
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        _RUNNING.discard(process)


def run_logged(command: Sequence[Any], directory: Path) -> None:
    """Run a program in ``directory`` with one thread; what it prints is added to ``log.txt`` there.

    Raises
    ------
    RuntimeError
        With the last lines of the log, when the program ends with a status other than 0.
    """
    log = Path(directory) / "log.txt"
    with log.open("a") as handle:
        status = run(command, cwd=directory, env=os.environ | {"OMP_NUM_THREADS": "1"}, output=handle)
    if status:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"{' '.join(map(str, command[:3]))} ... ended with status {status} ({log}):\n{tail}")


def end_all() -> None:
    """End what :func:`run` runs in any thread; their calls return."""
    for process in list(_RUNNING):
        process.terminate()
