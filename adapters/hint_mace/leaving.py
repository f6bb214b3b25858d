"""Ends MACE's trainer with one line instead of a traceback."""

from __future__ import annotations

import sys
from typing import NoReturn


def exit_with(error: Exception, status: int = 2) -> NoReturn:
    """Leave with one line and exit status 2, or another."""
    print(f"hint-plugins: {error}", file=sys.stderr)
    raise SystemExit(status) from None
