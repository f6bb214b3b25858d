"""The five scripts of the study on unseen reactions, one after the other, at a size whose numbers mean nothing."""

import csv
import json
import subprocess
import sys

import pytest
from helpers.training import ROOT, environment

pytest.importorskip("tblite")
pytest.importorskip("sella")
pytestmark = [pytest.mark.mace, pytest.mark.slow]

MATRIX = """
seeds: [1]
pretraining: {steps: 4}
models:
  alphanet:
    r_max: 3.0
    batch_size: 4
    network: {hidden_channels: 8, num_layers: 1, main_chi1: 4, mp_chi1: 4, chi2: 2, frame_channels: 4}
blocks:
  tiny: {share: 50, budget: "products:30"}
  other: {share: 100, law: stored, m: 2, budget: "cpu:0.5"}
"""
SMALL = "--mini --max-atoms 5 --test 1 --held-back 1 --valid 1 --images 5 --band-steps 2 --samples 1 --fraction 0.3"
SMALL += " --num-probes 2 --per-test 1 --per-valid 1 --seeds 1 --shares 50 100 --selections energy-top --workers 1"


def run(directory, name, *words, status=0):
    command = [sys.executable, str(ROOT / "examples" / "reactions" / f"{name}.py"), *map(str, words)]
    done = subprocess.run(command, env=environment(), cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def table(path):
    with path.open() as handle:
        return list(csv.DictReader(handle))


def test_from_end_points_to_the_page(tmp_path):
    (tmp_path / "matrix.yaml").write_text(MATRIX)
    small = [*SMALL.split(), "--out", "data"]
    assert "energy-top 50 %" in run(tmp_path, "dataset", *small)
    before = (tmp_path / "data" / "cheap" / "labels.xyz").stat().st_mtime_ns
    run(tmp_path, "dataset", *small)  # nothing is made again
    assert (tmp_path / "data" / "cheap" / "labels.xyz").stat().st_mtime_ns == before
    refused = run(tmp_path, "dataset", *small, "--sigma", "0.2", status=2)
    assert "sigma = 0.05 (now 0.2)" in refused
    assert "Traceback" not in refused

    train = ("train", "data", "--out", "runs", "--matrix", "matrix.yaml", "--device", "cpu")
    assert "3 done, 0 begun, 0 waiting, 0 failed" in run(tmp_path, *train)
    rows = {row["run"]: row for row in table(tmp_path / "runs" / "queue.csv")}
    (tuned,) = (row for name, row in rows.items() if "-h50-" in name)
    chosen = json.loads((tmp_path / "data" / "good" / "energy-top" / "stage.json").read_text())["result"]["structures"]
    each = max(1, round(chosen / 2)) * 5  # products an epoch
    assert int(tuned["products"]) == each * int(tuned["epochs"])
    assert int(tuned["products"]) == pytest.approx(30, abs=each)
    assert float(tuned["cpu_seconds"]) > 0
    (tmp_path / "runs" / tuned["run"] / "model.model").touch()
    stamp = (tmp_path / "runs" / tuned["run"] / "model.model").stat().st_mtime_ns
    run(tmp_path, *train)
    assert (tmp_path / "runs" / tuned["run"] / "model.model").stat().st_mtime_ns == stamp

    run(tmp_path, "evaluate", "runs", "--blocks", "tiny", "--device", "cpu")
    results = tmp_path / "runs" / "results"
    models = {row["run"]: row for row in table(results / "runs.csv")}
    assert set(models) == {*rows, "level-GFN1-xTB"}
    done = [row for name, row in models.items() if "-h100-" not in name]
    assert all(float(row["hessian_mae"]) > 0 and float(row["frequency_mae_cm1"]) > 0 for row in done)
    assert {row["reaction"] for row in table(results / "structures.csv")}
    assert all(row["intended"] == "True" or row["reason"] for row in table(results / "reactions.csv"))
    assert {row["role"] for row in table(results / "gibbs.csv")} == {"reactant", "ts", "product"}

    assert "pictures" in run(tmp_path, "report", "runs", "--matrix", "matrix.yaml", "--out", "page/reactions")
    assert "## Tiny" in (tmp_path / "page" / "reactions.md").read_text()

    line = run(tmp_path, "acceptance", "data/split/held_back.extxyz", "tblite:GFN1-xTB", "--out", "acceptance")
    assert "| model | reactions | of the reference | found | intended | barrier MAE (eV) |" in line
    assert "| tblite:GFN1-xTB |" in line
