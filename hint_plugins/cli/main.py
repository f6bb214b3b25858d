"""The ``hint`` command. Sub-commands are entry points, loaded when they are asked for."""

from __future__ import annotations

import difflib
import errno
import functools
import inspect
import re
import signal
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points, requires
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from hint_plugins import __version__
from hint_plugins.cli.common import EXIT_STOPPED, fail
from hint_plugins.cli.settings import with_settings
from hint_plugins.errors import HintError, InputError
from hint_plugins.runs.files import without_empty_directories
from hint_plugins.runs.locks import release_all

GROUP = "hint_plugins.commands"
#: Modules that are called otherwise than the package that brings them.
PACKAGES = {"mace": "mace_torch", "fairchem": "fairchem_core", "sklearn": "scikit_learn", "sscha": "python_sscha"}


class LazyGroup(TyperGroup):
    """Finds sub-commands among the entry points ``hint_plugins.commands`` (``name = module:function``)."""

    @functools.cached_property
    def entries(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=GROUP)}

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.entries)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        try:
            function = entry.load()
        except ImportError as error:
            function = _unavailable(cmd_name, error)
        settings: dict[str, Any] = getattr(function, "typer_settings", {})
        passes_through = settings.get("context_settings", {}).get("ignore_unknown_options", False)
        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        app.command(name=cmd_name, **settings)(function if passes_through else with_config(with_settings(function)))
        command = get_command(app)
        command.short_help = (inspect.getdoc(function) or "").split("\n")[0]
        return command

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # typer would leave without a word
            print(
                "hint: stopped by the user; run the same command again to continue where it can be continued",
                file=sys.stderr,
            )
            raise SystemExit(EXIT_STOPPED) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in known:
            near = difflib.get_close_matches(args[0], known, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            fail(f"there is no command {args[0]!r}.{hint} Commands: {', '.join(known)}")
        return super().resolve_command(ctx, args)


def _unavailable(name: str, error: ImportError) -> Callable:
    """Stands in for a command whose module cannot be imported."""

    def command() -> None:
        raise InputError(f"hint {name} cannot be loaded: {error}")

    command.__doc__ = f"(not available: {error})"
    return command


def with_config(function: Callable) -> Callable:
    """Give a command the option ``--config file.yaml``: values for what the command line leaves open.

    A command that fails leaves no empty directories behind.
    """
    option = Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            is_eager=True,
            callback=_load_config,
            help="YAML file with values for these options (as config.yaml of an earlier run).",
        ),
    ]
    signature = inspect.signature(function, eval_str=True)
    extra = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)

    @functools.wraps(function)
    def command(*args: Any, config: Path | None = None, **kwargs: Any) -> Any:
        with without_empty_directories():
            try:
                return function(*args, **kwargs)
            finally:
                release_all()

    parameters = [*signature.parameters.values(), extra]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _load_config(ctx: typer.Context, value: Path | None) -> Path | None:
    if value is None:
        return None
    import yaml

    content = yaml.safe_load(value.read_text()) or {}
    if not isinstance(content, dict):
        fail(f"{value}: expected a mapping of option names to values")
    content.pop("command", None)
    names = {p.name for p in ctx.command.params if p.name} - {"config"}
    unknown = sorted(set(content) - names)
    if unknown:
        fail(f"{value}: unknown option {unknown[0]!r}; known are {', '.join(sorted(names))}")
    ctx.default_map = {**(ctx.default_map or {}), **{k: v for k, v in content.items() if v is not None}}
    return value


app = typer.Typer(
    cls=LazyGroup,
    add_completion=True,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Hessian-informed training of interatomic potentials: labels, training, studies.",
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def extra_with(module: str) -> str | None:
    """The extra of this distribution that brings an optional module; None if none does."""
    package = PACKAGES.get(module, module).lower()
    for requirement in requires("hint-plugins") or ():
        found = re.match(r"([\w.-]+).*extra == ['\"]([\w-]+)['\"]", requirement)
        if found and found[1].lower().replace("-", "_") == package:
            return found[2]
    return None


def main() -> None:
    """Run the command line; bad input is a sentence and exit status 2, never a traceback."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system's end is as orderly as Ctrl-C
    try:
        app()
    except HintError as error:
        fail(str(error))
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        extra = extra_with(module)
        if extra is None:
            raise
        fail(f"{module} is not installed: pip install 'hint-plugins[{extra}]'")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
            raise
        fail(f"cannot write {error.filename or 'a file'}: {error.strerror}; make room and give the same command again")
