"""The start-up hook: quick, silent and only there when asked for."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from hint_mace.boot import requested

SITE = Path(sysconfig.get_paths()["purelib"])


@pytest.mark.parametrize(
    ("argv", "environ", "names"),
    [
        (["/bin/mace_run_train", "--plugins", "hint"], {}, ["hint"]),
        (["python", "-m", "mace.cli.run_train", "--plugins=hint,other"], {}, ["hint", "other"]),
        (["python", "/x/run_train.py", "--plugins", " hint , other "], {}, ["hint", "other"]),
        (["/bin/mace_run_train", "--name", "x"], {"HINT_PLUGINS": "hint"}, ["hint"]),
        (["/bin/mace_run_train", "--name", "x"], {}, []),
        (["pytest", "--plugins", "hint"], {}, []),
        (["python", "train_other.py"], {"HINT_PLUGINS": "hint"}, []),
        (["/bin/mace_prepare_data", "--plugins", "hint"], {}, ["hint"]),
    ],
)
def test_what_a_command_line_asks_for(argv, environ, names):
    assert requested(argv, environ) == names


def test_plugins_named_in_a_config_file(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("name: x\nplugins: hint,other  # two\nhessian_weight: 0.1\n")
    assert requested(["mace_run_train", "--config", str(config)], {}) == ["hint", "other"]
    assert requested(["mace_run_train", f"--config={config}"], {}) == ["hint", "other"]
    assert requested(["mace_run_train", "--config", str(tmp_path / "none.yaml")], {}) == []


def python(code, *arguments, **environ):
    env = {k: v for k, v in os.environ.items() if k != "HINT_PLUGINS"} | environ
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=env, check=False
    )


@pytest.mark.skipif(not (SITE / "hint_plugins_boot.pth").exists(), reason="the distribution is not installed")
def test_installed_hook_does_nothing_unasked():
    shown = python("import sys; print([m for m in sys.modules if m.startswith('hint')], len(sys.meta_path))")
    asked = python("import sys; print([m for m in sys.modules if m.startswith('hint')])", "mace", "--plugins", "hint")
    assert shown.stdout.startswith("[] ")
    assert "hint_mace.hook" in asked.stdout
    assert shown.stderr == ""


def test_start_up_files_never_raise():
    """The line of the .pth file, run where the package cannot be imported."""
    line = (Path(__file__).parents[3] / "adapters/hint_mace/hint_plugins_boot.pth").read_text()
    assert line.startswith("import ")
    assert line.count("\n") == 1, "a .pth file executes line by line"
    code = f"import sys; sys.path[:] = [p for p in sys.path if 'lib/python' in p and 'site' not in p]\n{line}"
    result = subprocess.run(
        [sys.executable, "-S", "-c", code, "mace", "--plugins", "hint"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0
    assert "ModuleNotFoundError" in result.stderr
