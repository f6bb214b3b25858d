"""A Hessian label: the whole matrix, the block of some coordinates, some columns, or products with random directions.

Whatever its kind, a label answers one question: for directions ``z``, what is ``H z``?
Every law it draws from has zero mean and unit covariance, so that the expectation of
``||dH z||^2`` is the squared Frobenius norm of ``dH`` (Hutchinson), one-hot columns included. A block is asked along
its own coordinates and answers with these alone, so the expectation is the norm of the block.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from ase import Atoms

from hint_plugins.curvature.probes import draw_probes
from hint_plugins.labels.numbers import LabelError, integers, numbers, present, rows

#: Kinds that hold all second derivatives by some coordinates.
MATRICES = ("full", "block")
Kind = Literal["full", "columns", "projections", "block"]

#: Suffixes of the keys under which the parts of a label are stored beside ``<key>``.
COLUMNS, INDICES, PROBES, PRODUCTS = "_columns", "_column_indices", "_probes", "_products"
BLOCK, COORDINATES = "_block", "_block_indices"
SUFFIXES = ("", COLUMNS, INDICES, PROBES, PRODUCTS, BLOCK, COORDINATES)
#: Parts that belong together.
_PAIRS = ((COLUMNS, INDICES), (PROBES, PRODUCTS), (BLOCK, COORDINATES))


@dataclass(frozen=True)
class HessianLabel:
    """Second-derivative label of one structure.

    Attributes
    ----------
    kind
        ``full``, ``columns``, ``projections`` or ``block``.
    directions
        ``full``: None. ``columns``: ``(c,)`` integer column indices.
        ``projections``: ``(m, 3N)`` directions, drawn with unit covariance.
        ``block``: ``(b,)`` integer indices ``3 i + a`` of the known coordinates, ascending.
    products
        ``full``: ``(3N, 3N)``; ``columns``: ``(c, 3N)``, row k is column ``directions[k]`` of H;
        ``projections``: ``(m, 3N)``, row k is ``H @ directions[k]``;
        ``block``: ``(b, b)``, the rows and columns ``directions`` of H. eV/A^2.
    atoms
        N of a ``block``, which its matrix does not tell; None for the other kinds.
    """

    kind: Kind
    products: np.ndarray
    directions: np.ndarray | None = None
    atoms: int | None = None

    @classmethod
    def full(cls, hessian: np.ndarray) -> HessianLabel:
        """Label from a whole Hessian, ``(3N, 3N)`` or flat ``(9 N^2,)``, eV/A^2."""
        flat = numbers(hessian, "the Hessian")
        dim = round(flat.size**0.5)
        if dim * dim != flat.size or dim % 3 or dim == 0:
            raise LabelError(f"{flat.size} numbers are no (3N, 3N) matrix for any number of atoms N")
        return cls("full", flat.reshape(dim, dim))

    @classmethod
    def columns(cls, indices: np.ndarray, columns: np.ndarray) -> HessianLabel:
        """Label from ``columns`` (c, 3N) of the Hessian at ``indices`` (c,)."""
        index = integers(indices, "column indices")
        values = rows(columns, len(index), "columns")
        if len(set(index.tolist())) != len(index) or index.min() < 0 or index.max() >= values.shape[1]:
            raise LabelError(f"column indices must be distinct and in 0..{values.shape[1] - 1}: {index}")
        return cls("columns", values, index)

    @classmethod
    def projections(cls, probes: np.ndarray, products: np.ndarray, num_atoms: int) -> HessianLabel:
        """Label from directions ``probes`` (m, 3N) and ``products`` (m, 3N) = H z."""
        z = numbers(probes, "probes")
        if z.size == 0 or z.size % (3 * num_atoms):
            raise LabelError(f"{z.size} probe components are no multiple of 3N = {3 * num_atoms}")
        z = z.reshape(-1, 3 * num_atoms)
        return cls("projections", rows(products, len(z), "products"), z)

    @classmethod
    def block(cls, coordinates: np.ndarray, block: np.ndarray, num_atoms: int) -> HessianLabel:
        """Label from the rows and columns of some coordinates.

        Parameters
        ----------
        coordinates
            (b,) distinct indices ``3 i + a`` of coordinate a of atom i, in the order of the rows; or (N,) or (N, 3)
            truth values, for the coordinates in ascending order.
        block
            (b, b), eV/A^2.
        num_atoms
            N of the whole structure.

        Raises
        ------
        LabelError
            If the coordinates are none of this structure's, or the block has another shape.
        """
        if (chosen := np.asarray(coordinates)).dtype == bool:
            chosen = np.broadcast_to(chosen.reshape(num_atoms, -1), (num_atoms, 3))
            coordinates = np.flatnonzero(chosen)
        index = integers(coordinates, "coordinates of the block")
        if len(set(index.tolist())) != len(index) or index.min() < 0 or index.max() >= 3 * num_atoms:
            raise LabelError(f"coordinates of the block must be distinct and in 0..{3 * num_atoms - 1}: {index}")
        values = numbers(block, "the block")
        if values.size != len(index) ** 2:
            raise LabelError(f"{values.size} numbers are no block of {len(index)} coordinates, {len(index)}^2")
        order = np.argsort(index)
        return cls("block", values.reshape(len(index), -1)[np.ix_(order, order)], index[order], num_atoms)

    @property
    def num_atoms(self) -> int:
        return self.products.shape[1] // 3 if self.atoms is None else self.atoms

    @property
    def known(self) -> np.ndarray:
        """(3N,) of bool: the coordinates whose answers the label knows; all of them but for a ``block``."""
        mask = np.full(3 * self.num_atoms, self.kind != "block")
        if self.kind == "block":
            mask[self.directions] = True
        return mask

    def matrix(self) -> np.ndarray:
        """(3N, 3N) of a ``full`` label, or of a ``block`` with zeros where nothing is known; eV/A^2."""
        if self.kind == "full":
            return self.products
        if self.kind != "block":
            raise LabelError(f"{self.kind} are no matrix")
        matrix = np.zeros((3 * self.num_atoms,) * 2)
        matrix[np.ix_(self.directions, self.directions)] = self.products  # type: ignore[arg-type]
        return matrix

    def times(self, z: np.ndarray) -> np.ndarray:
        """Products with directions of one's own.

        Parameters
        ----------
        z
            (m, 3N), zero outside of the block or of the known columns.

        Returns
        -------
        numpy.ndarray
            (m, 3N), NaN where the label does not know the answer; eV/A^2 times the unit of z.

        Raises
        ------
        LabelError
            For projections.
        """
        if self.kind == "columns":
            return z[:, self.directions] @ self.products
        return np.where(self.known, z @ self.matrix().T, np.nan)

    def scaled(self, factor: float) -> HessianLabel:
        """The label with its second derivatives multiplied by ``factor``."""
        return replace(self, products=factor * self.products)

    @property
    def num_directions(self) -> int:
        """How many independent directions the label knows."""
        return len(self.products)

    def pairs(
        self, num_probes: int, law: str, rng: np.random.Generator, structure: Atoms | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw ``num_probes`` directions ``z`` and give them with ``H z``.

        Parameters
        ----------
        num_probes
            m >= 1.
        law
            Probe law (:mod:`hint_plugins.curvature.probes`). A ``columns`` label combines its own columns
            with this law's coefficients; a ``block`` is probed along its own coordinates; a ``projections`` label
            hands out its stored directions, reshuffled, again from the start when ``num_probes`` exceeds their number.
        rng
            Source of randomness.
        structure
            The atoms, for laws that ask for them (with a ``full`` label or a ``block``).

        Returns
        -------
        z, hz
            Both ``(num_probes, 3N)``. For a ``block`` z is zero and ``H z`` NaN outside of it.
        """
        dim, known = 3 * self.num_atoms, self.num_directions
        if self.kind == "projections":
            assert self.directions is not None
            order = np.concatenate([rng.permutation(known) for _ in range(-(-num_probes // known))])
            chosen = order[:num_probes]
            return self.directions[chosen], self.products[chosen]
        if self.kind == "block" and structure is not None:
            coefficients = draw_probes(law, num_probes, dim, rng, structure)[:, self.directions]
        else:
            coefficients = draw_probes(law, num_probes, known, rng, structure if self.kind == "full" else None)
        if self.kind == "full":
            return coefficients, coefficients @ self.products.T
        assert self.directions is not None
        if self.kind == "block":
            z, hz = np.zeros((num_probes, dim)), np.full((num_probes, dim), np.nan)
            z[:, self.directions] = coefficients
            hz[:, self.directions] = coefficients @ self.products.T
            return z, hz
        coefficients = coefficients * np.sqrt(dim / known)
        z = np.zeros((num_probes, dim))
        z[:, self.directions] = coefficients
        return z, coefficients @ self.products

    def to_info(self, info: MutableMapping[str, Any], key: str = "REF_hessian") -> None:
        """Store the label under ``key`` (flat arrays, which extxyz and ASE databases keep exactly)."""
        for suffix in SUFFIXES:
            info.pop(key + suffix, None)
        if self.kind == "full":
            info[key] = self.products.reshape(-1)
        elif self.kind == "columns":
            info[key + COLUMNS] = self.products.reshape(-1)
            info[key + INDICES] = self.directions
        elif self.kind == "block":
            info[key + BLOCK] = self.products.reshape(-1)
            info[key + COORDINATES] = self.directions
        else:
            assert self.directions is not None
            info[key + PROBES] = self.directions.reshape(-1)
            info[key + PRODUCTS] = self.products.reshape(-1)

    @classmethod
    def from_info(cls, info: Mapping[str, Any], num_atoms: int, key: str = "REF_hessian") -> HessianLabel | None:
        """Read the label stored under ``key``; None when the structure carries none.

        Raises
        ------
        LabelError
            If parts are missing or lengths do not fit ``num_atoms``; physics is checked elsewhere
            (:mod:`hint_plugins.labels.checks`).
        """
        parts: dict[str, Any] = {suffix: present(info.get(key + suffix), key + suffix) for suffix in SUFFIXES}
        if parts[""] is not None:
            length = parts[""].size
            if length != 9 * num_atoms**2:
                raise LabelError(f"{key} has {length} numbers; {num_atoms} atoms need 9N^2 = {9 * num_atoms**2}")
            return cls.full(parts[""])
        for first, second in _PAIRS:
            have = [s for s in (first, second) if parts[s] is not None]
            if len(have) == 1:
                missing = second if have[0] == first else first
                raise LabelError(f"{key}{have[0]} is there but {key}{missing} is missing")
        if parts[COLUMNS] is not None:
            label = cls.columns(parts[INDICES], parts[COLUMNS])
        elif parts[PROBES] is not None:
            label = cls.projections(parts[PROBES], parts[PRODUCTS], num_atoms)
        elif parts[BLOCK] is not None:
            label = cls.block(parts[COORDINATES], parts[BLOCK], num_atoms)
        else:
            return None
        if label.num_atoms != num_atoms:
            raise LabelError(f"{key}: {label.kind} of {label.num_atoms} atoms on a structure of {num_atoms}")
        return label
