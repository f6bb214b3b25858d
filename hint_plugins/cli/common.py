"""How a sub-command ends."""

from __future__ import annotations

import sys
from typing import NoReturn

EXIT_DONE, EXIT_SOME_FAILED, EXIT_BAD_INPUT, EXIT_STOPPED = 0, 1, 2, 130


def fail(message: str) -> NoReturn:
    """Print ``message`` on stderr and leave with the status for bad input."""
    print(f"hint: {message}", file=sys.stderr)
    raise SystemExit(EXIT_BAD_INPUT)


def finish(num_failed: int) -> None:
    """Leave with status 1 when items failed; return when all went well."""
    if num_failed:
        raise SystemExit(EXIT_SOME_FAILED)
