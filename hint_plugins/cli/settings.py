"""Options of a command from the settings of its study, and what the command was asked."""

from __future__ import annotations

import contextlib
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from hint_plugins.settings import Settings

_ASKED: ContextVar[dict[str, Any]] = ContextVar("asked")


def asked() -> dict[str, Any]:
    """The options of the command that runs, as they were given: what ``config.yaml`` keeps."""
    return dict(_ASKED.get())


@contextlib.contextmanager
def asking(options: Mapping[str, Any]) -> Iterator[None]:
    """Around a command: its options, which :func:`asked` gives."""
    token = _ASKED.set({name: value for name, value in options.items() if name != "overwrite"})
    try:
        yield
    finally:
        _ASKED.reset(token)


def with_settings(function: Callable) -> Callable:
    """Replace every parameter that is a :class:`~hint_plugins.settings.Settings` by one option per field.

    A field ``band_fmax`` becomes ``--band-fmax`` with the field's description, default and limits. A field that is also
    a parameter of the command is left to the command, and keeps its default in the settings. Parameters of the result
    are keyword-only.

    ``json_schema_extra`` of a field may hold ``flags`` and ``metavar`` of the option and, for fields that read text,
    ``text``: the default as it is written on the command line (a word, or a list of words).
    """
    signature = inspect.signature(function, eval_str=True)
    own = set(signature.parameters)
    groups: dict[str, type[Settings]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        kind = parameter.annotation
        if isinstance(kind, type) and issubclass(kind, Settings):
            groups[parameter.name] = kind
            parameters += [_option(name, field) for name, field in kind.model_fields.items() if name not in own]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    def command(**given: Any) -> Any:
        with asking(given):
            values = dict(given)
            for name, kind in groups.items():
                values[name] = kind(**{field: values.pop(field) for field in kind.model_fields if field not in own})
            return function(**values)

    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    command.__module__ = function.__module__
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    least, most = (next((getattr(i, end) for i in field.metadata if hasattr(i, end)), None) for end in ("ge", "le"))
    own = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    flags: Any = own.get("flags", [])
    option = typer.Option(*flags, help=field.description, metavar=own.get("metavar"), min=least, max=most)  # type: ignore[arg-type]
    default = inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
    kind = _shown(field.annotation)
    if "text" in own:
        default = own["text"]
        kind = list[str] if isinstance(default, list) else str
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


def _shown(annotation: Any) -> Any:
    """The type that the command line reads: a choice of words is a word, which the settings check."""
    if get_origin(annotation) is Literal:
        return type(get_args(annotation)[0])
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.Union[tuple(_shown(part) for part in get_args(annotation))]  # noqa: UP007
    return annotation
