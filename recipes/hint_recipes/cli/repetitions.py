"""Options of several numbers: repetitions, ``2x2x2`` or ``2 2 2``, matrices, and lists, ``0,100`` or ``0 100``."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

from hint_plugins.errors import InputError
from hint_recipes.crystals.repetitions import MATRIX_METAVAR, METAVAR

#: What the help shows for an option that takes a list of numbers.
LIST_METAVAR = "NUMBER..."


class RepetitionsCommand(TyperCommand):
    """Options with the metavar :data:`METAVAR` also take three words, with :data:`MATRIX_METAVAR` three or nine.

    Both are those of :mod:`hint_recipes.crystals.repetitions`. Options with :data:`LIST_METAVAR` take any number of
    numbers.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        repetitions, matrices, lists = (
            {name for p in self.params if getattr(p, "metavar", None) == metavar for name in p.opts}
            for metavar in (METAVAR, MATRIX_METAVAR, LIST_METAVAR)
        )
        joined: list[str] = []
        rest = list(args)
        while rest:
            word = rest.pop(0)
            joined.append(word)
            whole = _leading_integers(rest) if word in repetitions | matrices else 0
            taken = 9 if word in matrices and whole >= 9 else 3
            if whole >= taken:
                joined.append("x".join(rest[:taken]))
                del rest[:taken]
            elif word in lists:
                numbers = []
                while rest and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", rest[0]):
                    numbers.append(rest.pop(0))
                joined += [",".join(numbers)] if numbers else []
        return super().parse_args(ctx, joined)


def _leading_integers(words: list[str]) -> int:
    return next((i for i, word in enumerate(words) if not re.fullmatch(r"-?\d+", word)), len(words))


def numbers(text: str, option: str) -> list[float]:
    """The numbers of an option with :data:`LIST_METAVAR`.

    Raises
    ------
    InputError
        For anything else.
    """
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise InputError(f"{option} takes numbers, such as 0 100 200, not {text!r}") from None
