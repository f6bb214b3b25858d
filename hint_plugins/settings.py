"""What the settings of every study are: named, described, checked, and the same on the command line and in Python."""

from __future__ import annotations

import difflib
import re
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from hint_plugins.errors import HintError


class ConfigError(HintError, ValueError):
    """Options that do not fit together, in one readable sentence per problem."""


class Settings(BaseModel):
    """Base of the settings of a study.

    Every field has a description with its unit; commands make their options from the fields
    (:func:`hint_plugins.cli.settings.with_settings`), so that a name, a default and a limit are stated once.

    Raises
    ------
    ConfigError
        With one line per problem; an unknown name comes with the nearest known one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(sentences(error, list(type(self).model_fields))) from None

    def changed(self, **values: Any) -> Self:
        """A copy with other values, checked as those of a new one are."""
        return type(self)(**{**dict(self), **values})


def sentences(error: ValidationError, known: list[str]) -> str:
    """What pydantic found wrong, one line per problem; ``known`` are the names that exist."""
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, known, 1)
            message = f"no such option; did you mean {near[0]}?" if near else "no such option"
        if problem["type"] == "literal_error":
            message = "choose " + ", ".join(re.findall("'([^']*)'", problem["ctx"]["expected"]))
        lines.append(f"{name}: {message} (got {problem['input']!r})" if name else message)
    return "\n".join(lines)


def name_values(items: list[str]) -> dict[str, Any]:
    """``["a=1", "b=x"]`` to a dictionary; values are YAML scalars.

    Raises
    ------
    ConfigError
        For text of another form.
    """
    import yaml

    values = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise ConfigError(f"{item!r}: expected NAME=VALUE")
        try:
            values[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"{item!r}: {error}") from None
    return values
