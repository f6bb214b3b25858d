"""Options that commands make from the fields of settings."""

from typing import Annotated

import pytest
import typer
from pydantic import BeforeValidator, Field
from typer.testing import CliRunner

from hint_plugins.cli.settings import asked, with_settings
from hint_plugins.settings import ConfigError, Settings


def triple(value):
    return tuple(int(n) for n in value.split("x")) if isinstance(value, str) else value


Triple = Annotated[tuple[int, int, int], BeforeValidator(triple)]


class Own(Settings):
    supercell: Triple = Field((2, 2, 2), description="Repetitions.", json_schema_extra={"text": "2x2x2"})
    more: list[Triple] = Field([], description="Others.", json_schema_extra={"text": []})
    temperature: float = Field(0.0, ge=0, description="Temperature, K.")


def run(*words):
    seen = {}

    def command(settings: Own, temperature: Annotated[str, typer.Option(help="Several, K.")] = "0,100") -> None:
        seen.update(settings=settings, temperature=temperature, asked=asked())

    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(with_settings(command))
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    return result, seen


def test_fields_that_read_text():
    """The default is shown as it is written; the settings hold what it means."""
    _, seen = run()
    assert (seen["settings"].supercell, seen["settings"].more) == ((2, 2, 2), [])
    _, seen = run("--supercell", "1x2x3", "--more", "1x1x1", "--more", "2x2x2")
    assert (seen["settings"].supercell, seen["settings"].more) == ((1, 2, 3), [(1, 1, 1), (2, 2, 2)])
    assert seen["asked"] == {"supercell": "1x2x3", "more": ["1x1x1", "2x2x2"], "temperature": "0,100"}
    assert "2x2x2" in run("--help")[0].output


def test_a_field_that_is_the_commands_own():
    """It is one option, which the command reads; the settings keep their default."""
    result, seen = run("--temperature", "1,2")
    assert (result.exit_code, seen["temperature"], seen["settings"].temperature) == (0, "1,2", 0.0)
    text = run("--help")[0].output
    assert text.count("--temperature") == 1
    assert "Several, K." in text


def test_changed_settings_are_checked():
    settings = Own(supercell="3x3x3")
    assert settings.changed(temperature=5).supercell == (3, 3, 3)
    assert settings.temperature == 0.0
    with pytest.raises(ConfigError, match="temperature"):
        settings.changed(temperature=-1)
