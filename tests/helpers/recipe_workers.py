"""What the worker processes of the tests run; light, since every process imports it."""

import os


def upper(item: str) -> str:
    """The item in capitals; ``die`` kills the process, ``raise`` raises."""
    if item == "die":
        os._exit(3)
    if item == "raise":
        raise RuntimeError("no")
    return item.upper()
