"""From a specification (file, name, object) to a backend."""

from __future__ import annotations

import copy
import importlib
import inspect
import logging
from collections.abc import Callable
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from hint_plugins.labelling.periodicity import is_partial
from hint_plugins.potential.backends.calculators import CalculatorBackend
from hint_plugins.potential.backends.energy_models import EnergyModelBackend
from hint_plugins.potential.backends.protocol import Backend, PotentialError
from hint_plugins.structures.charges import tell_calculator

GROUP = "hint_plugins.hosts"
log = logging.getLogger(__name__)


def default_device() -> torch.device:
    """The GPU when there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def as_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """``float64`` or ``float32``, given as a torch dtype or by name; None stays None.

    Raises
    ------
    PotentialError
        For anything else.
    """
    if dtype is None or dtype in (torch.float32, torch.float64):
        return dtype  # type: ignore[return-value]
    names = {"float64": torch.float64, "double": torch.float64, "float32": torch.float32, "float": torch.float32}
    if str(dtype) not in names:
        raise PotentialError(f"unknown dtype {dtype!r}: choose float64 or float32")
    return names[str(dtype)]


def load_backend(
    spec: Any, device: torch.device | str | None = None, dtype: torch.dtype | str | None = None
) -> Backend:
    """Make the backend that ``spec`` names.

    Parameters
    ----------
    spec
        See :meth:`hint_plugins.potential.Potential.load`.
    device
        By default the GPU when there is one.
    dtype
        By default that of the model.

    Raises
    ------
    PotentialError
        If nothing can be made of ``spec``; the message lists what was tried.
    """
    where = default_device() if device is None else _device(device)
    precision = as_dtype(dtype)
    if isinstance(spec, Path) or (isinstance(spec, str) and _on_disk(spec)):
        return load_file(str(spec), where, precision)
    if isinstance(spec, str):
        return _from_name(spec, where, precision)
    return _from_object(spec, type(spec).__name__, where, precision)


def _on_disk(spec: str) -> bool:
    """Whether ``spec`` is a file, or a folder (of a checkpoint) that is no calculator's name."""
    path = Path(spec.split("#")[0])
    return path.is_file() or (path.is_dir() and spec.lower() not in NAMED)


def _device(device: torch.device | str) -> torch.device:
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise PotentialError(f"unknown device {device!r}: {str(error).splitlines()[0]}") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise PotentialError(f"device {device} is not available: torch {torch.__version__} sees no GPU; use cpu")
    return found


def _from_object(spec: Any, name: str, device: torch.device, dtype: torch.dtype | None) -> Backend:
    if inspect.isclass(spec) or inspect.isroutine(spec) or isinstance(spec, partial):
        made = [spec()]
        if _is_calculator(made[0]):
            return CalculatorBackend(lambda: made.pop() if made else spec(), name)
        if not inspect.isroutine(made[0]):
            return _from_object(made[0], name, device, dtype)
    elif _is_calculator(spec):
        return CalculatorBackend(lambda: spec, name)
    elif isinstance(spec, Backend):
        return spec
    elif hasattr(spec, "cutoff") and hasattr(spec, "forward"):
        own = next((p.dtype for p in spec.parameters()), None) if isinstance(spec, torch.nn.Module) else None
        # The caller's model may be in training: it stays as it is.
        return EnergyModelBackend(copy.deepcopy(spec), name, device, dtype or own or torch.get_default_dtype())
    raise PotentialError(
        f"{name}: a potential is a file name, a calculator's name, an ase calculator, an EnergyModel "
        f"(attribute cutoff, method forward(graph)) or a function that makes one; got {type(spec).__name__}"
    )


def _is_calculator(spec: Any) -> bool:
    return isinstance(spec, BaseCalculator) or (hasattr(spec, "get_potential_energy") and not isinstance(spec, Atoms))


def _from_name(spec: str, device: torch.device, dtype: torch.dtype | None) -> Backend:
    kind, _, rest = spec.partition(":")
    if kind.lower() in NAMED:
        return NAMED[kind.lower()](rest)
    looks_like_file = "/" in spec or "\\" in spec or Path(spec).suffix in (".model", ".pt", ".pth", ".ckpt")
    if rest and not looks_like_file:
        return _from_object(_import(kind, rest, spec), spec, device, dtype)
    raise PotentialError(
        f"{spec}: there is no such file, and no such calculator. Calculators: {', '.join(sorted(NAMED))} "
        "(tblite:GFN2-xTB), or module:factory."
    )


def _import(module: str, attribute: str, spec: str) -> Any:
    import sys

    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise PotentialError(
            f"{spec}: cannot import {attribute!r} from {module!r} ({error}). Calculators with a name: "
            f"{', '.join(sorted(NAMED))}; anything else is module:factory."
        ) from error
    return found


def load_file(path: str, device: torch.device, dtype: torch.dtype | None) -> Backend:
    """Load a model file with the first reader that knows its format; ``path`` may end in ``#head``.

    Raises
    ------
    PotentialError
        If no reader knows the file; the message names all that were asked.
    """
    tried = []
    readers: dict[str, Callable[..., Backend | None]] = {}
    for entry in entry_points(group=GROUP):
        try:
            readers[entry.name] = entry.load().load_potential
        except (ImportError, AttributeError) as error:
            tried.append(f"{entry.name}: reader not available ({error})")
    readers["AlphaNet"] = _alphanet
    for name, reader in readers.items():
        backend = reader(path, device, dtype)
        if backend is not None:
            log.info("%s: read by %s", path, name)
            return backend
        tried.append(f"{name}: not its format")
    raise PotentialError(
        f"{path}: no reader knows this file. Tried: {'; '.join(tried)}. MACE files need pip install "
        "'hint-plugins[mace]', fairchem checkpoints pip install 'hint-plugins[fairchem]'."
    )


def _alphanet(path: str, device: torch.device, dtype: torch.dtype | None) -> Backend | None:
    from hint_plugins.models.alphanet import AlphaNet, checkpoint

    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # not a file of tensors
        return None
    if not isinstance(content, dict) or content.get("format") != checkpoint.FORMAT:
        return None
    try:
        model = checkpoint.load(AlphaNet, path, device)
    except Exception as error:
        raise PotentialError(f"{path} is an AlphaNet file but cannot be read: {error}") from error
    return EnergyModelBackend(model, path, device, dtype or next(model.parameters()).dtype)


def _emt(_: str) -> Backend:
    from ase.calculators.emt import EMT
    from ase.calculators.emt import parameters as known
    from ase.data import atomic_numbers

    return CalculatorBackend(EMT, "EMT", elements=[atomic_numbers[symbol] for symbol in known], sees_charge=False)


def _lennard_jones(_: str) -> Backend:
    from ase.calculators.lj import LennardJones

    return CalculatorBackend(lambda: LennardJones(smooth=True), "Lennard-Jones", sees_charge=False)


def _tblite(method: str) -> Backend:
    method = method or "GFN2-xTB"
    if method not in ("GFN1-xTB", "GFN2-xTB", "IPEA1-xTB"):
        raise PotentialError(f"tblite has no method {method!r}: GFN2-xTB, GFN1-xTB, IPEA1-xTB")
    from hint_plugins.labelling.tblite_library import import_tblite

    try:
        TBLite = import_tblite("tblite.ase").TBLite
    except ImportError as error:
        raise PotentialError(f"tblite cannot be used ({error}): pip install 'hint-plugins[xtb]'") from error

    # Accuracy 0.01 converges the density a hundred times tighter than the default: differences of forces need it.
    return CalculatorBackend(
        lambda: TBLite(method=method, accuracy=0.01, verbosity=0),
        method,
        elements=range(1, 87),
        prepare=_for_tblite,
    )


def _for_tblite(atoms: Atoms) -> None:
    if is_partial(atoms):
        raise PotentialError(
            "the structure is periodic in some directions only, and tblite repeats it in all three: give a cell with "
            "enough vacuum and pbc 'T T T'"
        )
    tell_calculator(atoms, whole=True)


NAMED: dict[str, Callable[[str], Backend]] = {"emt": _emt, "lj": _lennard_jones, "tblite": _tblite}
