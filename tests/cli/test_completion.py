"""Completion of commands and options in the shell."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("line", "expected"),
    [("hint ph", {"phonons"}), ("hint ts --saddle-", {"--saddle-fmax", "--saddle-steps"})],
)
def test_completes(line, expected):
    done = subprocess.run(
        [Path(sys.executable).with_name("hint")],
        env={
            **os.environ,
            "_HINT_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split()) - 1),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split()) == expected
