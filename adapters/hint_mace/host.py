"""MACE model files for :class:`hint_plugins.potential.Potential`."""

from __future__ import annotations

import functools
import warnings
import zipfile
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from hint_mace.patching import patched
from hint_plugins.models import Graph
from hint_plugins.potential.backends.energy_models import EnergyModelBackend
from hint_plugins.potential.backends.protocol import PotentialError

#: Words in the pickle of a whole model, of a TorchScript archive, and of a training checkpoint.
_MODEL = (b"mace.modules", b"hint_mace", b"__torch__.mace")
_CHECKPOINT = (b"lr_scheduler", b"optimizer")


class MaceEnergyModel(nn.Module):
    """A MACE model as an :class:`~hint_plugins.models.EnergyModel`.

    Parameters
    ----------
    model
        A model of ``mace.modules`` that predicts an energy, eager or TorchScript.
    head
        Which of its heads; by default the only one, or the one named ``default``.

    Raises
    ------
    PotentialError
        If the head is unknown or must be chosen, or the model reads more than positions and elements.
    """

    element_index: Tensor

    def __init__(self, model: Any, head: str | None = None) -> None:
        super().__init__()
        self.model = model
        self.cutoff = float(model.r_max)
        self.elements = tuple(int(z) for z in model.atomic_numbers)
        self.heads = [str(name) for name in (getattr(model, "heads", None) or ["Default"])]
        self.head = self._choose(head)
        extra = sorted(getattr(model, "embedding_specs", None) or {})
        if extra:
            raise PotentialError(
                f"this MACE model also reads {', '.join(extra)}, which are not supported here; wrap mace's own "
                "calculator in a function and give it as module:factory"
            )
        index = torch.full((max(self.elements) + 1,), -1, dtype=torch.long)
        index[list(self.elements)] = torch.arange(len(self.elements))
        self.register_buffer("element_index", index, persistent=False)

    def _choose(self, head: str | None) -> int:
        if head is None:
            default = [k for k, name in enumerate(self.heads) if name.lower() == "default"]
            if len(self.heads) == 1 or default:
                return default[0] if default else 0
            raise PotentialError(f"the MACE model has several heads, choose one as file#head: {', '.join(self.heads)}")
        if head not in self.heads:
            raise PotentialError(f"the MACE model has no head {head!r}: {', '.join(self.heads)}")
        return self.heads.index(head)

    def inputs(self, graph: Graph) -> dict[str, Tensor]:
        """MACE's input dictionary. Its edge vectors point from the source to the centre, so shifts change sign."""
        positions, batch = graph.positions, graph.batch_index
        element = self.element_index[graph.numbers]
        cell = positions.new_zeros(graph.num_graphs, 3, 3) if graph.cell is None else graph.cell
        return {
            "positions": positions,
            "node_attrs": torch.nn.functional.one_hot(element, len(self.elements)).to(positions.dtype),
            "edge_index": graph.edge_index,
            "shifts": -graph.shifts,
            "unit_shifts": torch.zeros_like(graph.shifts),
            "cell": cell.reshape(-1, 3),
            "batch": batch,
            "ptr": graph.offsets(),
            "head": torch.full((graph.num_graphs,), self.head, dtype=torch.long, device=positions.device),
        }

    def forward(self, graph: Graph) -> Tensor:
        """Energies (B,) in eV."""
        return self.model(self.inputs(graph), training=self.training, compute_force=False)["energy"]


def load_potential(path: str, device: torch.device, dtype: torch.dtype | None) -> EnergyModelBackend | None:
    """Read a MACE model file (``.model``, or its TorchScript ``_compiled.model``); ``path`` may end in ``#head``.

    Returns
    -------
    EnergyModelBackend or None
        None if the file is not MACE's.

    Raises
    ------
    PotentialError
        If it is MACE's but cannot be used.
    """
    file, _, head = path.partition("#")
    scripted = _scripted(file)
    if scripted is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mace  # noqa: F401  (before e3nn: it sets how torch.load reads)
    except ImportError as error:
        raise PotentialError(
            f"{file} is a MACE model, but mace-torch is not installed ({error}): pip install 'hint-plugins[mace]'"
        ) from error
    try:
        with warnings.catch_warnings():  # deprecations inside torch.jit and e3nn, of no use to the user
            warnings.simplefilter("ignore")
            if scripted:
                model = torch.jit.load(file, map_location=device)
            else:
                with _scripts_to(device):
                    model = torch.load(file, map_location=device, weights_only=False)
    except (AttributeError, ImportError, ValueError) as error:
        raise PotentialError(
            f"{file} is a MACE model but cannot be read: {error}. A pickled model needs the e3nn it was saved with "
            "(mace-torch asks for 0.4.4); its _compiled.model does not"
        ) from error
    except Exception as error:
        raise PotentialError(f"{file} is a MACE model but cannot be read: {error}") from error
    if not hasattr(model, "r_max") or not hasattr(model, "atomic_numbers"):
        raise PotentialError(f"{file} holds a {type(model).__name__}, not a MACE model")
    own = next(model.parameters()).dtype
    return EnergyModelBackend(MaceEnergyModel(model, head or None), file, device, dtype or own)


def _scripts_to(device: torch.device) -> AbstractContextManager[None]:
    """Within, TorchScript parts of a pickled model go to ``device``; e3nn puts them where they were when saved."""
    return patched(torch.jit, "load", functools.partial(torch.jit.load, map_location=device))


def _scripted(file: str) -> bool | None:
    """Whether the file is a TorchScript archive (True) or a pickled module (False) of MACE; None for others."""
    if not zipfile.is_zipfile(file):
        return None
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        content = b"".join(archive.read(name) for name in names if name.rsplit("/", 1)[-1] == "data.pkl")
        code = any("/code/__torch__/mace/" in name for name in names)
    if code:
        return True
    if any(word in content for word in _MODEL):
        return False
    if all(word in content for word in _CHECKPOINT) and b"interactions." in content:
        raise PotentialError(
            f"{file} is a checkpoint of a MACE training run (weights without the model): give the .model file that "
            "the run writes at its end"
        )
    return None
