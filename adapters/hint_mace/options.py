"""Options of the plugins as flags of MACE's parsers."""

from __future__ import annotations

import argparse
import types
from typing import Any, Literal, Union, get_args, get_origin

import pluggy
from pydantic.fields import FieldInfo

from hint_plugins.config import ConfigError
from hint_plugins.hookspecs import Options


def extend_parser(parser: argparse.ArgumentParser, manager: pluggy.PluginManager) -> argparse.ArgumentParser:
    """Add ``--plugins`` and every option of the loaded plugins; validate them as soon as they are parsed."""
    known = {action.dest for action in parser._actions}
    group = parser.add_argument_group("plugins")
    if "plugins" not in known:
        group.add_argument(
            "--plugins", help="Plugins to load, separated by commas (hint, ...).", type=str, default=None
        )
        group.add_argument(
            "--hessian_allow_changes",
            help="Let --restart_latest continue a checkpoint under other settings or data (True); by default the "
            "changes are listed and the run stops.",
            type=_boolean,
            default=False,
        )
    options = Options()
    manager.hook.add_options(options=options)
    for name, model in options.groups.items():
        group = parser.add_argument_group(f"plugin {name}")
        for field_name, field in model.model_fields.items():
            if field_name not in known:
                add_flag(group, field_name, field)
    original = parser.parse_known_args

    def parse_known_args(args: Any = None, namespace: Any = None, **kwargs: Any) -> Any:
        parsed, rest = original(args, namespace, **kwargs)
        try:
            manager.hook.configure(values=vars(parsed))
        except ConfigError as error:
            parser.error(str(error))
        return parsed, rest

    parser.parse_known_args = parse_known_args  # type: ignore[method-assign]
    return parser


def add_flag(group: Any, name: str, field: FieldInfo) -> None:
    """Turn one field of an option model into one flag."""
    kind = _plain_type(field.annotation)
    text = (field.description or "").replace("%", "%%")
    settings: dict[str, Any] = {"default": field.default, "help": f"{text} (default: %(default)s)"}
    if get_origin(kind) is Literal:
        settings["choices"] = list(get_args(kind))
    elif kind is bool:
        settings["type"] = _boolean
    else:
        settings["type"] = kind
    group.add_argument(f"--{name}", **settings)


def _plain_type(annotation: Any) -> Any:
    """The type without ``| None``."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(part for part in get_args(annotation) if part is not type(None))
    return annotation


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "yes", "1"):
        return True
    if text.lower() in ("false", "no", "0"):
        return False
    raise argparse.ArgumentTypeError(f"expected True or False, got {text!r}")
