"""A mini reaction data set of our own: geometries along and around small reactions, split by reaction.

Reactant, transition state and product of every reaction are stationary points of GFN2-xTB, found by
``benchmarks/minireactions_search.py`` from ASE's g2 collection and kept in ``minireactions.json``. Between them run
geodesic paths; around every image lie samples of its harmonic distribution. One command makes and labels it all::

    python -m hint_plugins.datasets.minireactions OUTDIR
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from ase import Atoms
from ase.build import molecule

from hint_plugins.selection.displacement import gaussian, interpolate, normal_modes

#: Small closed-shell molecules of H, C, N, O in ASE's g2 collection, as company for the reactions.
MOLECULES = (
    *("H2O", "NH3", "CH4", "C2H2", "C2H4", "C2H6", "HCN", "H2CO", "CH3OH", "H2CCO", "CH3CN", "HCOOH"),
    *("CH3OCH3", "N2H4", "H2O2", "CO2", "CH3CHO", "H3CNH2", "C3H8", "CH3CONH2", "CH3COOH", "HCOOCH3"),
    *("OCHCHO", "CH2NHCH2"),
)


@dataclass(frozen=True)
class Reaction:
    """Three stationary points with the same atoms in the same order, and the forward barrier (eV, GFN2-xTB)."""

    name: str
    reactant: Atoms
    ts: Atoms
    product: Atoms
    barrier: float


def reactions() -> list[Reaction]:
    """The stored reactions, always in the same order."""
    content = json.loads(files("hint_plugins.datasets").joinpath("minireactions.json").read_text())
    return [
        Reaction(
            name=entry["name"],
            reactant=Atoms(entry["numbers"], entry["reactant"]),
            ts=Atoms(entry["numbers"], entry["ts"]),
            product=Atoms(entry["numbers"], entry["product"]),
            barrier=entry["barriers_eV"][0],
        )
        for entry in content
    ]


def split_names(names: list[str], seed: int = 0, fractions: tuple[float, float] = (0.15, 0.2)) -> dict[str, str]:
    """Assign whole reactions to ``val`` and ``test`` (at least one each) by seed; the others are ``train``."""
    order = np.random.default_rng(seed).permutation(len(names))
    n_val, n_test = (max(1, round(f * len(names))) for f in fractions)
    parts = ["val"] * n_val + ["test"] * n_test + ["train"] * max(0, len(names) - n_val - n_test)
    return {names[i]: part for i, part in zip(order, parts, strict=False)}


def geometries(
    *,
    names: list[str] | None = None,
    images: int = 10,
    samples: int = 5,
    temperature: float = 600.0,
    molecules: int = 0,
    sampling: str = "normal-modes",
    sigma: float = 0.05,
    seed: int = 0,
) -> Iterator[Atoms]:
    """Stream the geometries, without labels.

    Parameters
    ----------
    names
        Reactions to take (a part of the name suffices) [default: all].
    images
        Images on each side of a transition state, the stationary points included.
    samples
        Displaced structures around every image.
    temperature
        K, for ``sampling="normal-modes"``: the harmonic distribution with GFN2-xTB frequencies.
    molecules
        How many molecules of :data:`MOLECULES` to add, ten times ``samples`` structures each.
    sampling
        ``normal-modes`` (needs tblite) or ``gaussian`` with ``sigma`` in A.
    sigma
        Only for ``gaussian``.
    seed
        Fixes everything, the split included.

    Yields
    ------
    Atoms
        ``info``: ``reaction``, ``role`` (reactant, ts, product, path; molecule), ``displaced`` (bool),
        ``coordinate`` (-1 reactant, 0 transition state, 1 product) and ``split`` (train, val, test).
    """
    chosen = [r for r in reactions() if not names or any(n.lower() in r.name.lower() for n in names)]
    if not chosen:
        known = "; ".join(r.name for r in reactions())
        raise ValueError(f"no reaction is called {names}; known are {known}")
    split = split_names([r.name for r in chosen], seed)
    for number, reaction in enumerate(chosen):
        rng = np.random.default_rng([seed, number])
        for atoms, role, coordinate in _path(reaction, images):
            tags = {"reaction": reaction.name, "coordinate": coordinate, "split": split[reaction.name]}
            yield from _around(atoms, role, tags, samples, temperature, sampling, sigma, rng)
    for number, name in enumerate(MOLECULES[:molecules]):
        rng = np.random.default_rng([seed, 1000 + number])
        atoms = molecule(name)
        tags = {"reaction": f"molecule {name}", "coordinate": -1.0, "split": "train"}
        yield from _around(atoms, "molecule", tags, 10 * samples, temperature, sampling, sigma, rng)


def _path(reaction: Reaction, images: int) -> Iterator[tuple[Atoms, str, float]]:
    left = interpolate(reaction.reactant, reaction.ts, images)
    right = interpolate(reaction.ts, reaction.product, images)
    coordinates = np.linspace(-1.0, 1.0, 2 * images - 1)
    named = {0: "reactant", images - 1: "ts", 2 * images - 2: "product"}
    stationary = {0: reaction.reactant, images - 1: reaction.ts, 2 * images - 2: reaction.product}
    for index, atoms in enumerate(left + right[1:]):
        atoms = stationary.get(index, atoms)
        yield atoms, named.get(index, "path"), round(float(coordinates[index]), 4)


def _around(
    atoms: Atoms,
    role: str,
    tags: dict,
    samples: int,
    temperature: float,
    sampling: str,
    sigma: float,
    rng: np.random.Generator,
) -> Iterator[Atoms]:
    first = Atoms(atoms.numbers, atoms.positions, info={**tags, "role": role, "displaced": False})
    yield first
    if samples < 1:
        return
    if sampling == "gaussian":
        moved = gaussian(first, sigma, samples, rng)
    elif sampling == "normal-modes":
        moved = normal_modes(first, _hessian(first), temperature, samples, rng)
    else:
        raise ValueError(f"unknown sampling {sampling!r}: choose normal-modes or gaussian")
    for structure in moved:
        structure.info["displaced"] = True
        yield structure


def _hessian(atoms: Atoms) -> np.ndarray:
    from hint_plugins.labelling.engine import EngineSpec
    from hint_plugins.labelling.make import make_label
    from hint_plugins.labelling.record import LabelTask

    record = make_label(EngineSpec("xtb").build(), atoms, LabelTask("full"))
    return np.reshape(record["hessian"], (3 * len(atoms), 3 * len(atoms)))


def main() -> None:
    """Make the geometries, label them with ``hint label`` (its options after ``--``), split the result by reaction."""
    import argparse
    import json
    import subprocess
    import sys
    from collections import Counter
    from contextlib import ExitStack
    from pathlib import Path

    from hint_plugins.runs.files import write_json
    from hint_plugins.runs.processes import tethered
    from hint_plugins.storage.store import read_structures, write_structures, writing

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("out", type=Path, help="output directory")
    parser.add_argument("--images", type=int, default=10, help="images on each side of a transition state")
    parser.add_argument("--samples", type=int, default=5, help="displaced structures around every image")
    parser.add_argument("--temperature", type=float, default=600.0, help="K, of the displacements")
    parser.add_argument("--molecules", type=int, default=0, help="molecules added to the training part")
    parser.add_argument("--reactions", nargs="*", help="parts of the names of the reactions [all]")
    parser.add_argument("--seed", type=int, default=0)
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    arguments = parser.parse_args(words[:cut])
    arguments.out.mkdir(parents=True, exist_ok=True)
    plain, labelled = arguments.out / "geometries.xyz", arguments.out / "all.xyz"
    options = {k: v for k, v in vars(arguments).items() if k != "out"}
    made_with = arguments.out / "geometries.json"
    if plain.exists():
        if not made_with.is_file() or json.loads(made_with.read_text()) != options:
            parser.error(f"{plain} was made with other options: choose another directory, or remove it")
    else:
        write_json(made_with, options)
        stream = geometries(
            names=arguments.reactions,
            images=arguments.images,
            samples=arguments.samples,
            temperature=arguments.temperature,
            molecules=arguments.molecules,
            seed=arguments.seed,
        )
        print(f"{write_structures(plain, stream)} geometries -> {plain}")
    start = "from hint_plugins.cli.main import main; main()"
    command = tethered([sys.executable, "-c", start, "label", plain, labelled, *words[cut + 1 :]])
    if subprocess.run(command).returncode not in (0, 1):
        raise SystemExit(2)
    counts = Counter(atoms.info["split"] for atoms in read_structures(labelled))
    with ExitStack() as stack:
        write = {part: stack.enter_context(writing(arguments.out / f"{part}.xyz")) for part in counts}
        for atoms in read_structures(labelled):
            write[atoms.info["split"]](atoms)
    print(", ".join(f"{part}.xyz: {count} structures" for part, count in counts.items()))


if __name__ == "__main__":
    main()
