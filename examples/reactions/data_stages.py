"""The stages of the data set, each in a folder of its own below ``--out``."""

from __future__ import annotations

import argparse
import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import end_points
import searches
from ase.io import write
from geometries import join, make_geometries
from labels import atomic_energies, divide, label, pick, select, share_name, within, write_share
from stages import command, stage
from tqdm import tqdm

from hint_plugins.runs.files import replacing, write_json
from hint_plugins.storage.store import write_structures
from hint_recipes.molecules.transition_states.reaction import Reaction


def options(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in names}


def divided(a: argparse.Namespace) -> dict[str, Any]:
    """The split: ``parts.json`` and the end points of each part."""
    folder, file = a.out / "split", a.end_points
    identity = hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file and file.is_file() else str(file)
    names = ("max_atoms", "elements", "limit", "test", "held_back", "valid", "seed")

    def make() -> dict[str, Any]:
        found, left_out = end_points.read_reactions(file, a.max_atoms, a.elements, a.limit)
        parts = end_points.split(found, {part: getattr(a, part) for part in end_points.PARTS[:-1]}, a.seed)
        write_json(folder / "parts.json", {"parts": parts, "left_out": left_out})
        for part in end_points.PARTS:
            frames = []
            for reaction in (r for r in found if parts[r.name] == part):
                for role in ("reactant", "product"):
                    frames.append(reaction.frames[role].copy())
                    frames[-1].info |= {"reaction": reaction.name, "role": role}
            with replacing(folder / f"{part}.extxyz") as temporary:
                write(temporary, frames, format="extxyz")
        return {part: sum(p == part for p in parts.values()) for part in end_points.PARTS} | {"left_out": len(left_out)}

    return stage(folder, {"end_points": identity, **options(a, *names)}, make)


def structures(a: argparse.Namespace) -> dict[str, Any]:
    """Paths and rattled structures of all reactions but the held-back ones: ``all.xyz``."""
    folder = a.out / "geometries"

    def make() -> dict[str, Any]:
        parts = json.loads((a.out / "split" / "parts.json").read_text())["parts"]
        found, _ = end_points.read_reactions(a.end_points, a.max_atoms, a.elements, a.limit)
        wanted: list[Reaction] = [r for r in found if parts[r.name] != "held_back"]
        how = options(a, "images", "band_steps", "samples", "sigma", "seed") | {"level": f"tblite:{a.cheap}"}
        with tqdm(total=len(wanted), desc="geometries", unit="reaction", disable=None) as bar:
            failed = make_geometries(wanted, folder / "reactions", how, a.workers, bar.update)
        write_json(folder / "failed.json", failed)
        count = join(wanted, parts, folder / "reactions", folder / "all.xyz")
        return {"structures": count, "reactions_failed": len(failed)}

    return stage(folder, options(a, "images", "band_steps", "samples", "sigma", "seed", "cheap"), make)


def cheap(a: argparse.Namespace) -> dict[str, Any]:
    """Cheap labels with Hessians or projections for all."""
    folder, source = a.out / "cheap", a.out / "geometries" / "all.xyz"
    words = ("--kind", a.cheap_kind, "--num-probes", a.num_probes, "--seed", a.seed)
    make = partial(label, folder, source, "labels.xyz", a.cheap, a.workers, *words)
    return stage(folder, options(a, "cheap", "cheap_kind", "num_probes", "seed"), make)


def scale(a: argparse.Namespace) -> dict[str, Any]:
    """Cheap labels of training and validation on the energy scale of the good level: what is pre-trained on."""
    folder = a.out / "pretraining"

    def make() -> dict[str, Any]:
        raw = folder / "raw"
        raw.mkdir(exist_ok=True)
        counts = divide(a.out / "cheap" / "labels.xyz", raw, a.max_energy)
        label(folder, raw / "anchors.xyz", "anchors.xyz", a.good, a.workers, "--kind", "forces")
        align = ("--align-to", "anchors.xyz", "--align-from", "raw/anchors.xyz", "--overwrite")
        for part in ("train", "valid"):
            command(folder, "hint", "convert", f"raw/{part}.xyz", f"{part}.xyz", *align)
            (raw / f"{part}.xyz").unlink()
        write_json(folder / "e0s.json", atomic_energies(folder / "anchors.xyz"))
        return counts

    return stage(folder, options(a, "good", "max_energy"), make)


def good(a: argparse.Namespace) -> list[dict[str, Any]]:
    """Good labels: ``good/test.xyz``, ``good/valid.xyz``, and for every selection the shares of Hessians."""
    rows = []
    for part, count in (("test", a.per_test), ("valid", a.per_valid)):
        folder = a.out / "good" / part

        def make(folder: Path = folder, part: str = part, count: int = count) -> dict[str, Any]:
            found = within(a.out / "cheap" / "labels.xyz", a.max_energy)
            frames = (atoms for atoms in found if atoms.info["part"] == part)
            write_structures(folder / "structures.xyz", pick(frames, count, a.seed))
            return label(folder, folder / "structures.xyz", "labels.xyz", a.good, a.workers)

        counts = stage(folder, {"per_reaction": count, **options(a, "good", "max_energy", "seed")}, make)
        rows.append({"set": part, "structures": counts["structures"], "Hessians": counts["structures"], **cost(counts)})
    for selection in a.selections:
        folder = a.out / "good" / selection

        def chosen(folder: Path = folder, selection: str = selection) -> dict[str, Any]:
            select(a.out / "pretraining" / "train.xyz", folder, selection, a.fraction, a.seed)
            return label(folder, folder / "selected.xyz", "labels.xyz", a.good, a.workers)

        counts = stage(folder, options(a, "good", "fraction", "seed"), chosen)
        rows.append({"set": selection, "structures": counts["structures"], "Hessians": "", **cost(counts)})
        for share in sorted(a.shares):
            for seed in a.seeds:
                for stored in (None, a.num_probes) if share else (None,):
                    target = folder / f"seed{seed}" / share_name(share, stored)
                    some = write_share(folder / "labels.xyz", target, share, seed, stored)
            rows.append({"set": f"{selection} {share:g} %", "structures": some["structures"]})
            rows[-1] |= {"Hessians": some["hessians"], "gradients": "", "failed": "", "CPU s": ""}
    return rows


def cost(counts: dict[str, Any]) -> dict[str, Any]:
    """Columns of the summary table."""
    return {"gradients": counts["gradients"], "failed": counts["failed"], "CPU s": counts["cpu_seconds"]}


def truth(a: argparse.Namespace) -> dict[str, Any]:
    """The good level's own transition states and Gibbs energies of the test reactions."""
    make = partial(searches.truth, a.out / "split" / "test.extxyz", a.out / "truth", a.workers)
    return stage(a.out / "truth", {"reference": searches.TRUTH}, make)
