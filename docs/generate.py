"""Reference pages that are made from the code: commands and training options."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write_cli_page(path: Path) -> None:
    """One section for each ``hint`` command, from the text that ``--help`` shows."""
    import click
    from typer.main import get_command

    from hint_plugins.cli.main import app

    group = get_command(app)
    context = click.Context(group, info_name="hint")
    lines = ["# Commands", "", "The help that every command prints.", ""]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = click.Context(command, info_name=f"hint {name}", parent=None)
        lines += [f"## hint {name}", "", *_help_of(command, inner), ""]
    path.write_text("\n".join(lines))


def _help_of(command: Any, context: Any) -> list[str]:
    usage = command.get_usage(context).removeprefix("Usage: ")
    text = (command.help or "").replace("\b", "").strip()
    lines = ["```text", usage, "```", "", text, ""]
    records = [record for p in command.params if (record := p.get_help_record(context))]
    return lines + [line for name, about in records for line in (f"`{name}`", f": {_plain(about)}", "")]


def write_options_page(path: Path) -> None:
    """The options of the plugin ``hint``: names, types, defaults, what they do."""
    from hint_plugins.config import HintConfig

    lines = [
        "# Training options",
        "",
        "The options of the plugin `hint`, the same in every host: `--NAME VALUE` on MACE's command line, "
        "`NAME: VALUE` in the block `hint` of a fairchem config. Units are eV and Angstrom.",
        "",
    ]
    for name, field in HintConfig.model_fields.items():
        default = "set by the run" if field.default is None else field.default
        lines += [f"`{name}` (default: {default})", f": {_plain(field.description or '')}", ""]
    path.write_text("\n".join(lines))


def _plain(text: str) -> str:
    """Help text as Markdown: no line breaks, no accidental markup."""
    words = " ".join(text.split())
    for character in ("*", "_", "<", "$", "[", "|"):
        words = words.replace(character, "\\" + character)
    return words
