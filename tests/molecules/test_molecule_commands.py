"""`hint ts`, `hint gibbs`, `hint path` and `hint stability`, through the command line itself."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import molecule
from ase.io import read, write
from typer.testing import CliRunner

from hint_plugins.cli.main import app
from hint_plugins.errors import HintError

pytest.importorskip("tblite")
XTB = "tblite:GFN2-xTB"


def run(*arguments: Any, status: int = 0) -> str:
    """Run `hint`; bad input surfaces as the exception that main() turns into one sentence."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, HintError) and status == 2:
        return str(result.exception)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.output


def summary(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as handle:
        return list(csv.DictReader(handle))


@pytest.fixture
def hcn(tmp_path: Path) -> Path:
    """One good reaction and one whose end points are the same molecule."""
    frames = []
    for name, role, z in (("HCN", "reactant", -1.07), ("HCN", "product", 2.15), ("none", "reactant", -1.07)):
        frames.append(Atoms("HCN", [[0, 0, z], [0, 0, 0], [0, 0, 1.15]], info={"reaction": name, "role": role}))
    frames.append(frames[2].copy())
    frames[3].info["role"] = "product"
    write(tmp_path / "reactions.extxyz", frames)
    return tmp_path / "reactions.extxyz"


def test_ts(hcn: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = run("ts", hcn, "--model", XTB, "--out", out, status=1)
    assert "1 intended" in text
    assert "1 same_molecule" in text
    found = summary(out)
    assert (found["n_reactions"], found["n_path"], found["n_ts"], found["n_intended"]) == (2, 1, 1, 1)
    first, second = found["reactions"]
    assert first["barrier_kcal_mol"] == pytest.approx(73.2, abs=0.2)
    assert second["reason"] == "same_molecule"
    assert [row["intended"] for row in table(out / "reactions.csv")] == ["True", "False"]
    saddle = read(out / "reactions" / "HCN" / "ts.extxyz")
    coordinate = read(out / "reactions" / "HCN" / "irc.extxyz", index=":")
    energies = [frame.get_potential_energy() for frame in coordinate]
    assert max(energies) == pytest.approx(saddle.get_potential_energy(), abs=1e-6)
    assert coordinate[0].get_distance(0, 1) < 1.2  # the reactant comes first
    assert coordinate[-1].get_distance(0, 2) < 1.2
    assert (out / "success.png").stat().st_size > 1000

    stamp = (out / "reactions" / "HCN.json").stat().st_mtime_ns
    (out / "summary.json").unlink()  # as if it had been killed
    run("ts", "--config", out / "config.yaml", status=1)
    assert summary(out)["n_intended"] == 1
    assert (out / "reactions" / "HCN.json").stat().st_mtime_ns == stamp
    assert "saddle_steps" in run("ts", hcn, "--model", XTB, "--out", out, "--saddle-steps", 7, status=2)
    again = tmp_path / "again"
    run("ts", hcn, "--model", XTB, "--out", again, "--only", "none", "--compare", out, status=1)
    assert summary(again)["n_reactions"] == 1


def test_ts_with_workers(hcn: Path, tmp_path: Path) -> None:
    run("ts", hcn, "--model", XTB, "--out", tmp_path / "out", "--workers", 2, "--path", "geodesic", status=1)
    assert summary(tmp_path / "out")["n_intended"] == 1


@pytest.mark.parametrize(
    ("command", "extra", "message"),
    [
        ("ts", ["--path", "straight"], "path: choose auto, geodesic, neb, gsm"),
        ("ts", ["--only", "nothing"], "no such reaction"),
        ("ts", ["--compare", "nowhere"], "not a finished result"),
        ("ts", ["--executor", "carrier-pigeon"], "executor: choose local, dask, parsl"),
        ("gibbs", ["--temperature", "-3"], "temperature: Input should be greater than 0 (got -3.0)"),
        ("gibbs", ["--quasi-harmonic", "magic"], "quasi_harmonic: choose none, grimme, truhlar"),
        ("path", ["--optimizer", "magic"], "optimizer: choose fire, lbfgs"),
        ("stability", ["--shortest", "2"], "shortest: Input should be less than 1"),
    ],
)
def test_bad_options(hcn: Path, tmp_path: Path, command: str, extra: list[str], message: str) -> None:
    out = tmp_path / "out"
    assert message in run(command, hcn, "--model", XTB, "--out", out, *extra, status=2)
    assert not out.exists()


@pytest.mark.parametrize(("command", "module"), [("ts", "sella"), ("gibbs", "pyscf")])
def test_missing_library(hcn: Path, tmp_path: Path, command: str, module: str, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    output = run(command, hcn, "--model", XTB, "--out", tmp_path / "x", status=2)
    assert f"{module} is not installed" in output
    assert "hint-plugins[ts]" in output
    assert not (tmp_path / "x").exists()


def test_bad_files(tmp_path: Path) -> None:
    write(tmp_path / "plain.extxyz", molecule("H2O"))
    (tmp_path / "text.xyz").write_text("not a structure\n")
    arguments = ["--model", XTB, "--out", tmp_path / "out"]
    assert "no such file" in run("ts", tmp_path / "nothing.xyz", *arguments, status=2)
    assert "needs info 'reaction' and 'role'" in run("ts", tmp_path / "plain.extxyz", *arguments, status=2)
    assert "text.xyz" in run("gibbs", tmp_path / "text.xyz", *arguments, status=2)
    model = tmp_path / "no.model"
    assert "no.model" in run("gibbs", tmp_path / "plain.extxyz", "--model", model, "--out", tmp_path / "out", status=2)
    (tmp_path / "file").write_text("")
    assert "cannot write" in run(
        "gibbs", tmp_path / "plain.extxyz", "--model", XTB, "--out", tmp_path / "file" / "out", status=2
    )


def test_gibbs(tmp_path: Path) -> None:
    structures = [molecule(name) for name in ("H2O", "CO2", "H2O")]
    structures[2].positions[1] = structures[2].positions[2]
    for atoms, name in zip(structures, ("water", "carbon dioxide", "broken"), strict=True):
        atoms.info["name"] = name
    write(tmp_path / "molecules.extxyz", structures)
    out = tmp_path / "out"
    run("gibbs", tmp_path / "molecules.extxyz", "--model", XTB, "--out", out, status=1)
    water, dioxide, broken = summary(out)["structures"]
    assert water["gibbs_correction"] == pytest.approx(0.0680, abs=1e-3)
    assert dioxide["gibbs_correction"] == pytest.approx(-0.2396, abs=1e-3)
    assert water["gibbs"] == pytest.approx(water["energy"] + water["gibbs_correction"])
    assert "error" in broken
    assert len(read(out / "structures.extxyz", index=":")) == 2


def test_gibbs_same_geometry_twice(tmp_path: Path) -> None:
    structures = [molecule("H2O") for _ in range(3)]
    structures[0].info["name"] = "first"
    structures[1].info |= {"reaction": "A", "role": "product"}
    structures[2].info |= {"reaction": "A", "role": "ts"}
    write(tmp_path / "molecules.extxyz", structures)
    out = tmp_path / "out"
    words = ["gibbs", tmp_path / "molecules.extxyz", "--model", XTB, "--out", out]
    run(*words, status=1)
    first = summary(out)["structures"]
    assert [row["name"] for row in first] == ["first", "A-product", "A-ts"]
    assert ["error" in row for row in first] == [False, False, True]  # water has no saddle near its minimum
    run(*words, status=1)
    assert summary(out)["structures"] == first


def test_gibbs_against_itself_and_another(tmp_path: Path) -> None:
    relaxed = []
    for role, z in (("reactant", -1.066), ("product", 2.168)):
        relaxed.append(Atoms("HCN", [[0, 0, z], [0, 0, 0], [0, 0, 1.16]], info={"reaction": "HCN", "role": role}))
    write(tmp_path / "molecules.extxyz", relaxed)
    same, other = tmp_path / "same", tmp_path / "other"
    run("gibbs", tmp_path / "molecules.extxyz", "--model", XTB, "--reference", XTB, "--out", same)
    assert summary(same)["gibbs_mae"] == 0.0
    run("gibbs", tmp_path / "molecules.extxyz", "--model", "tblite:GFN1-xTB", "--reference", XTB, "--out", other)
    found = summary(other)
    assert found["gibbs_correction_mae"] > 1e-4
    gaps = [a["gibbs"] - b["gibbs"] for a, b in zip(found["structures"], found["reference_structures"], strict=True)]
    assert found["reaction_gibbs_mae"] == pytest.approx(abs(gaps[1] - gaps[0]))
    assert (other / "errors.png").exists()


def test_path(hcn: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--model", XTB, "--out", out, "--images", 7, "--fmax", 0.2]
    run("path", hcn, *arguments, "--only", "HCN")
    record = summary(out)["paths"][0]
    assert record["converged"]
    assert record["n_imaginary_top"] == 1
    run("path", hcn, *arguments, status=1)  # the second reaction joins; the first is not done again
    assert summary(out)["paths"][0]["n_forces"] == record["n_forces"]
    assert summary(out)["paths"][1]["reason"].startswith("same_molecule")
    images = out / "paths" / "HCN" / "path.extxyz"
    run("path", images, "--as-is", "--model", XTB, "--out", tmp_path / "as-is")
    again = summary(tmp_path / "as-is")["paths"][0]
    assert again["barrier"] == pytest.approx(record["barrier"], abs=1e-5)
    waves = [np.array(r["frequencies_cm1"], dtype=float) for r in (again, record)]  # linear images have one mode more
    assert np.allclose(*waves, atol=0.5, equal_nan=True)


def test_stability(tmp_path: Path) -> None:
    structures = [molecule("CO"), molecule("H2O")]
    write(tmp_path / "molecules.extxyz", structures)
    out = tmp_path / "out"
    ramp = ["--temperature-step", 300, "--interval", 0.01, "--max-temperature", 600, "--window", 10]
    run("stability", tmp_path / "molecules.extxyz", "--model", XTB, "--out", out, *ramp, "--checkpoint-every", 20)
    found = summary(out)
    assert found["n_survived"] == 2
    assert found["molecules"][0]["temperature_K"] == 600.0
    assert found["num_steps"] == 60
    options = yaml.safe_load((out / "config.yaml").read_text())
    assert options["max_temperature"] == 600.0
    assert len(table(out / "stability.csv")) == 2
    write(tmp_path / "with.extxyz", [*structures, Atoms("He")])
    out = tmp_path / "helium"
    run("stability", tmp_path / "with.extxyz", "--model", XTB, "--out", out, *ramp, status=1)
    assert (summary(out)["n_failed"], summary(out)["mean_temperature_K"]) == (1, 600.0)
