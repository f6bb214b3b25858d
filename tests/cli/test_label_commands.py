"""``hint label``, ``convert``, ``select``, ``displace``: files, summaries and exit statuses."""

import csv
import json

import numpy as np
import pytest
import typer
from ase.build import bulk, molecule
from ase.io import write
from helpers.label_engines import QuarticEngine
from typer.testing import CliRunner

from hint_plugins.cli.convert import convert
from hint_plugins.cli.displace import displace
from hint_plugins.cli.label import label
from hint_plugins.cli.select import select
from hint_plugins.cli.settings import with_settings
from hint_plugins.errors import HintError
from hint_plugins.hookspecs import hookimpl
from hint_plugins.registries import use
from hint_plugins.storage.store import read_structures, write_structures


def hint(command, *arguments):
    """Exit status, and the message if the input was refused."""
    app = typer.Typer(add_completion=False)
    app.command()(with_settings(command))
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, HintError):
        return 2, str(result.exception)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture
def molecules(tmp_path):
    rng = np.random.default_rng(0)
    frames = []
    for k in range(9):
        atoms = molecule(["H2O", "H2CO", "NH3"][k % 3])
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        atoms.info["reaction"] = f"r{k}"
        frames.append(atoms)
    path = tmp_path / "in.xyz"
    write_structures(path, frames)
    return path


ENGINE = ("--engine", "helpers.label_engines:FussyEngine", "--workers", 1)


def test_label(tmp_path, molecules):
    out = tmp_path / "out.xyz"
    status, text = hint(label, molecules, out, *ENGINE, "--kind", "projections", "--num-probes", 3)
    assert status == 1, text
    summary = json.loads((tmp_path / "out.summary.json").read_text())
    assert {k: summary[k] for k in ("n_input", "n_done", "n_skipped", "n_failed")} == {
        "n_input": 9,
        "n_done": 6,
        "n_skipped": 0,
        "n_failed": 3,
    }
    assert summary["seconds"] > 0
    rows = list(csv.DictReader((tmp_path / "out.failed.csv").open()))
    assert [int(r["index"]) for r in rows] == [2, 5, 8]
    assert "no parameters for N" in rows[0]["error"]
    frames = list(read_structures(out))
    assert [a.info["reaction"] for a in frames] == ["r0", "r1", "r3", "r4", "r6", "r7"]
    assert frames[0].info["REF_hessian_products"].size == 27
    assert "num_probes: 3" in (tmp_path / "out.config.yaml").read_text()
    status, text = hint(label, molecules, out, *ENGINE, "--kind", "projections", "--num-probes", 3)
    assert "0 labelled, 6 there already, 3 failed" in text


def damaged(path, *numbers):
    """Copy of a file whose frames ``numbers`` cannot be read."""
    frames = path.read_text().split("Properties")
    text = frames[0]
    for number, frame in enumerate(frames[1:]):
        text += "Properties" + (frame.replace(" 0.", " zero.") if number in numbers else frame)
    copy = path.with_name("damaged.xyz")
    copy.write_text(text)
    return copy


def test_unreadable_frames_are_numbered_as_in_the_file(tmp_path, molecules):
    broken = damaged(molecules, 1, 4)
    status, text = hint(label, broken, tmp_path / "out.xyz", *ENGINE, "--kind", "forces")
    assert status == 1, text
    rows = list(csv.DictReader((tmp_path / "out.failed.csv").open()))
    assert [int(r["index"]) for r in rows] == [1, 2, 4, 5, 8]
    assert ["cannot be read" in r["error"] for r in rows] == [True, False, True, False, False]
    assert json.loads((tmp_path / "out.summary.json").read_text())["n_input"] == 9

    status, text = hint(select, broken, "--out", tmp_path / "s", "--method", "random", "--fraction", 1, "--no-map")
    assert status == 1
    assert "record 1" in text
    assert [int(r["index"]) for r in csv.DictReader((tmp_path / "s" / "scores.csv").open())] == [0, 2, 3, 5, 6, 7, 8]
    assert json.loads((tmp_path / "s" / "summary.json").read_text())["n_input"] == 9

    status, text = hint(displace, broken, "--out", tmp_path / "d", "--count", 1, "--sigma", 0.1)
    assert status == 1
    parents = [a.info["parent"] for a in read_structures(tmp_path / "d" / "structures.xyz")]
    assert parents == [0, 2, 3, 5, 6, 7, 8]
    assert json.loads((tmp_path / "d" / "summary.json").read_text())["n_input"] == 9


def test_a_refused_engine_does_not_bind_the_output(tmp_path, molecules):
    assert hint(label, tmp_path / "none.xyz", tmp_path / "out.xyz", *ENGINE)[0] == 2
    assert hint(label, molecules, tmp_path / "out.xyz", *ENGINE, "--kind", "forces")[0] == 1


def test_label_obeys_the_request_of_a_selection(tmp_path, molecules):
    chosen = tmp_path / "chosen"
    arguments = ("--method", "random", "--fraction", 0.6, "--hessian-fraction", 0.4, "--no-map")
    assert hint(select, molecules, "--out", chosen, *arguments)[0] == 0
    hint(label, chosen / "selected.xyz", tmp_path / "out.aselmdb", *ENGINE)
    frames = list(read_structures(tmp_path / "out.aselmdb"))
    assert frames
    for atoms in frames:
        assert ("REF_hessian" in atoms.info) == (atoms.info["label_request"] == "hessian")
        assert "REF_energy" in atoms.info


def test_outputs_of_one_stem_keep_their_summaries(tmp_path, molecules):
    """a.xyz, a.extxyz and a converted a.xyz.gz in one folder, each labelled twice: every summary stays."""
    for _ in range(2):
        hint(label, molecules, tmp_path / "a.xyz", *ENGINE, "--kind", "forces")
        hint(label, molecules, tmp_path / "a.extxyz", *ENGINE, "--kind", "projections")
        hint(convert, tmp_path / "a.xyz", tmp_path / "a.xyz.gz", "--overwrite")
    for stem, name in (("a", "a.xyz"), ("a.extxyz", "a.extxyz"), ("a.xyz.gz", "a.xyz.gz")):
        assert json.loads((tmp_path / f"{stem}.summary.json").read_text())["output"].endswith("/" + name)
    assert "kind: forces" in (tmp_path / "a.config.yaml").read_text()
    assert "kind: projections" in (tmp_path / "a.extxyz.config.yaml").read_text()
    assert (tmp_path / "a.failed.csv").exists()
    assert (tmp_path / "a.extxyz.failed.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--engine", "magic"), "unknown engine 'magic'"),
        (("--kind", "half"), "unknown kind"),
        (("--executor", "cloud"), "executor: choose local, dask, parsl"),
        (("--scheduler", "tcp://x:1"), "belongs to --executor dask"),
        (("--calculator", "emt"), "belongs to --engine ase"),
        (("--engine", "ase"), "needs --calculator"),
        (("--set", "accuracy"), "expected NAME=VALUE"),
        (("--engine", "ase", "--calculator", "nothing"), "unknown ASE calculator"),
        (("--step", "-1"), "between 0 and 0.5"),
    ],
)
def test_label_refuses(tmp_path, molecules, arguments, reason):
    status, text = hint(label, molecules, tmp_path / "out.xyz", *arguments)
    assert status == 2
    assert reason in text
    assert not (tmp_path / "out.xyz").exists()


def test_label_wrong_files(tmp_path, molecules):
    assert "same file" in hint(label, molecules, molecules)[1]
    precious = tmp_path / "precious.xyz"
    precious.write_text("not ours")
    assert "was not made by this command" in hint(label, molecules, precious, *ENGINE)[1]
    assert precious.read_text() == "not ours"
    assert "no such file" in hint(label, tmp_path / "none.xyz", tmp_path / "o.xyz", *ENGINE)[1]
    assert "unknown kind of file" in hint(label, molecules, tmp_path / "o.cif", *ENGINE)[1]


def test_label_with_an_ase_calculator(tmp_path):
    crystal = bulk("Cu", cubic=True)
    crystal.rattle(0.05, seed=0)
    write_structures(tmp_path / "in.xyz", [crystal])
    arguments = ("--engine", "ase", "--calculator", "emt", "--set", "asap_cutoff=true", "--workers", 1)
    assert hint(label, tmp_path / "in.xyz", tmp_path / "out.xyz", *arguments)[0] == 0
    (atoms,) = read_structures(tmp_path / "out.xyz")
    assert atoms.info["label_asap_cutoff"]
    assert atoms.info["REF_stress"].shape == (6,)


def test_convert_round_trip_and_report(tmp_path, molecules):
    pytest.importorskip("ase_db_backends")
    hint(label, molecules, tmp_path / "out.xyz", *ENGINE)
    folder = tmp_path / "db"
    folder.mkdir()
    status, text = hint(convert, tmp_path / "out.xyz", folder / "a.aselmdb", "--metadata")
    assert status == 0, text
    summary = json.loads((folder / "a.summary.json").read_text())
    assert (summary["n_input"], summary["n_output"], summary["n_bad"]) == (6, 6, 0)
    assert summary["n_hessians"] == 6
    assert summary["asymmetry_max"] < 1e-9
    metadata = np.load(folder / "metadata.npz")
    assert metadata["natoms"].tolist() == [3, 4, 3, 4, 3, 4]
    assert metadata["has_hessian"].all()
    assert "exists" in hint(convert, tmp_path / "out.xyz", folder / "a.aselmdb")[1]
    assert "holds a.aselmdb too" in hint(convert, tmp_path / "out.xyz", folder / "b.aselmdb", "--metadata")[1]
    (atoms, *_) = read_structures(folder / "a.aselmdb")
    (original, *_) = read_structures(tmp_path / "out.xyz")
    np.testing.assert_array_equal(atoms.info["REF_hessian"], original.info["REF_hessian"])


def test_convert_names_bad_labels(tmp_path, molecules):
    hint(label, molecules, tmp_path / "out.xyz", *ENGINE)
    frames = list(read_structures(tmp_path / "out.xyz"))
    frames[1].info["REF_hessian"] = frames[1].info["REF_hessian"][:-1]
    lopsided = frames[3].info["REF_hessian"].copy().reshape(12, 12)
    lopsided[0, 5] += 100
    frames[3].info["REF_hessian"] = lopsided.ravel()
    write_structures(tmp_path / "bad.xyz", frames)
    status, _ = hint(convert, tmp_path / "bad.xyz", tmp_path / "good.xyz")
    assert status == 1
    summary = json.loads((tmp_path / "good.summary.json").read_text())
    assert [b["index"] for b in summary["bad"]] == [1, 3]
    assert "143 numbers" in summary["bad"][0]["reason"]
    assert "asymmetric" in summary["bad"][1]["reason"]
    hint(convert, damaged(tmp_path / "bad.xyz", 0), tmp_path / "mixed.xyz")
    summary = json.loads((tmp_path / "mixed.summary.json").read_text())
    assert (summary["n_input"], summary["n_bad"]) == (6, 3)
    assert [b["index"] for b in summary["bad"]] == [0, 1, 3]
    status, text = hint(convert, tmp_path / "bad.xyz", tmp_path / "x.xyz", "--on-bad", "error")
    assert status == 2
    assert "bad.xyz, structure 1" in text
    assert not (tmp_path / "x.xyz").exists()


def test_convert_units(tmp_path, molecules):
    hint(label, molecules, tmp_path / "out.xyz", *ENGINE)
    frames = list(read_structures(tmp_path / "out.xyz"))
    from ase.units import Bohr, Hartree

    factor = Hartree / Bohr**2
    expected = [a.info["REF_hessian"] for a in frames]
    for atoms in frames:
        atoms.info["REF_hessian"] = atoms.info["REF_hessian"] / factor
    write_structures(tmp_path / "ha.xyz", frames)
    assert hint(convert, tmp_path / "ha.xyz", tmp_path / "a.xyz", "--hessian-unit", "Ha/Bohr^2")[0] == 0
    for atoms, values in zip(read_structures(tmp_path / "a.xyz"), expected, strict=True):
        np.testing.assert_allclose(atoms.info["REF_hessian"], values, rtol=1e-12)
    status, text = hint(convert, tmp_path / "ha.xyz", tmp_path / "b.xyz", "--on-bad", "error")
    assert status == 2
    assert "Ha/Bohr^2" in text
    assert "hessian_unit: choose" in hint(convert, tmp_path / "ha.xyz", tmp_path / "c.xyz", "--hessian-unit", "kcal")[1]


def test_align_energies_to_another_level(tmp_path):
    rng = np.random.default_rng(0)
    cheap_atoms = {1: -10.0, 6: -50.0, 8: -70.0}
    good_atoms = {1: -13.6, 6: -1030.0, 8: -2042.0}
    cheap, good = [], []
    for name in ("H2O", "CH4", "H2CO", "CH3OH", "CO2") * 4:
        atoms = molecule(name)
        interaction = rng.normal()
        for frames, energies in ((cheap, cheap_atoms), (good, good_atoms)):
            copy = atoms.copy()
            copy.info["REF_energy"] = sum(energies[z] for z in atoms.numbers) + interaction
            copy.arrays["REF_forces"] = np.full((len(atoms), 3), 0.5)
            frames.append(copy)
    write_structures(tmp_path / "cheap.xyz", cheap)
    write_structures(tmp_path / "good.xyz", good)
    status, text = hint(convert, tmp_path / "good.xyz", tmp_path / "a.xyz", "--align-to", tmp_path / "cheap.xyz")
    assert status == 0, text
    for atoms, expected in zip(read_structures(tmp_path / "a.xyz"), cheap, strict=True):
        assert atoms.info["REF_energy"] == pytest.approx(expected.info["REF_energy"], abs=1e-6)
        assert (atoms.arrays["REF_forces"] == 0.5).all()
    isomers = [a for a in good if str(a.symbols) == "OCH2"]
    write_structures(tmp_path / "isomers.xyz", isomers)
    hint(convert, tmp_path / "isomers.xyz", tmp_path / "b.xyz", "--align-to", tmp_path / "cheap.xyz")
    energies = [a.info["REF_energy"] for a in read_structures(tmp_path / "b.xyz")]
    assert np.std(energies) == pytest.approx(np.std([a.info["REF_energy"] for a in isomers]), abs=1e-9)
    assert abs(np.mean(energies) - (-50 - 70 - 20)) < 2
    parts = tmp_path / "one.xyz", tmp_path / "two.xyz"
    for path, frames in zip(parts, (good[:13], good[13:]), strict=True):
        write_structures(path, frames)
    constants = ("--align-to", tmp_path / "cheap.xyz", "--align-from", parts[0])
    shifted = []
    for path in parts:
        assert hint(convert, path, path.with_suffix(".extxyz"), *constants)[0] == 0
        shifted += read_structures(path.with_suffix(".extxyz"))
    errors = [a.info["REF_energy"] - b.info["REF_energy"] for a, b in zip(shifted, cheap, strict=True)]
    counts = np.array([[np.sum(a.numbers == z) for z in good_atoms] for a in cheap])
    constants_left = np.linalg.lstsq(counts, np.array(errors), rcond=None)[0]
    np.testing.assert_allclose(counts @ constants_left, errors, atol=1e-6)
    assert "belongs to --align-to" in hint(convert, parts[0], tmp_path / "x.xyz", "--align-from", parts[0])[1]
    write_structures(tmp_path / "ammonia.xyz", [molecule("NH3")])
    status, text = hint(convert, tmp_path / "good.xyz", tmp_path / "c.xyz", "--align-to", tmp_path / "ammonia.xyz")
    assert status == 2
    assert "no structure has an energy" in text
    isomers_only = ("--align-to", tmp_path / "cheap.xyz", "--align-from", tmp_path / "isomers.xyz")
    for options in (("--align-to", tmp_path / "isomers.xyz"), isomers_only):
        status, text = hint(convert, tmp_path / "good.xyz", tmp_path / "d.xyz", *options)
        assert status == 2
        assert "do not determine the energy of the atoms of H2O" in text
        assert not (tmp_path / "d.xyz").exists()


def test_select_density(tmp_path, molecules):
    pytest.importorskip("dscribe")
    out = tmp_path / "chosen"
    status, text = hint(select, molecules, "--out", out, "--fraction", 0.5, "--hessian-fraction", 0.5)
    assert status == 0, text
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["n_input"], summary["n_output"], summary["n_hessians"]) == (9, 4, 2)
    rows = list(csv.DictReader((out / "scores.csv").open()))
    assert len(rows) == 9
    assert sum(float(r["score"]) for r in rows) == pytest.approx(1.0)
    taken = [int(r["index"]) for r in rows if r["selected"] == "1"]
    assert [a.info["reaction"] for a in read_structures(out / "selected.xyz")] == [f"r{i}" for i in taken]
    assert (out / "map.png").stat().st_size > 10_000
    assert "earlier result" in hint(select, molecules, "--out", out)[1]


def test_select_by_energy_drops_hessians_of_the_others(tmp_path, molecules):
    hint(label, molecules, tmp_path / "out.xyz", *ENGINE)
    arguments = ("--method", "energy", "--fraction", 0.5, "--hessian-fraction", 0.34, "--no-map")
    assert hint(select, tmp_path / "out.xyz", "--out", tmp_path / "s", *arguments)[0] == 0
    frames = list(read_structures(tmp_path / "s" / "selected.xyz"))
    assert len(frames) == 3
    assert sum("REF_hessian" in a.info for a in frames) == 1
    status, text = hint(select, molecules, "--out", tmp_path / "t", *arguments)
    assert status == 2
    assert "have no REF_energy" in text


def test_displace(tmp_path):
    write_structures(tmp_path / "cell.xyz", [bulk("PdH", "rocksalt", 4.085)])
    status, text = hint(displace, tmp_path / "cell.xyz", "--out", tmp_path / "d", "--count", 30, "--sigma", 0.4)
    assert status == 0, text
    frames = list(read_structures(tmp_path / "d" / "structures.xyz"))
    assert len(frames) == 30
    assert json.loads((tmp_path / "d" / "summary.json").read_text())["n_output"] == 30
    write(tmp_path / "odd.xyz", molecule("H2O"), format="extxyz")
    pytest.importorskip("geodesic_interpolate")
    status, text = hint(displace, tmp_path / "odd.xyz", "--out", tmp_path / "e", "--method", "path")
    assert status == 1
    assert "no partner" in text
    wrong = molecule("H2O")
    wrong.info["REF_hessian"] = np.zeros(80)
    write_structures(tmp_path / "wrong.xyz", [wrong])
    status, text = hint(displace, tmp_path / "wrong.xyz", "--out", tmp_path / "g", "--method", "normal-modes")
    assert status == 1
    assert "80 numbers" in text
    assert (
        "method: choose gaussian, normal-modes, path"
        in hint(displace, tmp_path / "odd.xyz", "--out", tmp_path / "f", "--method", "jump")[1]
    )


class Extra:
    """A plugin that brings an engine, a reader and a selector."""

    @hookimpl
    def register_label_makers(self):
        return {"quartic": QuarticEngine}

    @hookimpl
    def register_readers(self):
        return {"first-only": first_only}

    @hookimpl
    def register_selectors(self):
        return {
            "last": lambda found, points, count, rng, options: (np.arange(len(found))[-count:], np.zeros(len(found)))
        }


def first_only(path, bad):
    yield next(read_structures(path, bad))


@pytest.fixture
def extra(monkeypatch):
    from importlib.metadata import EntryPoint

    import hint_plugins.plugins as plugins

    entry = EntryPoint("extra", f"{__name__}:Extra", plugins.GROUP)
    monkeypatch.setattr(plugins, "installed_plugins", lambda: {"extra": entry})
    yield
    use(None)


def test_plugins_bring_engines_readers_and_selectors(tmp_path, molecules, extra):
    named = ("--plugins", "extra")
    status, text = hint(label, molecules, tmp_path / "o.xyz", "--engine", "quartic", "--workers", 1, *named)
    assert status == 0, text
    assert "n_done" in (tmp_path / "o.summary.json").read_text()
    assert hint(convert, molecules, tmp_path / "c.xyz", "--format", "first-only", *named)[0] == 0
    assert len(list(read_structures(tmp_path / "c.xyz"))) == 1
    arguments = ("--method", "last", "--fraction", 0.3, "--no-map")
    assert hint(select, molecules, "--out", tmp_path / "s", *arguments, *named)[0] == 0
    assert [a.info["reaction"] for a in read_structures(tmp_path / "s" / "selected.xyz")] == ["r6", "r7", "r8"]
    status, text = hint(label, molecules, tmp_path / "p.xyz", "--plugins", "absent")
    assert status == 2
    assert "'absent' is not installed" in text


def test_a_unit_is_not_given_to_formats_that_have_one(tmp_path):
    """A phonopy file says its unit; multiplying its Hessian again would be wrong by a factor of 50."""
    (tmp_path / "phonopy.yaml").write_text("phonopy: {version: 4.8}\n")
    status, text = hint(convert, tmp_path / "phonopy.yaml", tmp_path / "a.xyz", "--hessian-unit", "Ry/Bohr^2")
    assert status == 2
    assert "phonopy has units of its own" in text


def test_labels_that_do_not_pass_the_check_are_kept_apart(tmp_path):
    """An engine with the wrong sign of the Hessian: nothing of it in OUT, everything in the file of the doubtful."""
    water = molecule("H2O")
    write_structures(tmp_path / "in.xyz", [water])
    engine = "helpers.label_engines:WrongSignEngine"
    status, text = hint(label, tmp_path / "in.xyz", tmp_path / "out.xyz", "--engine", engine, "--workers", "1")
    assert status == 1
    assert "do not pass the check" in text
    summary = json.loads((tmp_path / "out.summary.json").read_text())
    assert (summary["n_failed"], summary["n_hessians"]) == (1, 0)
    (kept,) = read_structures(tmp_path / "out.doubtful.extxyz")
    assert "REF_hessian" in kept.info
    assert "labelled, but" in (tmp_path / "out.failed.csv").read_text()
