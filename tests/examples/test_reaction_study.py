"""The study on unseen reactions (examples/reactions), part by part."""

import csv
import json
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from helpers.figures import faults, keep_figures
from helpers.structures import labelled_set

pytest.importorskip("geodesic_interpolate")

import end_points
import labels
import options
import report
import searches
from comparing import comparisons, error_changes, successes
from cost_meter import CostMeter
from fake_results import write_fake
from matrix import Run, read_matrix
from results import Results, conditions
from stages import stage
from statistics_of_pairs import by_reaction, mcnemar, paired
from trainings import Trainings

from hint_plugins.errors import InputError
from hint_plugins.labels.hessian_label import HessianLabel
from hint_plugins.storage.store import read_structures, write_structures

MATRIX = """
seeds: [1, 2]
blocks:
  efficiency: {pretrained: [true, false], share: [0, 1, 100], budget: "steps:40"}
  loss: {loss: [mse, mae], share: 1, budget: "steps:40"}
"""
WANTED = {"test": 5, "held_back": 2, "valid": 2}


@pytest.fixture
def matrix_file(tmp_path):
    (tmp_path / "matrix.yaml").write_text(MATRIX)
    return tmp_path / "matrix.yaml"


def test_parts_share_no_molecule():
    reactions = end_points.mini_reactions()
    for seed in range(5):
        parts = end_points.split(reactions, WANTED, seed)
        assert set(parts) == {r.name for r in reactions}
        seen = {}
        for reaction in reactions:
            for atoms in (reaction.reactant, reaction.product):
                assert seen.setdefault(end_points.fingerprint(atoms), parts[reaction.name]) == parts[reaction.name]
        counts = {part: sum(p == part for p in parts.values()) for part in end_points.PARTS}
        assert all(counts[part] >= WANTED[part] for part in WANTED)
        assert counts["train"] > 0
    assert end_points.split(reactions, WANTED, 0) == end_points.split(reactions, WANTED, 0)
    assert len({tuple(end_points.split(reactions, WANTED, s).values()) for s in range(5)}) > 1


def test_the_fingerprint_knows_a_molecule_in_any_order_and_pose():
    atoms = molecule("CH3CH2OH")
    other = atoms[np.random.default_rng(0).permutation(len(atoms))]
    other.rotate(40, "x")
    assert end_points.fingerprint(atoms) == end_points.fingerprint(other)
    assert end_points.fingerprint(atoms) != end_points.fingerprint(molecule("CH3OCH3"))


def test_few_reactions_leave_some_for_training():
    parts = end_points.split(end_points.mini_reactions(), {"test": 100, "held_back": 20, "valid": 20}, 0)
    counts = {part: sum(p == part for p in parts.values()) for part in end_points.PARTS}
    assert min(counts.values()) >= 1
    assert counts["test"] > counts["valid"]


def test_reactions_that_do_not_fit_are_left_out_with_a_reason():
    kept, out = end_points.read_reactions(None, 4, ["H", "C", "N"], None)
    assert {len(r.reactant) for r in kept} == {3}
    assert out["chloroethane = ethene + hydrogen chloride"] == "holds Cl"
    assert any(reason == "more than 4 atoms" for reason in out.values())
    with pytest.raises(InputError, match="no reaction is left"):
        end_points.read_reactions(None, 2, ["H"], None)


def test_a_stage_is_made_once_and_its_options_are_kept(tmp_path):
    calls = []

    def fail():
        calls.append("failed")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        stage(tmp_path / "s", {"sigma": 0.1}, fail)
    with pytest.raises(InputError, match=r"was made with sigma = 0\.1 \(now 0\.2\)"):
        stage(tmp_path / "s", {"sigma": 0.2}, dict)
    assert stage(tmp_path / "s", {"sigma": 0.1}, lambda: {"count": 3})["count"] == 3
    assert stage(tmp_path / "s", {"sigma": 0.1}, fail)["count"] == 3
    assert calls == ["failed"]
    with pytest.raises(InputError, match="seed = None"):
        stage(tmp_path / "s", {"sigma": 0.1, "seed": 1}, dict)


def test_shares_contain_each_other(tmp_path):
    frames = labelled_set(20, every=1)
    write_structures(tmp_path / "all.xyz", frames)
    held = {}
    for share in (0, 0.1, 10, 50, 100):
        file = tmp_path / labels.share_name(share)
        counts = labels.write_share(tmp_path / "all.xyz", file, share, seed=1)
        some = list(read_structures(file))
        held[share] = {k for k, atoms in enumerate(some) if "REF_hessian" in atoms.info}
        assert counts == {"structures": 20, "hessians": len(held[share])}
        assert all(a.info["REF_energy"] == b.info["REF_energy"] for a, b in zip(some, frames, strict=True))
    assert [len(held[s]) for s in held] == [0, 1, 2, 10, 20]
    assert held[0.1] < held[10] < held[50] < held[100]
    labels.write_share(tmp_path / "all.xyz", tmp_path / "other.xyz", 50, seed=2)
    other = {k for k, atoms in enumerate(read_structures(tmp_path / "other.xyz")) if "REF_hessian" in atoms.info}
    assert other != held[50]


def test_stored_projections_are_those_of_the_hessian(tmp_path):
    frames = labelled_set(4, every=1)
    write_structures(tmp_path / "all.xyz", frames)
    labels.write_share(tmp_path / "all.xyz", tmp_path / "stored.xyz", 100, seed=1, stored=3)
    for whole, atoms in zip(frames, read_structures(tmp_path / "stored.xyz"), strict=True):
        label = HessianLabel.from_info(atoms.info, len(atoms))
        assert label.kind == "projections"
        assert set(np.unique(label.directions)) == {-1.0, 1.0}
        hessian = HessianLabel.from_info(whole.info, len(whole)).products
        assert label.directions.shape == (3, 3 * len(atoms))
        np.testing.assert_allclose(label.products, label.directions @ hessian, rtol=1e-12, atol=1e-12)


def test_equal_trainings_have_equal_names(matrix_file):
    matrix = read_matrix(matrix_file)
    assert len(matrix.runs) == 2 * (6 + 1)  # mse at 1 % stands in both blocks
    assert [run.seed for run in matrix.runs] == [1] * 7 + [2] * 7
    assert len({run.name for run in matrix.runs}) == len(matrix.runs)
    text = MATRIX + "  none: {share: 0, loss: [mse, mae], m: [1, 5], budget: 'steps:40'}\n"
    matrix_file.write_text(text)
    assert len(read_matrix(matrix_file, ["none"]).runs) == 2


def test_a_training_with_other_settings_is_refused(tmp_path, matrix_file):
    matrix = read_matrix(matrix_file)
    name = matrix.runs[0].name
    trainings = Trainings(tmp_path, tmp_path, matrix, "cpu")
    settings = {"run": asdict(matrix.runs[0]), "epochs": 3, **trainings._settings("alphanet")}
    stage(tmp_path / name, settings, dict)
    trainings.refuse_changes()
    matrix.models["alphanet"] = {"r_max": 3.0}
    with pytest.raises(InputError, match=rf"{name} was made with settings = .*'r_max': 4.5.*now .*'r_max': 3.0"):
        trainings.refuse_changes()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"law": "magic"}, "unknown law 'magic': choose rademacher"),
        ({"budget": "hours:3"}, "is not steps:N"),
        ({"budget": "steps:-3"}, "is not steps:N"),
        ({"share": 0, "budget": "products:100"}, "without Hessians makes no products"),
    ],
)
def test_wrong_trainings_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        Run(**values)


def test_the_matrix_names_what_is_unknown(matrix_file):
    matrix_file.write_text("blocks: {a: {sharre: 1}}")
    with pytest.raises(InputError, match="block a: unknown sharre"):
        read_matrix(matrix_file)
    with pytest.raises(InputError, match="no block 'b'; there are a"):
        read_matrix(matrix_file, ["b"])


def test_budgets_are_spent():
    flags = [k % 4 == 0 for k in range(40)]  # 10 with a Hessian
    half, plain, recycle = (Run(batches=name, m=3, budget="products:600") for name in ("half", "plain", "recycle"))
    assert options.epoch_cost(half, flags, 8) == (5, 30)
    assert options.epoch_cost(plain, flags, 8) == (5, 30)
    steps, products = options.epoch_cost(recycle, flags, 8)
    assert (steps, products) == (8, 3 * 32)  # 30 others, 4 a batch
    for run in (half, plain, recycle):
        assert options.epochs(run, flags, 8) * options.epoch_cost(run, flags, 8)[1] == pytest.approx(600, rel=0.1)
    assert options.epochs(Run(budget="steps:50"), flags, 8) == 10
    assert options.epochs(Run(budget="cpu:50"), flags, 8, cpu_per_epoch=2.5) == 20
    assert options.epochs(Run(budget="steps:1"), flags, 8) == 1


def test_curricula_and_laws_become_options():
    ramp, constant = (options.hessian_options(Run(curriculum=c, weight=0.2), 10) for c in ("ramp", "constant"))
    assert (ramp["hessian_ramp_end"], ramp.get("hessian_weight_start", 0)) == (5, 0)
    assert (constant["hessian_weight_start"], constant["hessian_schedule"]) == (0.2, "constant")
    assert options.hessian_options(Run(share=0), 10) == {"hessian_weight": 0.0}
    assert options.hessian_options(Run(law="stored"), 10)["hessian_probes"] == "rademacher"


def test_the_meter_goes_on_after_a_restart():
    labelled = SimpleNamespace(num_graphs=4, labels={"drawn_probes": np.zeros((12, 5, 3))})
    first = CostMeter()
    for batch in (SimpleNamespace(labelled=labelled), SimpleNamespace(labelled=None)):
        first.loss_terms(batch)
    state = first.checkpoint_state()
    assert state["cost"] | {"cpu_seconds": 0} == {"products": 20, "steps": 2, "cpu_seconds": 0}
    assert 0 <= state["cost"]["cpu_seconds"] < 1
    state["cost"]["cpu_seconds"] = 100.0
    second = CostMeter()
    second.restore_state(state)
    second.loss_terms(SimpleNamespace(labelled=labelled))
    assert (second.products, second.steps) == (40, 3)
    assert 100 <= second.cpu_seconds < 101


def test_mcnemar_is_the_exact_one():
    a, b = [True] * 3 + [True] + [False] * 8 + [False] * 2, [True] * 3 + [False] + [True] * 8 + [False] * 2
    found = mcnemar(a, b)
    assert (found["only_first"], found["only_second"]) == (1, 8)
    assert found["p"] == pytest.approx(2 * (1 + 9) / 2**9)
    assert mcnemar(a, a)["p"] is None


def test_paired_differences():
    a, b = np.array([1.0, 2, 3, 4, 5]), np.array([1.2, 2.1, 3.4, 4.3, 5.5])
    found = paired(a, b)
    assert found["difference"] == pytest.approx(0.3)
    assert found["p"] == pytest.approx(2 / 2**5)  # all exchanges: only two are as extreme
    assert found["low"] < 0.3 < found["high"]
    assert paired(a, a)["p"] == 1
    assert paired([], [])["difference"] is None
    assert paired([1.0], [2.0]) == {"difference": 1.0, "low": None, "high": None, "p": None}


def test_seeds_of_a_reaction_are_no_independent_pairs():
    rows = [{"reaction": "a", "x": "-1"}, {"reaction": "a", "x": "3"}, {"reaction": "b", "x": ""}]
    assert by_reaction(rows, "x") == {"a": 2.0}


def test_a_constant_error_of_the_energy_cancels_above_the_reactant():
    theirs = [
        {"name": r, "role": r, "reaction": "x", "formula": "H2", "energy": e, "gibbs": e + 0.3, "gibbs_correction": 0.3}
        for r, e in (("reactant", 0.0), ("ts", 2.0), ("product", 1.0))
    ]
    ours = [row | {"energy": row["energy"] - 5, "gibbs": row["gibbs"] - 5} for row in theirs]
    ours[1] = ours[1] | {"gibbs": ours[1]["gibbs"] + 0.1, "gibbs_correction": 0.4}
    rows = {row["role"]: row for row in searches.gibbs_rows(ours, theirs)}
    assert [rows[r]["gibbs_error_eV"] for r in rows] == pytest.approx([-5, -4.9, -5])
    assert rows["ts"]["gibbs_above_reactant_error_eV"] == pytest.approx(0.1)
    assert rows["product"]["gibbs_above_reactant_error_eV"] == pytest.approx(0)
    assert rows["reactant"]["gibbs_above_reactant_error_eV"] is None
    assert searches.gibbs_rows([{**ours[0], "error": "no"}, *ours[1:]], theirs)[0]["role"] == "ts"


def test_structures_of_a_reaction_depend_on_its_name_and_the_seed_alone():
    pytest.importorskip("tblite")
    from geometries import structures_of

    reaction = next(r for r in end_points.mini_reactions() if r.name.startswith("hydrogen cyanide"))
    how = {"level": "tblite:GFN1-xTB", "images": 5, "band_steps": 2, "samples": 2, "sigma": 0.05}
    frames, again, other = (structures_of(reaction, **how, seed=seed) for seed in (0, 0, 1))
    assert len(frames) == (5 + 2 + 3) * 3
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(frames, again, strict=True))
    assert not np.array_equal(frames[1].positions, other[1].positions)
    kinds = [a.info["kind"] for a in frames if not a.info["displaced"]]
    assert kinds == ["geodesic"] * 5 + ["minimum"] * 2 + ["band"] * 3
    moved = np.concatenate([frames[k].positions - frames[k - k % 3].positions for k in range(30) if k % 3])
    assert 0.03 < moved.std() < 0.06


def test_the_report_says_what_the_results_say(tmp_path, matrix_file, monkeypatch, capsys):
    figures = keep_figures(monkeypatch)
    runs, out = tmp_path / "runs", tmp_path / "page" / "reactions"
    write_fake(runs, matrix_file)
    monkeypatch.setattr("sys.argv", ["report.py", str(runs), "--matrix", str(matrix_file), "--out", str(out)])
    report.main()
    assert "pictures" in capsys.readouterr().out
    assert [fault for figure in figures for fault in faults(figure)] == []
    page = out.with_suffix(".md").read_text()
    assert "Reactions: 12 test, 2 held back, 2 valid, 20 train; no reactant" in page
    assert "## Efficiency" in page
    assert "](reactions/efficiency-shares.png)" in page
    with (out / "efficiency-tests.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    way = ("pre-trained, 0 % Hessians", "pre-trained, 1 % Hessians")
    (gain,) = (row for row in rows if (row["from"], row["to"]) == way and "Hessian MAE" in row["of"])
    assert float(gain["difference"]) == pytest.approx(-1, abs=0.02)
    assert float(gain["p"]) == pytest.approx(2 / 2**12, rel=0.01)
    assert (out / "runs.csv").read_text() == (runs / "results" / "runs.csv").read_text()


def test_trainings_are_compared_where_one_thing_differs(tmp_path, matrix_file):
    write_fake(tmp_path, matrix_file)
    matrix, results = read_matrix(matrix_file), Results(tmp_path / "results")
    groups = conditions(matrix, "efficiency")
    for first, second, pairs in comparisons(results, groups):
        assert sum(getattr(first, f) != getattr(second, f) for f in ("pretrained", "share")) == 1
        assert [(a.seed, b.seed) for a, b in pairs] == [(1, 1), (2, 2)]
    won = successes(results, groups)
    from_none = [row for row in won if ", 0 %" in row["from"] and ", 0 %" not in row["to"]]
    assert {(row["gained"], row["lost"]) for row in from_none} == {(12, 0)}
    assert error_changes(results, groups, {"none": ("structures", "missing")}) == []


def test_without_results_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"no results; run evaluate\.py first"):
        Results(tmp_path)


def test_structures_far_above_their_reaction_are_left_out(tmp_path):
    frames = labelled_set(6, every=1)
    for k, atoms in enumerate(frames):
        atoms.info |= {"reaction": "ab"[k % 2], "REF_energy": float(10 * (k % 2) + k)}
    write_structures(tmp_path / "all.xyz", frames)
    assert [a.info["REF_energy"] for a in labels.within(tmp_path / "all.xyz", 3.0)] == [0, 11, 2, 13]


def test_picked_structures_carry_no_cheap_label():
    frames = [Atoms("H2", info={"reaction": f"r{k % 3}", "REF_energy": 1.0}) for k in range(12)]
    chosen = labels.pick(iter(frames), 2, seed=0)
    assert [a.info["reaction"] for a in chosen] == ["r0", "r0", "r1", "r1", "r2", "r2"]
    assert not any("REF_energy" in a.info for a in chosen)
    assert json.dumps(labels.share_name(0.1, 5)) == '"h0.1-stored5.xyz"'
