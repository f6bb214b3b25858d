"""What long work says on the terminal while it runs; standard output is kept for results."""

from __future__ import annotations

import sys
from typing import Any


def progress_bar(total: int | None, what: str, unit: str) -> Any:
    """A tqdm bar, a context manager: ``what`` stands before it, ``unit`` is the name of one item.

    ``total`` is None where the number of items is not known. Nothing is shown where standard error is no terminal.
    """
    from tqdm import tqdm

    return tqdm(total=total, desc=what, unit=unit, disable=None)


def note(text: str | None) -> None:
    """One sentence for the user, on standard error; nothing for None."""
    if text is not None:
        print(f"hint: {text}", file=sys.stderr)
