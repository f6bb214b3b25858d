"""The command line as a whole: start-up, help, directories left behind, formats read, and what the documents say."""

import importlib.util
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import typer
from ase.build import bulk, molecule
from ase.io import write
from typer.testing import CliRunner

from hint_plugins.cli.main import app, extra_with, main
from hint_plugins.storage.store import read_structures

ROOT = Path(__file__).parents[2]
#: What makes a start slow (typer itself brings rich and pydantic, by its version).
HEAVY = {"torch", "numpy", "scipy", "ase", "yaml", "matplotlib", "mace", "fairchem", "phonopy"}
GROUP = typer.main.get_command(app)
CONTEXT = GROUP.make_context("hint", [], resilient_parsing=True)
KNOWN = GROUP.list_commands(CONTEXT)
#: The others hand everything to a host's own parser.
COMMANDS = [
    name for name in KNOWN if not GROUP.get_command(CONTEXT, name).context_settings.get("ignore_unknown_options")
]


def run(*words):
    """Exit status and what was printed, of a command in this process."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, f"{result.output}{result.exception or ''}"


@pytest.mark.parametrize("lines", [["--version"], ["--help"], [f"{name} --help" for name in COMMANDS]], ids=len)
def test_help_starts_without_heavy_imports(lines):
    code = (
        "import sys\nfrom hint_plugins.cli.main import main\n"
        f"for line in {lines!r}:\n"
        "    sys.argv[1:] = line.split()\n"
        "    try:\n        main()\n    except SystemExit as end:\n        assert not end.code\n"
        f"print('HEAVY', *sorted(sys.modules.keys() & {sorted(HEAVY)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY"
    assert len(done.stdout.splitlines()) > len(lines)


def test_every_command_is_available():
    for name in COMMANDS:
        assert "not available" not in GROUP.get_command(CONTEXT, name).help


def test_the_device_is_chosen_in_the_same_words_everywhere():
    found = {}
    for name in COMMANDS:
        options = {option.name: option for option in GROUP.get_command(CONTEXT, name).params}
        if "device" in options:
            assert options["device"].default is None
            found[name] = options["device"].help
        else:
            assert "model" not in options, f"hint {name} works with a model, but has no --device"
    assert set(found.values()) == {"cpu, cuda, ... [default: the GPU when there is one]."}
    assert {"ts", "sscha", "evaluate", "demo", "finetune-hydride"} <= set(found)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_a_default_once(name):
    status, text = run(name, "--help")
    assert status == 0
    text = " ".join(text.split())
    assert not re.search(r"default: [^\])]*[\])] *[\[(]default", text)


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("w.xyz", molecule("H2O"))
    write("cu.xyz", bulk("Cu"))
    Path("bad.xyz").write_text("garbage\n")
    Path("bad.model").write_text("junk")
    return tmp_path


@pytest.mark.parametrize(
    "line",
    [
        "check nofile.xyz --out new/a",
        "convert nofile.xyz new/a/out.xyz",
        "convert w.xyz new/a/out.aselmdb --set foo=1",
        "convert w.xyz new/a/out.xyz --format nosuch",
        "displace nofile.xyz --out new/a",
        "displace w.xyz --method nosuch --out new/a",
        "doctor --model bad.model --out new/a",
        "evaluate bad.model w.xyz --out new/a",
        "evaluate emt nofile.xyz --out new/a",
        "label nofile.xyz new/a/l.xyz",
        "label w.xyz new/a/l.xyz --engine nosuch:thing",
        "select bad.xyz --out new/a",
        "select w.xyz --method nosuch --out new/a",
        "gibbs bad.xyz --model emt --out new/a",
        "ts w.xyz --model emt --out new/a",
        "path w.xyz --model emt --out new/a",
        "stability w.xyz --model bad.model --out new/a",
        "phonons bad.xyz --model emt --out new/a",
        "phonons cu.xyz --model bad.model --out new/a",
        "phonons cu.xyz --out new/a",
        "tc bad.xyz --out new/a",
        "sscha cu.xyz --model bad.model --out new/a",
        "rank bad.xyz --model emt --out new/a",
        "finetune-hydride bad.xyz --hessian bad.model --cells bad.xyz --cell-energy 0 --out new/a",
        "demo --structures 2 --labelled 3 --out new/a",
    ],
)
def test_failed_command_leaves_no_directory(inputs, line):
    status, text = run(*line.split())
    assert status, text
    assert not Path("new").exists(), sorted(map(str, Path("new").rglob("*")))


def test_failed_command_leaves_what_was_there(inputs):
    Path("old/a/empty").mkdir(parents=True)
    status, _ = run("evaluate", "bad.model", "w.xyz", "--out", "old/a")
    assert status
    assert Path("old/a/empty").is_dir()


def test_results_of_a_command_with_bad_items_stay(inputs):
    status, _ = run("check", "bad.xyz", "--out", "new/a")
    assert status == 1
    assert Path("new/a/summary.json").is_file()


@pytest.mark.parametrize(
    ("module", "extra", "line"),
    [
        ("geodesic_interpolate", "mace,xtb,datasets", "demo --out new/a"),
        ("mace", "mace,xtb,datasets", "demo --out new/a"),
        ("phonopy", "datasets", "phonons cu.xyz --model emt --out new/a"),
        ("sella", "ts", "ts w.xyz --model emt --out new/a"),
        ("pyscf", "ts", "gibbs w.xyz --model emt --out new/a"),
        ("ase_db_backends", "datasets", "convert w.xyz new/a/out.aselmdb"),
    ],
)
def test_missing_package_is_named_before_any_work(inputs, monkeypatch, capsys, module, extra, line):
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == module else find_spec(name))
    monkeypatch.setattr(sys, "argv", ["hint", *line.split()])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert module in message
    assert f"hint-plugins[{extra}]" in message
    assert not Path("new").exists()


def test_every_optional_module_belongs_to_an_extra():
    modules = ["mace", "fairchem", "tblite", "pyscf", "dscribe", "sklearn", "geodesic_interpolate", "h5py", "lmdb"]
    modules += [
        "orjson",
        "ase_db_backends",
        "pyarrow",
        "phonopy",
        "parsl",
        "sella",
        "spglib",
        "cellconstructor",
        "sscha",
    ]
    assert all(extra_with(module) for module in modules)
    assert extra_with("numpy") is None


@pytest.mark.parametrize("name", ["POSCAR", "cu.cif", "cu.traj", "cu.extxyz", "postgres.cif"])
def test_commands_read_every_format_of_ase(inputs, name):
    write(inputs / name, bulk("Cu", cubic=True), **({"format": "vasp"} if name == "POSCAR" else {}))
    assert run("displace", name, "--count", 3, "--out", "displaced")[0] == 0
    assert [len(atoms) for atoms in read_structures("displaced/structures.xyz")] == [4, 4, 4]
    assert run("check", name)[0] == 0
    assert run("convert", name, "out.xyz")[0] == 0
    assert run("select", name, "--method", "random", "--fraction", 1, "--no-map", "--out", "selected")[0] == 0
    assert run("doctor", "--model", "emt", "--structures", name)[0] == 0
    words = ("--engine", "ase", "--calculator", "emt", "--kind", "forces", "--workers", 1)
    assert run("label", name, "labels.xyz", *words)[0] == 0
    (labelled,) = read_structures("labels.xyz")
    assert labelled.pbc.all()
    assert labelled.info["REF_energy"] == pytest.approx(-0.022726, abs=1e-5)
    assert run("evaluate", "emt", "labels.xyz", "--out", "errors")[0] == 0


def test_sites_occupied_in_part_are_refused(inputs):
    write("alloy.cif", bulk("Cu", cubic=True))
    text = Path("alloy.cif").read_text()
    assert " 1.0000\n" in text
    Path("alloy.cif").write_text(text.replace(" 1.0000\n", " 0.5000\n"))
    status, message = run("displace", "alloy.cif", "--out", "displaced")
    assert status == 1
    assert "occupied in part" in message


def test_labels_of_a_trajectory_are_read(inputs):
    from ase.calculators.singlepoint import SinglePointCalculator

    frames = [molecule("H2O"), molecule("NH3")]
    for number, atoms in enumerate(frames):
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0 - number, forces=0.5 * atoms.positions)
    write("labelled.traj", frames)
    assert [atoms.info["REF_energy"] for atoms in read_structures("labelled.traj")] == [-1.0, -2.0]


@pytest.mark.parametrize("content", ["", "no structure\n", "{}"])
@pytest.mark.parametrize(
    "command", ["check {}", "displace {} --out new", "label {} l.xyz", "gibbs {} --model emt --out g"]
)
def test_what_is_no_structure_is_refused_with_its_name(inputs, content, command):
    Path("input.json").write_text(content)
    status, text = run(*command.format("input.json").split())
    assert status in (1, 2)
    assert "input.json" in text or "structure 0" in text or Path("l.failed.csv").exists()


# ------------------------------------------------------------------------------------------- command lines of the docs


def documents():
    return sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def command_lines(path):
    """Shell lines of fenced and indented blocks (continuation lines joined, comments taken off), and those in text.

    The latter may leave out what is required; ``whole`` says which must not.
    """
    fenced = False
    for line in path.read_text().replace("\\\n", " ").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced and line.strip()[3:] in ("", "bash", "sh", "console")
        elif fenced or line.startswith("    "):
            words = re.sub(r"^(\w+=\S+ )+", "", re.sub(r"\s#.*", "", line).strip())
            if re.match(PROGRAMS, words):
                yield words, not any(sign in words for sign in ("...", "|", "$", "<"))
        else:
            yield from ((words, False) for words in re.findall(f"`({PROGRAMS} [^`|]+)`", line))


PROGRAMS = r"(?:hint|make|mace_run_train|mace_prepare_data|python|scripts/\S+)\b"


@cache
def mace_options():
    from mace.tools.arg_parser import build_default_arg_parser

    from hint_mace.install import load_plugins
    from hint_mace.options import extend_parser

    parser = extend_parser(build_default_arg_parser(), load_plugins(["hint"]))
    return set(parser._option_string_actions)


def options_of(name):
    command = GROUP.get_command(CONTEXT, name)
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_documented_commands_exist(path):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    wrong = []
    for line, whole in command_lines(path):
        program, *words = shlex.split(line)
        given = [word.partition("=")[0] for word in words if word.startswith("--")]
        if program == "make":
            wrong += [line] * (words[0] not in targets)
        elif program == "python" or program.startswith("scripts/"):
            script = program if program.startswith("scripts/") else words[0]
            wrong += [line] * ("/" in script and not (ROOT / script).exists())
        elif program.startswith("mace_"):
            pytest.importorskip("mace")
            wrong += [f"{line}: {option}" for option in given if option not in mace_options() | {"--plugins", "--help"}]
        elif words[0] in COMMANDS:
            wrong += [f"{line}: {option}" for option in given if option not in options_of(words[0]) | {"--help"}]
            wrong += [f"{line}: {problem}" for problem in refusal(words) if whole]
        elif "|" not in words and words[0] not in KNOWN and not words[0].startswith("--"):
            wrong.append(f"{line}: no such command")
    assert not wrong


def refusal(words):
    """What the command line interface says against a line, if anything."""
    try:
        GROUP.get_command(CONTEXT, words[0]).make_context(words[0], words[1:])
    except Exception as error:  # click's, or what typer made of them
        yield getattr(error, "message", None) or repr(error)
