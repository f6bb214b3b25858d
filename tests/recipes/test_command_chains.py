"""What one command writes is what the next one needs: every pair of commands, with a deuterated cation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms
from ase.io import read, write
from typer.testing import CliRunner

from hint_plugins.cli.main import app
from hint_plugins.potential import Potential
from hint_plugins.storage.store import read_structures
from hint_plugins.structures.copies import bare, moved
from hint_plugins.structures.frozen import free_components
from hint_recipes.cli.inputs import read_frames
from hint_recipes.molecules.transition_states.reaction import check_reaction, group_reactions

XTB = "tblite:GFN2-xTB"
MASSES = [2.014, 12.0, 15.995]
TAGS = [1, 2, 3]


def run(*arguments: Any, status: int = 0) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.output


def cation(role: str, z: float, bond: float) -> Atoms:
    """Formyl (DCO+) or isoformyl (DOC+) cation; neutral it would be a radical, 10 eV higher in energy."""
    info = {"reaction": "formyl", "role": role, "charge": 1, "spin": 1, "symmetry_number": 1}
    return Atoms("HCO", [[0, 0, z], [0, 0, 0], [0, 0, bond]], info=info, masses=MASSES, tags=TAGS)


@pytest.fixture(scope="module")
def produced(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The structures that every command writes, each made from those of the command before."""
    for library in ("tblite", "sella", "geodesic_interpolate", "pyscf"):
        pytest.importorskip(library)
    out = tmp_path_factory.mktemp("chain")
    start = out / "start.xyz"
    write(start, [cation("reactant", -1.09, 1.11), cation("product", 2.11, 1.13)], format="extxyz")
    run("label", start, out / "label.xyz", "--workers", 1)
    run("convert", out / "label.xyz", out / "convert.aselmdb")
    run("select", out / "label.xyz", "--out", out / "select", "--method", "random", "--fraction", 1, "--no-map")
    run("displace", out / "label.xyz", "--out", out / "displace", "--count", 1, "--sigma", 0.01)
    run("ts", out / "label.xyz", "--model", XTB, "--out", out / "ts", "--path", "geodesic", "--images", 7)
    run("gibbs", out / "ts" / "stationary_points.extxyz", "--model", XTB, "--out", out / "gibbs")
    run("path", out / "gibbs" / "structures.extxyz", "--model", XTB, "--out", out / "path", "--images", 5, "--steps", 5,
        "--end-point-fmax", 0, status=1)  # fmt: skip
    run("stability", out / "gibbs" / "structures.extxyz", "--model", XTB, "--out", out / "stability",
        "--interval", 0.001, "--max-temperature", 1)  # fmt: skip
    one = out / "ts" / "reactions" / "formyl"
    return {
        "label": out / "label.xyz",
        "convert": out / "convert.aselmdb",
        "select": out / "select" / "selected.xyz",
        "displace": out / "displace" / "structures.xyz",
        "ts": out / "ts" / "stationary_points.extxyz",
        "saddle": one / "ts.extxyz",
        "irc": one / "irc.extxyz",
        "guess": one / "path.extxyz",
        "gibbs": out / "gibbs" / "structures.extxyz",
        "path": out / "path" / "paths" / "formyl" / "path.extxyz",
        "stability": out / "stability" / "final.extxyz",
    }


@pytest.fixture(scope="module")
def frames(produced: dict[str, Path]) -> dict[str, list[Atoms]]:
    return {name: read_frames([path]) for name, path in produced.items()}


ENDS = ["reactant", "product"]
ROLES = {
    "label": ENDS,
    "convert": ENDS,
    "select": ENDS,
    "displace": ENDS,
    "ts": ["reactant", "ts", "product"],
    "saddle": ["ts"],
    "gibbs": ["reactant", "ts", "product"],
    "guess": ["reactant", *["path"] * 5, "product"],
    "path": ["reactant", *["path"] * 3, "product"],
    "stability": ["reactant", "ts", "product"],
}


@pytest.mark.parametrize("name", [*ROLES, "irc"])
def test_a_written_structure_keeps_what_it_is(frames: dict[str, list[Atoms]], name: str) -> None:
    found = frames[name]
    roles = [atoms.info["role"] for atoms in found]
    if name == "irc":
        assert (roles[0], roles[-1], roles.count("ts")) == ("reactant", "product", 1)
        assert set(roles[1:-1]) == {"path", "ts"}
    else:
        assert roles == ROLES[name]
    for atoms in found:
        assert (atoms.info["charge"], atoms.info["spin"]) == (1, 1)
        assert atoms.info["reaction"] == "formyl"
        assert atoms.get_masses() == pytest.approx(MASSES)
        assert atoms.get_tags().tolist() == TAGS
        assert not atoms.pbc.any()
        given = name in ("label", "convert", "select", "displace") or (atoms.info["role"] in ENDS and name not in (
            "irc", "guess", "path"))  # fmt: skip
        assert ("symmetry_number" in atoms.info) == given
    if name not in ("label", "convert", "select", "displace"):
        check_reaction(group_reactions(found)[0]) if set(ENDS) <= set(roles) else None


def test_frequencies_stay_with_the_saddle(frames: dict[str, list[Atoms]]) -> None:
    for name in ("irc", "ts", "path", "guess", "stability", "displace"):
        carrying = [atoms.info["role"] for atoms in frames[name] if "frequencies_cm1" in atoms.info]
        assert carrying == (["ts"] if name in ("irc", "ts") else [])
    for atoms in frames["stability"]:
        assert not {"REF_energy", "gibbs", "n_imaginary"} & set(atoms.info)


def test_every_next_command_computes_the_cation(
    produced: dict[str, Path], frames: dict[str, list[Atoms]], tmp_path: Path
) -> None:
    """Every command reads every output; where energies are computed they are those of the cation."""
    gathered = []
    for name, found in frames.items():
        for k, atoms in enumerate(found):
            if atoms.info["role"] != "path":
                copy = atoms.copy()
                copy.info |= {"reaction": f"formyl {name}", "name": f"{name} {k}"}
                gathered.append(copy)
    expected = Potential.load(XTB).evaluate(gathered).energies
    assert (expected < -160).all()  # eV; the radicals lie near -155
    every = tmp_path / "every.xyz"
    write(every, gathered, format="extxyz")
    words = ["--model", XTB, "--out"]

    run("label", every, tmp_path / "label.xyz", "--kind", "forces", "--workers", 1)
    labelled = list(read_structures(tmp_path / "label.xyz"))
    assert [atoms.info["REF_energy"] for atoms in labelled] == pytest.approx(expected, abs=1e-5)
    run("check", tmp_path / "label.xyz")
    run("evaluate", XTB, tmp_path / "label.xyz", "--out", tmp_path / "evaluate")
    errors = json.loads((tmp_path / "evaluate" / "summary.json").read_text())
    assert errors["energy_mae_per_atom"] < 1e-5
    run("convert", tmp_path / "label.xyz", tmp_path / "convert.aselmdb")
    run("select", every, "--out", tmp_path / "select", "--method", "random", "--fraction", 1, "--no-map")
    run("displace", every, "--out", tmp_path / "displace", "--count", 1, "--sigma", 0.01)
    moved_energies = Potential.load(XTB).evaluate(read_frames([tmp_path / "displace" / "structures.xyz"])).energies
    assert moved_energies == pytest.approx(expected, abs=0.3)

    run("gibbs", every, *words, tmp_path / "gibbs", "--no-relax")
    rows = json.loads((tmp_path / "gibbs" / "summary.json").read_text())["structures"]
    assert [row["energy"] for row in rows] == pytest.approx(expected, abs=1e-5)
    assert {row["multiplicity"] for row in rows} == {1}
    run("stability", every, *words, tmp_path / "md", "--interval", 0.001, "--max-temperature", 1)
    run("path", produced["irc"], "--as-is", *words, tmp_path / "path")
    top = json.loads((tmp_path / "path" / "summary.json").read_text())["paths"][0]
    first = json.loads((produced["ts"].parent / "summary.json").read_text())["reactions"][0]
    assert top["barrier"] == pytest.approx(first["barrier"], abs=1e-4)
    run("ts", produced["irc"], *words, tmp_path / "ts", "--path", "geodesic", "--images", 7)
    again = json.loads((tmp_path / "ts" / "summary.json").read_text())["reactions"][0]
    assert again["barrier"] == pytest.approx(first["barrier"], abs=1e-4)
    assert again["ts_rmsd"] < 0.01


def test_frozen_atoms_stay_frozen_through_files(tmp_path: Path) -> None:
    atoms = cation("reactant", -1.09, 1.11)
    atoms.set_constraint(FixAtoms([1]))
    write(tmp_path / "start.xyz", atoms, format="extxyz")
    run("select", tmp_path / "start.xyz", "--out", tmp_path / "select", "--method", "random", "--fraction", 1,
        "--no-map")  # fmt: skip
    run("displace", tmp_path / "start.xyz", "--out", tmp_path / "displace", "--count", 1)
    for path in (tmp_path / "select" / "selected.xyz", tmp_path / "displace" / "structures.xyz"):
        assert free_components(read(path)).all(axis=1).tolist() == [True, False, True]


def test_bare_and_moved() -> None:
    """What is kept is kept, what was computed is not."""
    atoms = cation("reactant", -1.09, 1.11)
    atoms.set_constraint(FixAtoms([0]))
    atoms.cell, atoms.pbc = np.diag([9.0, 9.0, 20.0]), [True, True, False]
    atoms.set_initial_charges([1, 0, 0])
    atoms.set_initial_magnetic_moments([0, 0, 0.5])
    atoms.info |= {"name": "a", "REF_energy": -1.0, "frequencies_cm1": np.zeros(3), "note": "of mine"}
    atoms.arrays["REF_forces"] = np.zeros((3, 3))
    atoms.set_momenta(np.ones((3, 3)), apply_constraint=False)
    place = atoms.positions + 1.0
    for function, dropped in ((bare, set()), (moved, {"name", "role", "symmetry_number"})):
        found = function(atoms, place)
        assert np.array_equal(found.positions, place)  # the frozen atom too
        assert set(found.info) == {"charge", "spin", "name", "reaction", "role", "symmetry_number"} - dropped
        assert set(found.arrays) == {
            "numbers", "positions", "masses", "tags", "initial_charges", "initial_magmoms"}  # fmt: skip
        assert np.array_equal(found.cell, atoms.cell)
        assert found.pbc.tolist() == [True, True, False]
        assert free_components(found).all(axis=1).tolist() == [False, True, True]
    assert "REF_forces" in atoms.arrays
