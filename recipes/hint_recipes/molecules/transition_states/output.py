"""Files of a search for transition states."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from hint_plugins.runs.items import safe_name, write_frames
from hint_recipes.molecules.transition_states.plots import plot_profile
from hint_recipes.molecules.transition_states.result import SearchResult


def write_result(result: SearchResult, folder: Path) -> None:
    """The files of one reaction, as far as there is something to write.

    ``path.extxyz``; ``ts.extxyz``; ``irc.extxyz`` (reactant first); ``stationary_points.extxyz`` (relaxed reactant,
    saddle, relaxed product) and ``profile.png``.
    """
    saddle = [result.ts] if result.ts is not None else []
    points = [*result.ends[:1], *saddle, *result.ends[1:]]
    parts = {"path": result.path, "ts": saddle, "irc": result.irc or [], "stationary_points": points}
    for name, frames in parts.items():
        if frames:
            write_frames(folder / f"{name}.extxyz", frames)
    if result.path or result.irc:
        plot_profile(result, folder / "profile.png")


def write_stationary_points(records: Sequence[dict[str, Any]], out: Path) -> int:
    """``out/stationary_points.extxyz``: reactant, saddle and product of every intended reaction; returns how many."""
    from ase.io import read

    target = out / "stationary_points.extxyz"
    target.unlink(missing_ok=True)
    frames: list[Atoms] = []
    for record in records:
        if record["intended"]:
            frames += read(out / "reactions" / safe_name(record["name"]) / "stationary_points.extxyz", index=":")
    if frames:
        write_frames(target, frames)
    return len(frames) // 3
