"""Frequencies along a path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import read, write

from hint_plugins.objective.metrics import frequencies
from hint_plugins.potential import Potential
from hint_recipes.molecules.paths.fingerprint import fingerprint, orthogonal_frequencies
from hint_recipes.molecules.paths.one_path import run_path
from hint_recipes.molecules.paths.settings import BandSettings
from hint_recipes.molecules.transition_states.reaction import Reaction

HCN = Atoms("HCN", [[0, 0, -1.07], [0, 0, 0], [0, 0, 1.15]])
HNC = Atoms("HCN", [[0, 0, 2.15], [0, 0, 0], [0, 0, 1.17]])


@pytest.fixture(scope="module")
def xtb() -> Potential:
    pytest.importorskip("tblite")
    return Potential.load("tblite:GFN2-xTB")


def test_orthogonal_to_a_normal_mode_leaves_the_others() -> None:
    """With the path along a normal mode, exactly this mode's frequency disappears."""
    atoms = molecule("NH3")
    random = np.random.default_rng(0).normal(size=(12, 12))
    hessian = random @ random.T + np.eye(12)
    waves = frequencies(hessian, atoms)
    roots = np.sqrt(np.repeat(atoms.get_masses(), 3))
    from hint_plugins.objective.metrics import external_modes

    external = external_modes(atoms)
    projector = np.eye(12) - external @ external.T
    values, modes = np.linalg.eigh(projector @ (hessian / np.outer(roots, roots)) @ projector)
    assert (np.abs(values[:6]) < 1e-9).all()
    left = orthogonal_frequencies(hessian, atoms, modes[:, 8])
    assert left == pytest.approx(np.delete(waves, 2), rel=1e-6)


def test_path_of_hcn(xtb: Potential, tmp_path: Path) -> None:
    pytest.importorskip("geodesic_interpolate")
    ends = {"reactant": HCN, "product": HNC}
    settings = BandSettings(images=7, fmax=0.1, steps=200)
    record = run_path("HCN", Reaction("HCN", ends), xtb, settings, tmp_path, "key")
    assert record["converged"], record["reason"]
    assert record["barrier"] == pytest.approx(73.2 * 0.0433641, abs=0.02)
    assert record["n_imaginary_top"] == 1
    written = {path.name for path in (tmp_path / "HCN").iterdir()}
    assert written == {"path.extxyz", "frequencies.csv", "hessians.npz", "fingerprint.png"}


def test_interrupted_band_goes_on_where_it_stood(
    xtb: Potential, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("geodesic_interpolate")
    item = Reaction("HCN", {"reactant": HCN, "product": HNC})
    settings = BandSettings(images=5, fmax=0.1, steps=200)
    evaluate, calls = xtb.evaluate, 0

    def killed(structures, **options):
        nonlocal calls
        calls += len(structures) > 1
        if calls > 25:
            raise KeyboardInterrupt
        return evaluate(structures, **options)

    monkeypatch.setattr(xtb, "evaluate", killed)
    with pytest.raises(KeyboardInterrupt):
        run_path("HCN", item, xtb, settings, tmp_path, "key", checkpoint_every=5)
    monkeypatch.undo()
    assert (tmp_path / "HCN" / "band.extxyz").exists()
    resumed = run_path("HCN", item, xtb, settings, tmp_path, "key")
    whole = run_path("HCN", item, xtb, settings, tmp_path / "whole", "key")
    assert resumed["converged"]
    assert resumed["n_forces"] < whole["n_forces"]
    assert resumed["barrier"] == pytest.approx(whole["barrier"], abs=0.02)


def test_path_of_an_inversion_keeps_its_charge_when_continued(xtb: Potential, tmp_path: Path) -> None:
    """No bond changes; a band that goes on where it stood is still that of the cation."""
    pytest.importorskip("geodesic_interpolate")
    item = Reaction("inversion", {"reactant": hydronium(0.2), "product": hydronium(-0.2)})
    settings = BandSettings(images=5, fmax=0.1, steps=4)
    run_path("inversion", item, xtb, settings, tmp_path, "key", checkpoint_every=1)
    folder = tmp_path / "inversion"
    images = read(folder / "path.extxyz", index=":")
    write(folder / "band.extxyz", [Atoms(a.numbers, a.positions, info={"run": "key"}) for a in images])
    record = run_path("inversion", item, xtb, BandSettings(images=5, fmax=0.1), tmp_path, "key")
    assert record["converged"], record["reason"]
    assert record["barrier_kcal_mol"] == pytest.approx(record["barrier"] / 0.0433641, rel=1e-5)
    images = read(folder / "path.extxyz", index=":")
    assert {atoms.info["charge"] for atoms in images} == {1}
    assert [atoms.info["role"] for atoms in images] == ["reactant", "path", "path", "path", "product"]
    assert images[2].get_potential_energy() == pytest.approx(xtb.evaluate([images[2]]).energies[0], abs=1e-6)


def hydronium(height: float) -> Atoms:
    atoms = molecule("NH3")
    atoms.numbers[0] = 8
    atoms.positions[1:, 2] = atoms.positions[0, 2] - height
    atoms.positions[1:, :2] *= 0.98 / np.linalg.norm(atoms.positions[1] - atoms.positions[0])
    atoms.info["charge"] = 1
    return atoms


def test_end_points_that_do_not_fit_are_named(xtb: Potential, tmp_path: Path) -> None:
    ends = {"reactant": molecule("H2O"), "product": molecule("HCN")}
    record = run_path("odd", Reaction("odd", ends), xtb, BandSettings(), tmp_path, "key")
    assert not record["converged"]
    assert record["reason"].startswith("different_atoms")


def test_end_points_that_do_not_converge_are_named(xtb: Potential, tmp_path: Path) -> None:
    record = run_path(
        "hcn",
        Reaction("hcn", {"reactant": HCN, "product": HNC}),
        xtb,
        BandSettings(end_point_fmax=1e-14),
        tmp_path,
        "key",
    )
    assert record["reason"].startswith("end_point_not_converged")


def test_a_path_needs_images(xtb: Potential) -> None:
    water = molecule("H2O")
    with pytest.raises(ValueError, match="at least 3"):
        fingerprint([water, water], xtb)
    with pytest.raises(ValueError, match="same structure"):
        fingerprint([water] * 3, xtb)
