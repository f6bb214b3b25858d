"""The script that builds python-sscha: what it asks of the system, and the PATH that it builds with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "env_sscha.sh"
SYSTEM = ("bash", "cat", "tr", "dirname", "basename", "mktemp", "rm", "mkdir", "find", "ln", "env", "id")


@pytest.fixture
def machine(tmp_path):
    """Programs that stand for those of a system, and a relative virtual environment that records what is asked."""
    (tmp_path / "bin").mkdir()
    for name in SYSTEM:
        (tmp_path / "bin" / name).symlink_to(next(p for p in (f"/usr/bin/{name}", f"/bin/{name}") if Path(p).exists()))
    stub(tmp_path / "bin/pkg-config", 'test "$1" != --exists || test -e lapack')
    stub(tmp_path / "bin/gcc", "test -e compilers")
    stub(tmp_path / "bin/gfortran", "test -e compilers")
    stub(
        tmp_path / "bin/apt-get",
        'echo "$@" >>asked; if test -e allowed; then : >compilers; : >lapack; else exit 100; fi',
    )
    stub(tmp_path / "bin/sudo", "exit 1")
    stub(tmp_path / "bin/mpicc", "exit 1")
    venv = tmp_path / ".venv/bin"
    venv.mkdir(parents=True)
    (tmp_path / "include").mkdir()
    (tmp_path / "include/Python.h").touch()
    stub(
        venv / "python",
        f"""case "$*" in
            *"import cellconstructor, sscha"*) echo done ;;
            *"import cellconstructor"* | *"import sscha"*) exit 1 ;;
            *sys.executable*) echo {venv}/python ;;
            *'get_path("scripts")'*) echo {venv} ;;
            *'get_path("include")'*) echo {tmp_path}/include ;;
            *no-build-isolation*) echo "$PATH" >>build_path ; command -v mpicc >>mpi ; true ;;
            *"-m pip"*) ;;
            *) {sys.executable} "$@" ;;
        esac""",
    )
    return tmp_path


def stub(path, body):
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


def build(machine):
    environment = {"PATH": f"{machine}/bin", "HOME": str(machine), "TMPDIR": os.environ.get("TMPDIR", "/tmp")}
    return subprocess.run(
        [SCRIPT, ".venv/bin/python"], cwd=machine, env=environment, capture_output=True, text=True, check=False
    )


def test_build_finds_meson_from_every_directory(machine):
    (machine / "compilers").touch()
    (machine / "lapack").touch()
    done = build(machine)
    assert not done.returncode, done.stderr
    for line in (machine / "build_path").read_text().splitlines():
        directories = line.split(":")
        assert directories[0] == f"{machine}/.venv/bin"
        assert all(directory.startswith("/") for directory in directories)
    assert not (machine / "mpi").read_text()
    assert not (machine / "asked").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="asks for system packages as root only")
def test_missing_compilers_are_installed_where_that_is_allowed(machine):
    (machine / "allowed").touch()
    done = build(machine)
    assert not done.returncode, done.stderr
    asked = (machine / "asked").read_text()
    for package in ("gcc", "gfortran", "libc6-dev", "pkg-config", "libopenblas-dev", "liblapack-dev"):
        assert package in asked.split()


@pytest.mark.parametrize("what", ["compilers", "lapack", "include/Python.h"])
def test_what_cannot_be_had_is_named(machine, what):
    for name in {"compilers", "lapack"} - {what}:
        (machine / name).touch()
    if what == "include/Python.h":
        (machine / what).unlink()
    done = build(machine)
    assert done.returncode == 2
    named = {"compilers": "Fortran compiler", "lapack": "LAPACK", "include/Python.h": "headers of Python"}[what]
    assert named in done.stderr.splitlines()[-1]
    assert "apt-get install" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (machine / "build_path").exists()
