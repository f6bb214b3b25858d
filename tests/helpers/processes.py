"""Which processes live, for tests of how they end."""

import contextlib
import time
from pathlib import Path


def wait_for(condition, seconds=300.0):
    """Wait until ``condition()`` is true; gives its last value."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def alive(pid):
    """Whether a process runs (and is no zombie)."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def marked(mark):
    """Living processes with ``mark`` in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (process / "environ").read_bytes() and alive(process.name):
                found.append(process.name)
    return found
