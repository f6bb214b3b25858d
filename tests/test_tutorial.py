"""The tutorial's blocks run in their order, as they stand, with short trainings; so does the README's Python."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.training import ROOT, environment

PAGE = ROOT / "docs" / "tutorial.md"


@pytest.mark.mace
@pytest.mark.slow
def test_blocks_run(tmp_path):
    pytest.importorskip("tblite")
    pytest.importorskip("sella")
    short = PAGE.read_text()
    for long, brief in {
        "--max_num_epochs 150": "--max_num_epochs 4",
        "--hessian_ramp_end 50": "--hessian_ramp_end 2",
        "hint ts ends.xyz --model efh.model": "hint ts ends.xyz --model tblite:GFN2-xTB",  # four epochs find no saddle
    }.items():
        assert short.count(long) == 1
        short = short.replace(long, brief)
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```", short, flags=re.DOTALL | re.MULTILINE)
    assert {kind for kind, _ in blocks} == {"bash", "python"}
    env = environment()
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    lines = []  # what Python has done so far stays known to later blocks
    for kind, code in blocks:
        command = ["bash", "-ec", code]
        if kind == "python":
            lines.append(code)
            command = [sys.executable, "-c", "\n".join(lines)]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{code}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert "Hessian" in (tmp_path / "errors-efh" / "summary.json").read_text().title()
    assert (tmp_path / "ts" / "barriers.csv").exists()


@pytest.mark.mace
@pytest.mark.slow
def test_python_of_the_readme_runs(tmp_path):
    """From nothing to a trained model and a study in ten lines, as they stand but for the length of the training."""
    pytest.importorskip("tblite")
    pytest.importorskip("pyscf")
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    assert code.count("steps=1000") == 1
    done = subprocess.run(
        [sys.executable, "-c", code.replace("steps=1000", "steps=20")],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    for expected in ("E/F/H : E/F", "Hessian MAE", "G - E ="):
        assert expected in done.stdout
