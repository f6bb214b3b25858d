"""Options that take three repetitions, ``2x2x2`` or ``2 2 2``."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

#: What the help shows for such an option.
METAVAR = "N1xN2xN3"


class RepetitionsCommand(TyperCommand):
    """A command whose options with the metavar :data:`METAVAR` also take three numbers."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        names = {name for p in self.params if getattr(p, "metavar", None) == METAVAR for name in p.opts}
        joined: list[str] = []
        rest = list(args)
        while rest:
            word = rest.pop(0)
            joined.append(word)
            if word in names and len(rest) >= 3 and all(re.fullmatch(r"-?\d+", number) for number in rest[:3]):
                joined.append("x".join(rest[:3]))
                del rest[:3]
        return super().parse_args(ctx, joined)
