"""torch's global settings for a run: full precision under differences of forces, determinism on request."""

from __future__ import annotations

import logging
import os

import torch
from torch import nn

from hint_plugins.curvature.precision import Precision, coarse_products, use_full_precision
from hint_plugins.training.protocol import LabelledGraphs

log = logging.getLogger(__name__)


def prepare_determinism() -> None:
    """What deterministic kernels need before CUDA's libraries are loaded: the workspace of cuBLAS (environment)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


class Numerics:
    """Settings that a run changes and puts back."""

    def __init__(self) -> None:
        self._precision: Precision | None = None
        self._deterministic: tuple[bool, bool] | None = None
        self._told = False
        self.differences = False

    def be_deterministic(self) -> None:
        """Let torch take deterministic kernels, and raise where there is none."""
        if self._deterministic is None:
            warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
            self._deterministic = torch.are_deterministic_algorithms_enabled(), warn_only
        torch.use_deterministic_algorithms(True)

    def start(self, model: nn.Module, differences: bool) -> None:
        """Choose the precision of matrix products, and say so where torch was told another.

        Parameters
        ----------
        model
            What is trained.
        differences
            Whether Hessian products are differences of forces. Their gradient is one, too, and is computed in the
            host's backward pass, so full precision lasts for the run.
        """
        self.differences = differences
        coarse = next((found for found in map(coarse_products, model.parameters()) if found), "")
        if differences:
            self._precision = self._precision or Precision()
            use_full_precision()
            if coarse:
                self._tell(coarse)
        elif coarse:
            log.warning(
                "matrix products in %s leave Hessian products about %s digits: "
                "torch.set_float32_matmul_precision('highest') is safer",
                coarse,
                "three" if coarse == "TF32" else "two",
            )

    def before_products(self, graphs: LabelledGraphs) -> None:
        """Full precision again where the host has changed it since; forces made in between are made anew."""
        coarse = coarse_products(graphs.view.positions) if self.differences else ""
        if coarse:
            use_full_precision()
            graphs.view.graph = graphs.host = graphs.wanted = None
            self._tell(coarse)

    def _tell(self, coarse: str) -> None:
        if not self._told:
            log.warning(
                "matrix products in %s leave finite differences of forces few right digits or none: they are computed "
                "in full float32 for this run (exact engines lose less by it)",
                coarse,
            )
        self._told = True

    def stop(self) -> None:
        """Put back what the run changed."""
        if self._precision is not None:
            self._precision.restore()
        if self._deterministic is not None:
            torch.use_deterministic_algorithms(self._deterministic[0], warn_only=self._deterministic[1])
        self._precision = self._deterministic = None
