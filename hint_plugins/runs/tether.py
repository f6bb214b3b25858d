"""Run a command that ends when another process ends: ``python tether.py PID COMMAND ...``.

A program by itself, which imports nothing but the standard library, so that it starts in a moment.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
from typing import Any

#: Seconds that the command has to end after it was asked to.
GRACE = 5.0


class _Stop(Exception):
    """The command is to be ended."""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status, 128 + n after signal n."""
    watched = int(arguments[0])
    # Ctrl-C is for the watched process, which decides what becomes of the command. (SIG_IGN would be inherited.)
    signal.signal(signal.SIGINT, lambda *_: None)
    stop = _StopSignal()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        # A session of its own, so that what the command starts can be ended with it.
        child = subprocess.Popen(arguments[1:], start_new_session=True, preexec_fn=_last_resort())
    except OSError as error:
        print(f"{arguments[1]}: {error.strerror}", file=sys.stderr)
        return 127
    try:
        stop.arm()
        _wait(child, watched)
    except _Stop:
        _end(child)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


class _StopSignal:
    """Handler that raises :class:`_Stop`; a signal that comes before the command has begun counts when it has."""

    def __init__(self) -> None:
        self.armed = self.came = False

    def __call__(self, *_: Any) -> None:
        self.came = True
        if self.armed:
            raise _Stop

    def arm(self) -> None:
        """From here on the command can be ended."""
        self.armed = True
        if self.came:
            raise _Stop


def _wait(child: subprocess.Popen, watched: int) -> None:
    """Return when the child has ended; :class:`_Stop` when the watched process has."""
    if hasattr(os, "pidfd_open"):
        try:
            handles = [os.pidfd_open(watched), os.pidfd_open(child.pid)]
        except ProcessLookupError:
            raise _Stop from None
        except OSError:  # a kernel without it
            handles = []
        if handles:
            poll = select.poll()
            for handle in handles:
                poll.register(handle, select.POLLIN)
            if all(handle != handles[1] for handle, _ in poll.poll()):
                raise _Stop
            child.wait()
            return
    while True:
        try:
            child.wait(0.5)
            return
        except subprocess.TimeoutExpired:
            try:
                os.kill(watched, 0)
            except ProcessLookupError:
                raise _Stop from None


def _end(child: subprocess.Popen) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        try:
            child.wait(GRACE)
            return
        except subprocess.TimeoutExpired:
            continue


def _last_resort() -> Any:
    """Where the kernel can, the command also ends when this program is killed."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(1, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
