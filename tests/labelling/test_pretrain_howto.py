"""docs/howto/pretrain.md and benchmarks/pretrain.py say the same."""

import re
import shlex
import subprocess
import sys

import pytest
from helpers.training import ROOT, environment


def commands(text):
    return [shlex.split(line) for line in text.splitlines() if line.startswith(("hint ", "mace_run_train "))]


def options(words):
    """Names and values of the options, wherever they stand."""
    return {
        (word, after if not after.startswith("--") else "")
        for word, after in zip(words, [*words[1:], "--"], strict=True)
        if word.startswith("--")
    }


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    words = [sys.executable, str(ROOT / "benchmarks" / "pretrain.py"), str(tmp_path_factory.mktemp("dry")), "--dry-run"]
    return commands(subprocess.run(words, env=environment(), capture_output=True, text=True, check=True).stdout)


def test_commands_of_the_page_are_those_of_the_script(printed):
    page = (ROOT / "docs" / "howto" / "pretrain.md").read_text()
    page = page[: page.index("## With fairchem")].replace("\\\n", " ")
    quoted = commands("\n".join(re.findall(r"^ {4}(.*)", page, re.MULTILINE)))
    assert len(quoted) == 12
    for words in quoted:
        same = [other for other in printed if other[0] == words[0] and options(words) <= options(other)]
        assert same, shlex.join(words)
        if words[0] == "hint":
            assert words in same
