"""Damaged files in bulk: never a traceback, always the place in the message, and good structures survive."""

import gzip

import pytest
from helpers.mutations import damaged_files
from helpers.structures import labelled_set
from typer.testing import CliRunner

from hint_plugins.cli.main import app
from hint_plugins.datasets.convert import ConversionReport, checked
from hint_plugins.datasets.reading import read_dataset
from hint_plugins.labels.structure_check import check_structure
from hint_plugins.storage.store import StoreError, read_numbered, write_structures


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "a.xyz"
    write_structures(path, labelled_set(4, every=1))
    return path.read_text()


def test_hundreds_of_damages(text, tmp_path):
    """`hint check` and `hint convert` see each of them, in the same place, and keep the other three structures."""
    path = tmp_path / "a.xyz"
    for kind, which, content in damaged_files(text, 300, seed=0):
        path.write_bytes(content)
        bad: dict[int, str] = {}
        good = []
        for index, atoms in read_numbered(path, bad.__setitem__):
            if reason := check_structure(atoms)["reason"]:
                bad[index] = reason
            else:
                good.append(index)
        assert set(bad) == {which}, (kind, bad, content[:300])
        assert len(good) == 3, (kind, bad)
        report = ConversionReport()
        passed = list(checked(read_dataset(path, bad=report.add_unreadable), report))
        assert [entry["index"] for entry in report.bad] == [which], (kind, report.bad)
        assert len(passed) == 3


@pytest.mark.parametrize("command", ["check", "convert", "evaluate"])
def test_commands_name_file_and_place(text, tmp_path, command):
    path = tmp_path / "a.xyz"
    for kind, which, content in damaged_files(text, 12, seed=1):
        path.write_bytes(content)
        out = tmp_path / "out"
        arguments = {
            "check": ["check", path],
            "convert": ["convert", path, tmp_path / "o.xyz", "--overwrite"],
            "evaluate": ["evaluate", "emt", path, "--out", out, "--overwrite", "--max-hessians", "0"],
        }[command]
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exit_code == 1, (kind, result.output, result.exception)
        assert f"{path}, {'record' if command == 'convert' else 'structure'} {which}" in result.output, kind


@pytest.mark.parametrize("where", [0.2, 0.5, 0.8])
def test_flipped_bits_of_gzip(text, tmp_path, where):
    path = tmp_path / "a.xyz.gz"
    content = bytearray(gzip.compress(text.encode()))
    content[int(where * len(content))] ^= 0x10
    path.write_bytes(bytes(content))
    bad: dict[int, str] = {}
    for index, atoms in read_numbered(path, bad.__setitem__):
        if reason := check_structure(atoms)["reason"]:
            bad[index] = reason
    assert bad
    result = CliRunner().invoke(app, ["check", str(path)])
    assert result.exit_code == 1
    assert str(path) in result.output


@pytest.mark.parametrize("name", ["a.xyz", "a.extxyz", "a.xyz.gz"])
def test_empty_files_and_links_in_a_circle(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"") if name.endswith("gz") else b"")
    with pytest.raises(StoreError, match="holds no structures"):
        list(read_numbered(path))
    for command in (["check", path], ["convert", path, tmp_path / "o.xyz"]):
        result = CliRunner().invoke(app, [str(a) for a in command])
        assert "holds no structures" in str(result.exception)
    path.unlink()
    path.symlink_to(path)
    for command in (["check", path], ["convert", path, tmp_path / "o.xyz"], ["evaluate", "emt", path, "--out", path]):
        result = CliRunner().invoke(app, [str(a) for a in command])
        assert "no such file" in str(result.exception), (command, result.exception)
