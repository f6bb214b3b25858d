"""Whether the kernels of a MACE model have third derivatives."""

from __future__ import annotations

import argparse
import re
from importlib.metadata import PackageNotFoundError, version

#: First version of OpenEquivariance whose kernels can be derived three times and more.
OPENEQUIVARIANCE = (0, 6, 7)


def exact_derivatives(args: argparse.Namespace) -> bool | None:
    """What MACE's options say about third derivatives.

    Returns
    -------
    bool or None
        False with cuEquivariance, and with OpenEquivariance before 0.6.7; None with a newer OpenEquivariance, where the
        self-test must tell; True for MACE's own kernels.
    """
    if getattr(args, "enable_cueq", False) or getattr(args, "only_cueq", False):
        return False
    if getattr(args, "enable_oeq", False):
        try:
            found = re.findall(r"\d+", version("openequivariance"))[:3]
        except PackageNotFoundError:
            return False
        return None if tuple(map(int, found)) >= OPENEQUIVARIANCE else False
    return True
