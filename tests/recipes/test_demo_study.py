"""`hint demo`: continued where it was stopped, and never mixed with trainings of other settings."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from ase.io import write

from hint_plugins.errors import InputError
from hint_recipes.demo import study, training
from hint_recipes.demo.settings import DemoSettings
from hint_recipes.demo.study import compare_trainings
from hint_recipes.demo.tables import ERRORS


@pytest.fixture
def commands(monkeypatch):
    """Stands for the programs that are started: what ran, and which of them end with an error."""
    ran: list[tuple[str, str]] = []
    failing: list[tuple[str, str]] = []

    def run_logged(command, directory):
        name = Path(command[0]).name if "evaluate" not in command else "evaluate"
        call = (name, Path(directory).name)
        ran.append(call)
        if call in failing:
            raise RuntimeError(f"{name} ended with status 1")
        if name == "mace_run_train":
            (directory / f"{directory.name}.model").write_text("model")
        else:
            folder = directory / "evaluation"
            folder.mkdir()
            size = 1.0 if directory.name == "efh" else 2.0
            (folder / "summary.json").write_text(json.dumps(dict.fromkeys(ERRORS, size)))

    def make_labels(out, workers):
        frames = []
        for reaction in ("one", "two"):
            for k in range(30):
                atoms = molecule("H2O")
                atoms.rattle(0.01, seed=k)
                atoms.info |= {"reaction": reaction, "REF_energy": 0.0, "REF_hessian": np.zeros(81)}
                frames.append(atoms)
        write(out / "labels.xyz", frames, format="extxyz")
        return out / "labels.xyz"

    monkeypatch.setattr(training, "run_logged", run_logged)
    monkeypatch.setattr(study, "make_labels", make_labels)
    return ran, failing


def test_a_finished_comparison_is_not_made_again(commands, tmp_path):
    ran, _ = commands
    first = compare_trainings(tmp_path, DemoSettings(structures=3), workers=1)
    assert sorted(ran) == [(name, kind) for name in ("evaluate", "mace_run_train") for kind in ("ef", "efh")]
    assert first.models["E/F/H"].is_file()
    assert "0.50" in first.report(120)
    assert {row["ratio"] for row in first.table} == {0.5}
    again = compare_trainings(tmp_path, DemoSettings(structures=3), workers=1)
    assert len(ran) == 4
    assert again.table == first.table
    assert json.loads((tmp_path / "summary.json").read_text())["comparison"] == first.table
    compare_trainings(tmp_path, DemoSettings(structures=3), seeds=2, workers=1)  # the first seed is kept
    assert len(ran) == 8


def test_an_interrupted_comparison_goes_on(commands, tmp_path):
    """What has finished stays; the training that failed is made again."""
    ran, failing = commands
    failing.append(("mace_run_train", "ef"))
    with pytest.raises(InputError, match="ended with status 1"):
        compare_trainings(tmp_path, DemoSettings(structures=3), workers=1)
    assert not (tmp_path / "summary.json").exists()
    assert (tmp_path / "mace-n3-h3-seed1" / "efh" / "evaluation" / "summary.json").is_file()
    failing.clear()
    ran.clear()
    compare_trainings(tmp_path, DemoSettings(structures=3), workers=1)
    assert ran == [("mace_run_train", "ef"), ("evaluate", "ef")]


def test_trainings_of_other_settings_are_refused(commands, tmp_path):
    """Another size has a folder of its own; another weight would be mixed with what is there."""
    ran, _ = commands
    compare_trainings(tmp_path, DemoSettings(structures=3), workers=1)
    compare_trainings(tmp_path, DemoSettings(structures=4), workers=1)
    assert len(ran) == 8
    with pytest.raises(InputError, match="holds a training with other settings"):
        compare_trainings(tmp_path, DemoSettings(structures=3, weight=0.5), workers=1)
    assert len(ran) == 8


def test_only_some_structures_keep_their_hessians(commands, tmp_path):
    labels = study.make_labels(tmp_path, 1)
    parts = training.split(labels, DemoSettings(structures=4, labelled=1), seed=1)
    assert [len(parts[name]) for name in ("train", "valid", "test")] == [8, 4, 20]
    assert sum("REF_hessian" in atoms.info for atoms in parts["train"]) == 2
    other = training.split(labels, DemoSettings(structures=9), seed=2)
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(parts["test"], other["test"], strict=True))
