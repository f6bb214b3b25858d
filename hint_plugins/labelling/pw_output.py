"""What pw.x says beside its results: why it failed, and how far its forces are self-consistent."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from ase.units import Bohr, Rydberg

from hint_plugins.labelling.pw_input import number


def scf_correction(output: str) -> float:
    """Last estimate of what missing self-consistency changes in the forces, eV/A; 0 where there is none."""
    found = re.findall(r"Total SCF correction\s*=\s*([\d.EeDd+-]+)", output)
    return number(found[-1]) * Rydberg / Bohr if found else 0.0


def reason_of_failure(directory: Path, error: Exception) -> str:
    """What pw.x itself says about its failure."""
    for name in ("espresso.pwo", "CRASH", "espresso.err"):
        path = directory / name
        text = path.read_text(errors="replace") if path.is_file() else ""
        if "convergence NOT achieved" in text:
            return "pw.x did not converge"
        lines = text.splitlines()
        for index, line in enumerate(lines):
            if line.strip().startswith(("Error in routine", "from ")):
                return "pw.x: " + " ".join(entry.strip() for entry in lines[index : index + 2])
    if isinstance(error, subprocess.CalledProcessError):
        written = [directory / name for name in ("espresso.pwo", "espresso.err")]
        said = [line for path in written if path.is_file() for line in path.read_text(errors="replace").splitlines()]
        last = next((line.strip() for line in reversed(said) if line.strip()), "it printed nothing")
        return f"pw.x ended with status {error.returncode}: {last}"
    return f"pw.x failed: {type(error).__name__}: {error}"
