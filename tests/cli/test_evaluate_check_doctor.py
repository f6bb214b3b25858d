"""`hint evaluate`, `hint check` and `hint doctor`, through the command line itself."""

import csv
import json
import re

import numpy as np
import pytest
import torch
import yaml
from ase.build import bulk, molecule
from helpers.structures import label_with_emt, labelled_set
from typer.testing import CliRunner

from hint_plugins.cli.main import app
from hint_plugins.labels.hessian_label import HessianLabel
from hint_plugins.objective.metrics import hessian_errors
from hint_plugins.potential import Potential
from hint_plugins.storage.store import write_structures

MODEL = "helpers.pairs:make_pairs"


def run(*arguments, status=0):
    """Run `hint`; bad input surfaces as the exception that main() turns into one sentence."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        if status == 2:
            return f"{type(result.exception).__name__}: {result.exception}"
        raise result.exception
    assert result.exit_code == status, result.output
    return result.output


@pytest.fixture
def data(tmp_path):
    structures = labelled_set(6, every=2)
    structures.append(label_with_emt(bulk("Cu", cubic=True), hessian=False, stress=True))
    write_structures(tmp_path / "data.xyz", structures)
    return tmp_path / "data.xyz"


def summary(out):
    return json.loads((out / "summary.json").read_text())


class TestEvaluate:
    def test_figures(self, data, tmp_path):
        """The summary is what a direct computation gives."""
        from hint_plugins.storage.store import read_structures

        out = tmp_path / "out"
        run("evaluate", MODEL, data, "--out", out, "--device", "cpu")
        found = summary(out)
        potential, structures = Potential.load(MODEL, "cpu"), list(read_structures(data))
        predicted = potential.evaluate(structures, stress=True)
        energy = [abs(e - a.info["REF_energy"]) / len(a) for e, a in zip(predicted.energies, structures, strict=True)]
        forces = [f - a.arrays["REF_forces"] for f, a in zip(predicted.forces, structures, strict=True)]
        assert found["energy_mae_per_atom"] == pytest.approx(np.mean(energy), rel=1e-9)
        assert found["forces_mae"] == pytest.approx(np.abs(np.concatenate(forces)).mean(), rel=1e-9)
        assert found["forces_rmse"] == pytest.approx(np.sqrt(np.square(np.concatenate(forces)).mean()), rel=1e-9)
        stress = np.abs(predicted.stresses[-1] - structures[-1].info["REF_stress"]).mean()
        assert found["stress_mae"] == pytest.approx(stress, rel=1e-9)
        labelled = [a for a in structures if "REF_hessian" in a.info]
        errors = [
            hessian_errors(potential.hessian(a), HessianLabel.from_info(a.info, len(a)).products, a) for a in labelled
        ]
        for name in ("hessian_mae", "eigenvalue_mae", "frequency_mae_cm1"):
            assert found[name] == pytest.approx(np.mean([e[name] for e in errors]), rel=1e-6), name
        counts = {k: found[k] for k in ("n_structures", "n_energies", "n_forces", "n_hessians", "n_failed")}
        assert counts == {"n_structures": 7, "n_energies": 7, "n_forces": 7, "n_hessians": 3, "n_failed": 0}
        without = {key for key in found if key.endswith(("_mae", "_rmse", "_per_atom", "asymmetry"))}
        assert without == set(found["units"])
        assert found["units"]["hessian_mae"] == "eV/A^2"
        assert (out / "parity.png").stat().st_size > 1000
        rows = list(csv.DictReader((out / "structures.csv").open()))
        assert [row["hessian_mae"] != "" for row in rows] == [True, False, True, False, True, False, False]
        assert not (out / ".parts").exists()

    def test_the_reference_itself_has_no_error(self, data, tmp_path):
        run("evaluate", "emt", data, "--out", tmp_path / "out")
        found = summary(tmp_path / "out")
        assert found["energy_mae_per_atom"] < 1e-6
        assert found["forces_mae"] < 1e-6
        assert found["hessian_mae"] < 0.1

    def test_other_keys_and_limits(self, data, tmp_path):
        from hint_plugins.storage.store import read_structures

        renamed = []
        for atoms in read_structures(data):
            atoms.info = {k.replace("REF_", "dft_"): v for k, v in atoms.info.items()}
            atoms.arrays["dft_forces"] = atoms.arrays.pop("REF_forces")
            renamed.append(atoms)
        write_structures(tmp_path / "renamed.xyz", renamed)
        keys = ["--energy-key", "dft_energy", "--forces-key", "dft_forces", "--hessian-key", "dft_hessian"]
        run("evaluate", MODEL, tmp_path / "renamed.xyz", "--out", tmp_path / "a", *keys, "--max-hessians", 2)
        found = summary(tmp_path / "a")
        assert (found["n_energies"], found["n_forces"], found["n_hessians"]) == (7, 7, 2)
        run("evaluate", MODEL, tmp_path / "renamed.xyz", "--out", tmp_path / "b", *keys, "--max-hessians", 0)
        assert summary(tmp_path / "b")["hessian_mae"] is None
        text = run("evaluate", MODEL, tmp_path / "renamed.xyz", "--out", tmp_path / "c", status=2)
        assert "no labels under REF_energy" in text
        assert "dft_energy" in text

    def test_several_files(self, data, tmp_path):
        """Indices are those in each file."""
        write_structures(tmp_path / "more.xyz", [molecule("SiH4"), *labelled_set(3, every=1, seed=5)])
        run("evaluate", "emt", data, tmp_path / "more.xyz", "--out", tmp_path / "out", "--max-hessians", 4, status=1)
        found = summary(tmp_path / "out")
        assert (found["n_structures"], found["n_hessians"], found["n_failed"]) == (11, 4, 1)
        assert (found["failed"][0]["file"], found["failed"][0]["index"]) == (str(tmp_path / "more.xyz"), 0)
        rows = list(csv.DictReader((tmp_path / "out" / "structures.csv").open()))
        assert [int(row["index"]) for row in rows] == [*range(7), *range(4)]

    def test_projections_and_columns(self, tmp_path):
        potential = Potential.load(MODEL, "cpu")
        rng = np.random.default_rng(0)
        structures = []
        for kind in ("projections", "columns"):
            atoms = molecule("CH3OH")
            atoms.arrays["REF_forces"] = potential.evaluate([atoms]).forces[0]
            hessian = potential.hessian(atoms)
            z = rng.choice([-1.0, 1.0], (2, 18))
            label = HessianLabel.projections(z, z @ hessian, 6)
            if kind == "columns":
                label = HessianLabel.columns([4, 7], hessian[[4, 7]])
            label.to_info(atoms.info)
            structures.append(atoms)
        write_structures(tmp_path / "p.xyz", structures)
        run("evaluate", MODEL, tmp_path / "p.xyz", "--out", tmp_path / "out", "--device", "cpu")
        found = summary(tmp_path / "out")
        assert (found["n_products"], found["n_hessians"]) == (2, 0)
        assert found["hvp_mae"] < 1e-6

    def test_bad_structures_are_named_and_the_others_done(self, data, tmp_path):
        from hint_plugins.storage.store import read_structures

        structures = list(read_structures(data))
        structures[1].positions[1] = structures[1].positions[0]
        structures[2].info["REF_hessian"] = structures[2].info["REF_hessian"] / 97.17
        write_structures(tmp_path / "bad.xyz", structures)
        run("evaluate", MODEL, tmp_path / "bad.xyz", "--out", tmp_path / "out", status=1)
        found = summary(tmp_path / "out")
        assert (found["n_structures"], found["n_energies"], found["n_hessians"], found["n_failed"]) == (7, 6, 2, 2)
        assert [item["index"] for item in found["failed"]] == [1, 2]
        assert "apart" in found["failed"][0]["reason"]
        assert "Hessian label" in found["failed"][1]["reason"]

    def test_unknown_element_and_damaged_file(self, data, tmp_path):
        text = data.read_text()
        (tmp_path / "cut.xyz").write_text(text[: int(len(text) * 0.6)])
        run("evaluate", "emt", tmp_path / "cut.xyz", "--out", tmp_path / "cut", status=1)
        found = summary(tmp_path / "cut")
        assert found["n_failed"] == 1
        assert "truncated" in found["failed"][0]["reason"]
        assert found["n_energies"] > 0
        atoms = molecule("SiH4")
        atoms.info["REF_energy"] = 0.0
        write_structures(tmp_path / "si.xyz", [atoms])
        run("evaluate", "emt", tmp_path / "si.xyz", "--out", tmp_path / "si", status=1)
        assert "does not know Si" in summary(tmp_path / "si")["failed"][0]["reason"]

    def test_resumes_and_repeats(self, tmp_path, monkeypatch):
        """Killed in the second part: the first is not computed again, and the result is that of an unbroken run."""
        import hint_plugins.evaluation.study as command

        monkeypatch.setattr(command, "PART", 3)
        write_structures(tmp_path / "d.xyz", labelled_set(8, every=3))
        arguments = ["evaluate", MODEL, tmp_path / "d.xyz", "--device", "cpu"]
        run(*arguments, "--out", tmp_path / "whole")
        original = Potential.evaluate
        calls = []

        def stop_in_the_second(self, structures, **options):
            calls.append(len(structures))
            if len(calls) == 2:
                raise KeyboardInterrupt
            return original(self, structures, **options)

        monkeypatch.setattr(Potential, "evaluate", stop_in_the_second)
        CliRunner().invoke(app, [str(a) for a in [*arguments, "--out", tmp_path / "broken"]])
        assert not (tmp_path / "broken" / "summary.json").exists()
        run(*arguments, "--out", tmp_path / "broken")
        assert calls == [3, 3, 3, 2], "the first part is not done again"
        whole, broken = (summary(tmp_path / name) for name in ("whole", "broken"))
        for name in whole.keys() - {"seconds"}:
            assert whole[name] == broken[name], name
        config = yaml.safe_load((tmp_path / "whole" / "config.yaml").read_text())
        assert config["command"] == "evaluate"
        assert config["model"] == MODEL

    def test_an_older_result_is_kept(self, data, tmp_path):
        run("evaluate", "emt", data, "--out", tmp_path / "out")
        assert "earlier result" in run("evaluate", "emt", data, "--out", tmp_path / "out", status=2)
        run("evaluate", "emt", data, "--out", tmp_path / "out", "--overwrite")

    def test_bad_arguments(self, data, tmp_path):
        out = ["--out", tmp_path / "out"]
        assert "no such file" in run("evaluate", "emt", tmp_path / "none.xyz", *out, status=2)
        assert "no such calculator" in run("evaluate", "emmt", data, *out, status=2)
        assert "unknown kind of file" in run("evaluate", "emt", _touch(tmp_path / "data.csv"), *out, status=2)
        assert "no structures" in run("evaluate", "emt", _touch(tmp_path / "empty.xyz"), *out, status=2)

    def test_config_file(self, data, tmp_path):
        config = tmp_path / "c.yaml"
        config.write_text(yaml.safe_dump({"max_hessians": 1, "out": str(tmp_path / "out")}))
        run("evaluate", "emt", data, "--config", config)
        assert summary(tmp_path / "out")["n_hessians"] == 1
        config.write_text("max_hesians: 1")
        CliRunner().invoke(app, ["evaluate", "emt", str(data), "--config", str(config)])
        result = CliRunner().invoke(app, ["evaluate", "emt", str(data), "--config", str(config)])
        assert result.exit_code == 2


def _touch(path):
    path.touch()
    return path


class TestCheck:
    def test_good(self, data, tmp_path):
        output = run("check", data, "--out", tmp_path / "out")
        assert "7 structures, 0 bad; good: 3 full Hessians" in output
        found = summary(tmp_path / "out")
        assert (found["n_input"], found["n_output"], found["n_bad"], found["n_unlabelled"]) == (7, 7, 0, 4)

    def test_every_bad_one_is_named(self, tmp_path):
        structures = labelled_set(5, every=1)
        values = structures[1].info["REF_hessian"]
        structures[1].info["REF_hessian"] = values[:-1]
        structures[2].info["REF_hessian"][3] = np.nan
        dim = 3 * len(structures[3])
        structures[3].info["REF_hessian"] = np.triu(structures[3].info["REF_hessian"].reshape(dim, dim)).reshape(-1)
        write_structures(tmp_path / "a.xyz", structures)
        write_structures(tmp_path / "b.aselmdb", labelled_set(2, every=1))
        output = run("check", tmp_path / "a.xyz", tmp_path / "b.aselmdb", "--out", tmp_path / "out", status=1)
        found = summary(tmp_path / "out")
        assert (found["n_input"], found["n_bad"], found["n_full"]) == (7, 3, 4)
        assert [item["index"] for item in found["bad"]] == [1, 2, 3]
        for text in ("a.xyz, structure 1", "9N^2", "not finite", "asymmetric"):
            assert text in output
        rows = list(csv.DictReader((tmp_path / "out" / "labels.csv").open()))
        assert len(rows) == 7

    def test_what_is_missing_is_counted(self, tmp_path):
        structures = labelled_set(4, every=2)
        del structures[1].info["REF_energy"]
        del structures[2].arrays["REF_forces"]
        write_structures(tmp_path / "a.xyz", structures)
        output = run("check", tmp_path / "a.xyz", "--out", tmp_path / "out")
        assert "3 energies (1 missing), 3 forces (1 missing), 0 stresses" in output
        found = summary(tmp_path / "out")
        assert (found["n_energies"], found["n_forces"], found["n_stresses"], found["n_full"]) == (3, 3, 0, 2)
        write_structures(tmp_path / "bare.xyz", [molecule("H2O")])
        assert "No known label was found" in run("check", tmp_path / "bare.xyz")

    def test_energies_in_hartree(self, tmp_path):
        structures = []
        for seed in range(5):
            atoms = molecule("CH3OH")
            atoms.rattle(0.05, seed=seed)
            structures.append(label_with_emt(atoms))
            structures[-1].info["REF_energy"] /= 27.2114
        write_structures(tmp_path / "a.xyz", structures)
        output = run("check", tmp_path / "a.xyz", "--out", tmp_path / "out", status=1)
        assert "the energies are in Hartree" in output
        assert summary(tmp_path / "out")["n_bad"] == 5

    def test_places_after_an_unreadable_frame(self, data, tmp_path):
        """Numbered as the file does, in every command."""
        lines = data.read_text().splitlines(keepends=True)
        lines[2] = "O broken\n"
        (tmp_path / "a.xyz").write_text("".join(lines).replace("REF_energy=", "REF_energy=x", 6).replace("=x", "=", 5))
        output = run("check", tmp_path / "a.xyz", status=1)
        assert "a.xyz, structure 0" in output
        assert "a.xyz, structure 5" in output
        output = run("evaluate", MODEL, tmp_path / "a.xyz", "--out", tmp_path / "out", "--device", "cpu", status=1)
        assert [item["index"] for item in summary(tmp_path / "out")["failed"]] == [5, 0]
        output = run("convert", tmp_path / "a.xyz", tmp_path / "o.xyz", status=1)
        assert [item["index"] for item in json.loads((tmp_path / "o.summary.json").read_text())["bad"]] == [0, 5]

    def test_tolerances_can_be_set(self, data):
        output = run("check", data, "--max-sum-rule", 1e-12, status=1)
        assert "of max|H|, more than 1e-12" in output
        assert "7 structures, 3 bad" in output

    def test_bad_files(self, tmp_path):
        assert "no such file" in run("check", tmp_path / "none.xyz", status=2)
        assert "unknown kind" in run("check", _touch(tmp_path / "x.csv"), status=2)


class TestConvertKeys:
    def test_other_names_are_asked_for(self, tmp_path):
        atoms = label_with_emt(molecule("H2O"), hessian=False)
        atoms.info["dft_energy"] = atoms.info.pop("REF_energy")
        atoms.arrays["dft_forces"] = atoms.arrays.pop("REF_forces")
        write_structures(tmp_path / "a.xyz", [atoms])
        output = run("convert", tmp_path / "a.xyz", tmp_path / "o.xyz")
        assert "0 energies, 0 forces" in output
        assert "No known label was found" in output
        assert "dft_energy, dft_forces" in output
        names = ["--energy-key", "dft_energy", "--forces-key", "dft_forces"]
        assert "1 energies, 1 forces" in run("convert", tmp_path / "a.xyz", tmp_path / "p.xyz", *names)
        misspelt = run("convert", tmp_path / "p.xyz", tmp_path / "q.xyz", "--energy-key", "dft_enrgy", status=1)
        assert "has REF_energy but not dft_enrgy" in misspelt

    @pytest.mark.parametrize("shape", [(9,), (3, 3)])
    def test_virials_and_matrices_of_stress(self, tmp_path, shape):
        """Both give the six numbers that ASE's EMT has."""
        backend = pytest.importorskip("ase_db_backends.aselmdb")
        crystal = bulk("Cu", cubic=True)
        crystal.rattle(0.1, seed=1)
        crystal = label_with_emt(crystal, hessian=False, stress=True)
        six = crystal.info.pop("REF_stress")
        matrix = six[[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(shape)
        for name, values in (("REF_stress", matrix), ("REF_virials", -matrix * crystal.get_volume())):
            atoms = crystal.copy()
            atoms.info[name] = values
            from ase.io import write

            write(tmp_path / "a.xyz", atoms, format="extxyz")
            output = run("convert", tmp_path / "a.xyz", tmp_path / "o.aselmdb", "--overwrite")
            assert "1 stresses" in output
            row = backend.LMDBDatabase(tmp_path / "o.aselmdb", readonly=True)._get_row(1)
            np.testing.assert_allclose(row.toatoms().get_stress(), six, atol=1e-9)

    def test_several_databases_are_named(self, tmp_path):
        pytest.importorskip("ase_db_backends")
        (tmp_path / "db").mkdir()
        structures = labelled_set(3, every=1)
        write_structures(tmp_path / "db" / "a.aselmdb", structures)
        structures[1].info["REF_hessian"] *= -1
        write_structures(tmp_path / "db" / "b.aselmdb", structures)
        output = run("convert", tmp_path / "db", tmp_path / "o.xyz", status=1)
        assert "6 records: 5 written, 1 bad; 5 energies, 5 forces, 0 stresses, 5 Hessians" in output
        assert "b.aselmdb, record 1" in output


class TestDoctor:
    def test_report(self, tmp_path):
        output = run("doctor", "--out", tmp_path / "out")
        for text in ("torch", "numpy", "cpu ("):
            assert text in output
        (plugins,) = re.findall(r"^hint_plugins: (.*)$", output, flags=re.MULTILINE)
        assert "hint" in plugins.split(", ")  # others may be installed beside it
        assert summary(tmp_path / "out")["versions"]["torch"] == torch.__version__

    @pytest.mark.parametrize("model", [MODEL, "emt"])
    def test_right_models(self, model, data):
        output = run("doctor", "--model", model, "--structures", data, "--device", "cpu")
        assert "WRONG" not in output
        assert ("a Hessian loss can be trained" in output) == (model == MODEL)

    def test_wrong_forces_are_seen(self):
        assert "WRONG: Hessians of this potential" in run("doctor", "--model", f"{__name__}:make_wrong", status=1)

    def test_wrong_norm_is_named(self):
        output = run("doctor", "--model", f"{__name__}:make_fused", "--device", "cpu", status=1)
        assert "norm: Fused has a wrong third derivative" in output
        assert "hessian_engine finite_difference" in output
        assert "--hessian" not in output

    def test_layer_norm_is_tested_as_training_has_it(self):
        output = run("doctor", "--model", f"{__name__}:make_normed", "--device", "cpu")
        assert "training makes LayerNorm exact: norm" in output
        assert "a Hessian loss can be trained" in output

    def test_bad_input(self, tmp_path):
        assert "no such calculator" in run("doctor", "--model", "nothing", status=2)
        assert "no structures" in run("doctor", "--model", "emt", "--structures", _touch(tmp_path / "e.xyz"), status=2)


def make_wrong():
    """EMT with forces a tenth too large."""
    from ase.calculators.emt import EMT

    class Wrong(EMT):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results["forces"] = self.results["forces"] * 1.1

    return Wrong()


def make_fused():
    """A model with a module of its own around torch's fused LayerNorm, which nothing makes exact."""

    class Fused(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.layer_norm(x, (8,))

    model = make_normed()
    model.norm = Fused()
    return model


def make_normed():
    """A model with torch's fused LayerNorm."""
    from helpers.pairs import Pairs

    from hint_plugins.models import edge_vectors

    class Normed(Pairs):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first = torch.nn.Linear(4, 8).double()
            self.norm = torch.nn.LayerNorm(8).double()
            self.last = torch.nn.Linear(8, 1).double()

        def forward(self, graph):
            square = edge_vectors(graph).square().sum(-1)
            basis = torch.stack([torch.exp(-square / w) for w in (0.5, 1.0, 2.0, 4.0)], dim=-1)
            edges = self.last(torch.nn.functional.silu(self.norm(self.first(basis))))[:, 0]
            out = edges.new_zeros(graph.num_graphs)
            return out.index_add(0, graph.batch_index[graph.edge_index[1]], edges)

    return Normed()
