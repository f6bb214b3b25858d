"""Damaged label files, in bulk: a valid extended XYZ file with one thing made wrong in one frame."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

TOKENS = ("nan", "inf", "1.0D-13", "abc", "1e400", "--1", "None", "[1,2]", "{'a': 1}", "true", "1+2j", "")


def frames_of(text: str) -> list[list[str]]:
    """Lines of each frame."""
    lines, out = text.splitlines(), []
    while lines:
        count = int(lines[0]) + 2
        out.append(lines[:count])
        lines = lines[count:]
    return out


def mutate(frame: list[str], rng: np.random.Generator) -> tuple[str, list[str]]:
    """One damage to one frame: what was done, and its lines. Every one makes the frame or its labels unusable."""
    frame = list(frame)
    n = len(frame) - 2
    kind = rng.choice(["count", "position", "force", "value", "short", "extra", "properties", "cell", "line", "bytes"])
    atom = 2 + int(rng.integers(n))
    columns = frame[atom].split()
    if kind == "count":
        frame[0] = str(rng.choice(["-1", "2000000000", "x", "3.5", "", str(n + 1), str(n - 1)]))
    elif kind in ("position", "force"):
        columns[int(rng.integers(1, 4)) + 3 * (kind == "force")] = str(rng.choice([t for t in TOKENS if t]))
        frame[atom] = " ".join(columns)
    elif kind == "value":
        start = frame[1].index('REF_hessian="') + len('REF_hessian="')
        end = frame[1].index('"', start)
        numbers = frame[1][start:end].split()
        numbers[int(rng.integers(len(numbers)))] = str(rng.choice([t for t in TOKENS if t != "true"]))
        frame[1] = frame[1][:start] + " ".join(numbers) + frame[1][end:]
    elif kind == "short":
        frame[atom] = " ".join(columns[:-1])
    elif kind == "extra":
        frame[atom] += " 1.0"
    elif kind == "properties":
        frame[1] = frame[1].replace("pos:R:3", str(rng.choice(["pos:R:2", "pos:X:3", "pos:R:-3", "pos:R:many"])))
    elif kind == "cell":
        size = str(rng.choice(["0.001", "nan", "0", "1e9"]))
        frame[1] = f'Lattice="{size} 0 0 0 {size} 0 0 0 {size}" ' + frame[1].replace('pbc="F F F"', 'pbc="T T T"')
    elif kind == "line":
        frame[1] = frame[1][: len(frame[1]) // 2] + "\n" + frame[1][len(frame[1]) // 2 :]
    else:
        frame[1] += " note=\udcff"
    return str(kind), frame


def damaged_files(text: str, count: int, seed: int) -> Iterator[tuple[str, int, bytes]]:
    """``count`` files: what was done, to which frame, and the bytes."""
    rng = np.random.default_rng(seed)
    good = frames_of(text)
    for _ in range(count):
        which = int(rng.integers(len(good)))
        kind, bad = mutate(good[which], rng)
        lines = [line for k, frame in enumerate(good) for line in (bad if k == which else frame)]
        yield kind, which, ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")
