"""What is installed, and are a model's derivatives right?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hint_plugins.diagnosis.derivatives import check_potential, check_training
from hint_plugins.diagnosis.installation import devices, installed_versions, registered
from hint_plugins.errors import InputError
from hint_plugins.potential import Potential
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.storage.store import read_structures

#: Errors of first derivatives, as the terminal names them.
ERRORS = {
    "forces_error": "forces against energy",
    "hvp_error": "Hessian products against forces",
    "stress_error": "stress against energy",
    "asymmetry": "asymmetry of the Hessian",
}


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes
    ----------
    summary
        ``versions`` by package, ``devices``, ``extensions`` (state of every entry point by group); with a model also
        ``derivatives`` (:func:`~hint_plugins.diagnosis.derivatives.check_potential`) and ``third_derivatives``
        (:func:`~hint_plugins.diagnosis.derivatives.check_training`).
    model
        The model that was tested, or None.
    """

    summary: dict[str, Any]
    model: str | None = None

    @property
    def n_wrong(self) -> int:
        """Extensions that are broken (not those that need a package), and tests that the model failed."""
        states = [state for members in self.summary["extensions"].values() for state in members.values()]
        broken = sum(state != "ok" and not _needs_package(state) for state in states)
        tests = [self.summary.get("derivatives"), self.summary.get("third_derivatives")]
        return broken + sum(test is not None and not test["ok"] for test in tests)

    def report(self) -> str:
        """Everything as text."""
        lines = [f"{name:<18}{version or 'not installed'}" for name, version in self.summary["versions"].items()]
        lines.append(f"{'devices':<18}{', '.join(self.summary['devices'])}")
        for group, members in self.summary["extensions"].items():
            good = sorted(name for name, state in members.items() if state == "ok")
            lines.append(f"{group}: {', '.join(good) or 'none'}")
            for name, state in members.items():
                if state != "ok":
                    lines.append(f"  {name}: {'needs a package: ' if _needs_package(state) else ''}{state}")
        if self.model is not None:
            lines += _derivatives(self.model, self.summary["derivatives"], self.summary["third_derivatives"])
        return "\n".join(lines)


def _needs_package(state: str) -> bool:
    return "No module named" in state


def _derivatives(model: str, first: Mapping[str, Any], third: Mapping[str, Any] | None) -> list[str]:
    lines = [f"{model}: relative errors against central differences (tolerance {first['tolerance']:g})"]
    lines += [f"  {text:<34}{first[key]:.1e}" for key, text in ERRORS.items() if first[key] is not None]
    lines.append(f"  {'ok' if first['ok'] else 'WRONG: Hessians of this potential cannot be trusted'}")
    if third is None:
        return lines
    lines.append(f"  {'gradient of the Hessian loss':<34}{third['gradient_error']:.1e}")
    lines += [f"    {line}" for line in third["guilty"] + third["kinks"]]
    if third["made_exact"]:
        lines.append(f"  (training makes LayerNorm exact: {', '.join(third['made_exact'])})")
    advice = "WRONG: train with the option hessian_engine finite_difference, or mend the modules above"
    return [*lines, f"  {'ok: a Hessian loss can be trained' if third['ok'] else advice}"]


def diagnose(
    model: str | None = None,
    structures: Path | None = None,
    directory: Path | None = None,
    *,
    num_structures: int = 2,
    device: str | None = None,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Diagnosis:
    """Look at the installation, and test the derivatives of a model in float64.

    Parameters
    ----------
    model, device
        What :meth:`hint_plugins.potential.Potential.load` understands; None tests no model.
    structures
        File of structures for the test; a small cluster by default.
    directory
        For ``summary.json``; None writes nothing.
    num_structures
        How many of the structures are taken, from the start of the file.
    options
        What ``config.yaml`` keeps.
    overwrite
        Replace an earlier result in the directory.

    Raises
    ------
    InputError
        If the file holds no structures, or the directory holds a result.
    PotentialError, StoreError
        If model or structures cannot be read.
    """
    if directory is None:
        return _diagnosis(model, structures, num_structures, device)
    options = {"model": model, "structures": structures} if options is None else options
    with RunDirectory(directory, "doctor", options, overwrite=overwrite) as run:
        result = _diagnosis(model, structures, num_structures, device)
        run.finish(result.summary)
    return result


def _diagnosis(model: str | None, structures: Path | None, num_structures: int, device: str | None) -> Diagnosis:
    found: dict[str, Any] = {"versions": installed_versions(), "devices": devices(), "extensions": registered()}
    if model is not None:
        potential = Potential.load(model, device, "float64")
        items = None if structures is None else list(islice(read_structures(structures), num_structures))
        if items is not None and not items:
            raise InputError(f"{structures}: no structures")
        found["derivatives"] = check_potential(potential, items)
        found["third_derivatives"] = check_training(potential, items)
    return Diagnosis(found, model)
