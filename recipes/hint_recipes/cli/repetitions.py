"""Options that take several numbers: three repetitions, ``2x2x2`` or ``2 2 2``, and lists, ``0,100`` or ``0 100``."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

from hint_plugins.cli.common import InputError

#: What the help shows for such an option.
METAVAR = "N1xN2xN3"
#: What the help shows for an option that takes a list of numbers.
LIST_METAVAR = "NUMBER..."


class RepetitionsCommand(TyperCommand):
    """Options with the metavar :data:`METAVAR` also take three words, those with :data:`LIST_METAVAR` any number."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        names, lists = (
            {name for p in self.params if getattr(p, "metavar", None) == metavar for name in p.opts}
            for metavar in (METAVAR, LIST_METAVAR)
        )
        joined: list[str] = []
        rest = list(args)
        while rest:
            word = rest.pop(0)
            joined.append(word)
            if word in names and len(rest) >= 3 and all(re.fullmatch(r"-?\d+", number) for number in rest[:3]):
                joined.append("x".join(rest[:3]))
                del rest[:3]
            elif word in lists:
                numbers = []
                while rest and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", rest[0]):
                    numbers.append(rest.pop(0))
                joined += [",".join(numbers)] if numbers else []
        return super().parse_args(ctx, joined)


def numbers(text: str, option: str) -> list[float]:
    """The numbers of an option with :data:`LIST_METAVAR`."""
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise InputError(f"{option} takes numbers, such as 0 100 200, not {text!r}") from None
