"""The benchmarks of fairchem run; their numbers at this size mean nothing."""

import subprocess
import sys

import pytest
from helpers.training import ROOT, environment

SMALL = {
    "fairchem_demo": ["--out", "{out}", "--steps", "4", "--train-each", "1", "--only", "E/F/H"],
    "fairchem_step": ["--out", "{out}", "--channels", "8", "--max-atoms", "20", "--structures", "6", "--rounds", "1",
                      "--shares", "1", "--only", "vmap, m = 1"],
}  # fmt: skip


@pytest.mark.fairchem
@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_script_runs(name, tmp_path):
    words = [word.format(out=tmp_path) for word in SMALL[name]]
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *words]
    done = subprocess.run(command, env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "nan" not in done.stdout.split()
