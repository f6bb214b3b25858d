"""Outputs that print many geometries: which energy and gradient belong to the geometry of the Hessian.

An output of several jobs or of finite differences states energies and gradients of other geometries, too; a reader
that takes the last of each mixes them. Here an output is cut into blocks, one geometry each, and the last block with a
Hessian takes energy and gradient from itself or from another block at the same place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hint_plugins.datasets.codes.run import NoHessian, Run, numbers_of, same_place
from hint_plugins.datasets.record import RecordError


@dataclass
class Block:
    """What an output says between one geometry and the next; units as in :class:`Run`."""

    numbers: Any
    positions: np.ndarray
    energy: float | None = None
    forces: np.ndarray | None = None
    hessian: np.ndarray | None = None


def take_blocks(run: Run, blocks: list[Block]) -> Run:
    """Put energy and forces of the last block at the geometry of ``run`` into it, where it has none.

    The two come from one block if one has both.
    """
    here = [b for b in blocks if not same_place(run.numbers, run.positions, b.numbers, b.positions)]
    here.sort(key=lambda b: (b.energy is not None) + (b.forces is not None))  # stable: the last of the fullest is taken
    for block in reversed(here):
        if run.energy is None:
            run.energy = block.energy
        if run.forces is None:
            run.forces = block.forces
    return run


def run_of(code: str, blocks: list[Block], what: str) -> Run:
    """The run of the last block with a Hessian.

    Raises
    ------
    NoHessian
        If no block has one.
    """
    whole = [block for block in blocks if block.hessian is not None]
    if not whole:
        raise NoHessian(f"no {what}")
    last = whole[-1]
    assert last.hessian is not None
    run = Run(code, last.numbers, last.positions, last.hessian, energy=last.energy, forces=last.forces)
    if len(whole) > 1:
        run.notes.append(f"the last of {len(whole)} Hessians in the file")
    return take_blocks(run, blocks)


def column_blocks(lines: list[str] | Iterator[str], rows: int, columns: int, what: str) -> np.ndarray:
    """(rows, columns) matrix printed in blocks of columns under their numbers, which may count from 0 or from 1.

    Raises
    ------
    RecordError
        If it is not whole.
    """
    matrix = np.full((rows, columns), np.nan)
    head: list[int] = []
    first = None
    for line in lines:
        words = line.split()
        if not words:
            continue
        if all(re.fullmatch(r"\d+", word) for word in words):
            head = [int(word) for word in words]
            first = head[0] if first is None else first
            continue
        if not head or first is None or not words[0].isdigit():
            break
        values = numbers_of(f"row {words[0]} of {what}", words[1:], len(head))
        row, place = int(words[0]) - first, [column - first for column in head]
        if row >= rows or place[-1] >= columns:
            raise RecordError(f"{what} has a row {words[0]} and columns {head}: more than {rows} times {columns}")
        matrix[row, place] = values
        if row == rows - 1 and place[-1] == columns - 1:
            break
    if np.isnan(matrix).any():
        raise RecordError(f"{what} is cut short: not all of {rows} times {columns} numbers are there")
    return matrix
