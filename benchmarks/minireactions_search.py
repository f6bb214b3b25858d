"""Find the stationary points that ``hint_plugins/datasets/minireactions.json`` holds.

Reactants and products come from ASE's g2 collection and a few coordinates typed here; atoms are matched by the
smallest number of changed bonds, a geodesic path is drawn, its highest image is refined to a first-order saddle
point of GFN2-xTB (eigenvector following with exact Hessians), and both sides are followed downhill to the minima.

    python benchmarks/minireactions_search.py OUT.json [NAME ...]
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import minimize_rotation_and_translation, molecule
from ase.data import covalent_radii
from ase.optimize import BFGS
from tblite.ase import TBLite

from hint_plugins.labelling.engine import EngineSpec
from hint_plugins.labelling.make import make_label
from hint_plugins.labelling.record import LabelTask

HNC = Atoms("HCN", [[0, 0, 2.16], [0, 0, 0], [0, 0, 1.17]])
VINYL_ALCOHOL = Atoms(
    "C2OH4",
    [[-1.23, -0.19, 0], [0.01, 0.33, 0], [1.12, -0.46, 0], [-2.11, 0.43, 0], [-1.36, -1.26, 0],
     [0.19, 1.40, 0], [1.91, 0.08, 0]],
)  # fmt: skip
CH3NC = Atoms(
    "C2NH3",
    [[0, 0, -1.42], [0, 0, 1.18], [0, 0, 0], [1.03, 0, -1.79], [-0.515, 0.892, -1.79], [-0.515, -0.892, -1.79]],
)
HCOH = Atoms("CHOH", [[0, 0, 0], [-1.06, 0.3, 0], [0.45, -1.23, 0], [1.41, -1.18, 0]])
CH2NH = Atoms("CNH3", [[0, 0, 0], [0, 1.27, 0], [0.94, -0.55, 0], [-0.94, -0.55, 0], [0.92, 1.65, 0]])

REACTIONS: dict[str, tuple[list, list]] = {
    "hydrogen cyanide = hydrogen isocyanide": (["HCN"], [HNC]),
    "vinyl alcohol = acetaldehyde": ([VINYL_ALCOHOL], ["CH3CHO"]),
    "formaldehyde = hydrogen + carbon monoxide": (["H2CO"], ["H2", "CO"]),
    "formaldehyde = hydroxycarbene": (["H2CO"], [HCOH]),
    "formic acid = carbon dioxide + hydrogen": (["HCOOH"], ["CO2", "H2"]),
    "formic acid = carbon monoxide + water": (["HCOOH"], ["CO", "H2O"]),
    "methanol = formaldehyde + hydrogen": (["CH3OH"], ["H2CO", "H2"]),
    "methyl isocyanide = acetonitrile": ([CH3NC], ["CH3CN"]),
    "allene = propyne": (["C3H4_D2d"], ["C3H4_C3v"]),
    "cyclopropene = propyne": (["C3H4_C2v"], ["C3H4_C3v"]),
    "cyclopropane = propene": (["C3H6_D3h"], ["C3H6_Cs"]),
    "oxirane = acetaldehyde": (["CH2OCH2"], ["CH3CHO"]),
    "cyclobutene = butadiene": (["cyclobutene"], ["butadiene"]),
    "ethanol = ethene + water": (["CH3CH2OH"], ["C2H4", "H2O"]),
    "ethane = ethene + hydrogen": (["C2H6"], ["C2H4", "H2"]),
    "methylamine = methanimine + hydrogen": (["H3CNH2"], [CH2NH, "H2"]),
    "acetaldehyde = methane + carbon monoxide": (["CH3CHO"], ["CH4", "CO"]),
    "chloroethane = ethene + hydrogen chloride": (["CH3CH2Cl"], ["C2H4", "HCl"]),
    "ketene = methylene + carbon monoxide": (["H2CCO"], ["CO", "CH2_s1A1d"]),
    "glyoxal = formaldehyde + carbon monoxide": (["OCHCHO"], ["H2CO", "CO"]),
}


def build(parts: list, gap: float = 2.6) -> Atoms:
    """Fragments side by side."""
    whole = Atoms()
    for part in parts:
        atoms = molecule(part) if isinstance(part, str) else part.copy()
        atoms.set_initial_magnetic_moments(None)
        atoms.positions -= atoms.positions.mean(axis=0)
        if len(whole):
            atoms.positions[:, 0] += whole.positions[:, 0].max() - atoms.positions[:, 0].min() + gap
        whole += atoms
    return whole


def bonds(atoms: Atoms) -> np.ndarray:
    radii = covalent_radii[atoms.numbers]
    return (atoms.get_all_distances() < 1.25 * (radii[:, None] + radii[None])) & ~np.eye(len(atoms), dtype=bool)


def match(reactant: Atoms, product: Atoms) -> Atoms:
    """Reorder the product's atoms: fewest changed bonds, then the shortest way."""
    a, b = bonds(reactant), bonds(product)
    pools = {z: np.flatnonzero(product.numbers == z) for z in set(reactant.numbers)}
    best: list[tuple[int, np.ndarray]] = []
    for combination in itertools.product(*(itertools.permutations(p) for p in pools.values())):
        order = np.empty(len(reactant), dtype=int)
        for z, chosen in zip(pools, combination, strict=True):
            order[reactant.numbers == z] = chosen
        changed = int((a != b[np.ix_(order, order)]).sum())
        if not best or changed < best[0][0]:
            best = [(changed, order)]
        elif changed == best[0][0] and len(best) < 400:
            best.append((changed, order))
    candidates = []
    for _, order in best:
        other = product[order]
        minimize_rotation_and_translation(reactant, other)
        candidates.append((np.linalg.norm(other.positions - reactant.positions), other))
    return min(candidates, key=lambda c: c[0])[1]


def relax(atoms: Atoms, fmax: float = 0.01, steps: int = 400) -> Atoms:
    atoms = atoms.copy()
    atoms.calc = TBLite(method="GFN2-xTB", accuracy=0.01, verbosity=0)
    BFGS(atoms, logfile=None, maxstep=0.1).run(fmax=fmax, steps=steps)
    return atoms


def saddle(atoms: Atoms, steps: int = 80) -> tuple[Atoms, np.ndarray, np.ndarray] | None:
    """Eigenvector following: uphill along the lowest mode, downhill along the others."""
    engine = EngineSpec("xtb").build()
    atoms = atoms.copy()
    for _ in range(steps):
        record = make_label(engine, atoms, LabelTask("full"))
        dim = 3 * len(atoms)
        forces = np.reshape(record["forces"], dim)
        hessian = np.reshape(record["hessian"], (dim, dim))
        r = atoms.positions - atoms.positions.mean(axis=0)
        frame = [np.tile(e, len(atoms)) for e in np.eye(3)] + [np.cross(e, r).ravel() for e in np.eye(3)]
        q, s, _ = np.linalg.svd(np.array(frame).T, full_matrices=True)
        inner = q[:, int((s > 1e-3).sum()) :]
        values, vectors = np.linalg.eigh(inner.T @ hessian @ inner)
        modes = inner @ vectors
        if np.abs(forces).max() < 5e-3:
            return (atoms, values, modes) if (values < -0.1).sum() == 1 else None
        along = modes.T @ forces
        along[0] *= -1
        step = modes @ (along / (np.abs(values) + 0.3))
        atoms.positions += (step * min(1.0, 0.15 / np.abs(step).max())).reshape(-1, 3)
    return None


def find(name: str, reactant: Atoms, product: Atoms) -> dict | None:
    from hint_plugins.selection.displacement import interpolate

    product = match(reactant, product)
    images = interpolate(reactant, product, 13)
    energies = []
    for image in images:
        image.calc = TBLite(method="GFN2-xTB", accuracy=0.1, verbosity=0)
        energies.append(image.get_potential_energy())
    for index in np.argsort(energies)[::-1][:4]:
        found = saddle(images[index])
        if found is None:
            continue
        top, values, modes = found
        ends = []
        for sign in (1, -1):
            start = top.copy()
            start.positions += sign * 0.08 * modes[:, 0].reshape(-1, 3) / np.abs(modes[:, 0]).max()
            ends.append(relax(start))
        if (bonds(ends[0]) == bonds(ends[1])).all():
            continue
        if (bonds(ends[0]) != bonds(reactant)).sum() > (bonds(ends[1]) != bonds(reactant)).sum():
            ends.reverse()
        if (bonds(ends[0]) != bonds(reactant)).any():
            name = f"{name} (other path)"
        reference = top.copy()
        top.calc = TBLite(method="GFN2-xTB", accuracy=0.01, verbosity=0)
        barrier = [top.get_potential_energy() - e.get_potential_energy() for e in ends]
        for end in ends:
            minimize_rotation_and_translation(reference, end)
        print(name, len(top), "curvature", round(values[0], 2), "barriers eV", np.round(barrier, 2), flush=True)
        return {
            "name": name,
            "symbols": str(top.symbols),
            "numbers": top.numbers.tolist(),
            "barriers_eV": np.round(barrier, 3).tolist(),
            **{
                role: np.round(a.positions, 5).tolist()
                for role, a in (("reactant", ends[0]), ("ts", reference), ("product", ends[1]))
            },
        }
    print(name, "no saddle point", flush=True)
    return None


def main(out: str, *names: str) -> None:
    found = []
    for name, (left, right) in REACTIONS.items():
        if names and name not in names:
            continue
        try:
            entry = find(name, build(left), build(right))
        except Exception as error:
            print(name, "failed:", error, flush=True)
            continue
        if entry:
            found.append(entry)
        Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
