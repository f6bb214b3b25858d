"""Reading and writing of weights: our own files, and state dicts of the published networks."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hint_plugins.models.alphanet.config import PUBLISHED, AlphaNetConfig

if TYPE_CHECKING:
    from hint_plugins.models.alphanet.network import AlphaNet

FORMAT = "hint-plugins AlphaNet 1"

#: Options of the published code that this code reads.
_READ_OPTIONS = frozenset(
    [
        "num_layers",
        "hidden_channels",
        "cutoff",
        "num_radial",
        "head",
        "main_chi1",
        "mp_chi1",
        "chi2",
        "hidden_channels_chi",
        "eps",
        "readout",
        "reduce_mode",
        "has_norm_before_flag",
        "has_norm_after_flag",
        "use_sigmoid",
    ]
)
#: Options of the published code that do not change the energy, or that are handled elsewhere.
_IGNORED_OPTIONS = frozenset(
    [
        "name",
        "variant",
        "rotary",
        "zbl",
        "num_targets",
        "output_dim",
        "has_dropout_flag",
        "use_pbc",
        "compute_forces",
        "compute_stress",
        "dtype",
        "eval_mode",
        "a",
        "b",
        "device",
        "otf_graph",
        "max_neighbors",
    ]
)
_ANCHOR = "z_emb.weight"
#: Tensors of the published networks that no energy depends on.
_UNUSED = ("unitary", "fc_dx.weight", "fc_dx.bias")


def save(model: AlphaNet, path: str | Path) -> None:
    """Write config and weights; the file appears complete or not at all.

    Parameters
    ----------
    model : AlphaNet
    path : path
    """
    path = Path(path)
    content = {"format": FORMAT, "config": model.config.to_dict(), "state_dict": model.state_dict()}
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".")
    try:
        with os.fdopen(descriptor, "wb") as file:
            torch.save(content, file)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load(network: type[AlphaNet], path: str | Path, device: torch.device | str = "cpu") -> AlphaNet:
    """Read a file of :func:`save`, in the dtype it was saved in.

    Parameters
    ----------
    network : type
        :class:`~hint_plugins.models.alphanet.network.AlphaNet`, which is made from the file's config.
    path : path
    device : device

    Raises
    ------
    ValueError
        If the file is not an AlphaNet file.
    """
    content = torch.load(path, map_location=device, weights_only=True)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is not a file of AlphaNet.save (format {FORMAT!r})")
    model = network(AlphaNetConfig.from_dict(content["config"]))
    model.to(device=device, dtype=content["state_dict"]["scale"].dtype)
    model.load_state_dict(content["state_dict"])
    return model


def from_official(
    network: type[AlphaNet],
    state_dict: Mapping[str, Any],
    config: Mapping[str, Any],
    variant: str | None = None,
    rotary: bool | None = None,
    zbl: bool | None = None,
) -> AlphaNet:
    """Build a published network from its weights.

    Parameters
    ----------
    network : type
        :class:`~hint_plugins.models.alphanet.network.AlphaNet`.
    state_dict : mapping
        Tensors or arrays by the published names, with any common prefix (``model.``, ``potential.``,
        ``module.``); a checkpoint that holds them under ``state_dict`` is fine too. Tensors that no energy
        depends on are ignored.
    config : mapping
        Options by their published names (``num_layers``, ``hidden_channels``, ...). The keys ``variant``,
        ``rotary`` and ``zbl`` may stand here too.
    variant : {"gauss", "bessel", "square"}, optional
        Which published network; the weights cannot tell ``bessel`` from ``square``.
    rotary : bool, optional
        False for weights of copies in which the rotary step is dead.
    zbl : bool, optional
        Add the short-range repulsion to the energy.

    Returns
    -------
    AlphaNet
        In evaluation mode and in the dtype of the weights (double if the config says ``dtype: "64"``).

    Raises
    ------
    ValueError
        If variant is missing, an option does not fit, or the weights do not: naming the first misfit and the
        variant the weights look like.
    """
    options = dict(config)
    variant = variant or options.get("variant")
    if variant not in PUBLISHED:
        raise ValueError(f"AlphaNet weights: variant must be one of {PUBLISHED}, got {variant!r}")
    if int(options.get("output_dim", 1)) != 1:
        raise ValueError("AlphaNet weights: output_dim must be 1, an energy")
    tensors = _strip_prefix(state_dict)
    rotary = bool(options.get("rotary", True)) if rotary is None else rotary
    if zbl is None and "zbl" not in options and any(name.startswith("fzbl_") for name in tensors):
        warnings.warn(
            "the weights carry constants of a short-range repulsion, which some published versions add to the "
            "energy and others do not; pass zbl=True to add it",
            stacklevel=3,
        )
    zbl = bool(options.get("zbl", False)) if zbl is None else zbl
    model = network(AlphaNetConfig(**_read_options(options), variant=variant, rotary=rotary, zbl=zbl))
    dtype = torch.float64 if str(options.get("dtype", "")) == "64" else tensors[_ANCHOR].dtype
    model.to(dtype)
    model.load_state_dict(_translate(model, tensors))
    return model.eval()


def _read_options(options: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {"num_layers": 3, "num_radial": 96, "main_chi1": 24, "mp_chi1": 24, "chi2": 6}
    unknown = sorted(set(options) - _READ_OPTIONS - _IGNORED_OPTIONS)
    if unknown:
        warnings.warn(f"AlphaNet options without a known meaning are ignored: {unknown}", stacklevel=4)
    return defaults | {name: options[name] for name in sorted(_READ_OPTIONS) if name in options}


def _strip_prefix(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    if isinstance(state_dict.get("state_dict"), Mapping):
        state_dict = state_dict["state_dict"]
    anchors = [name for name in state_dict if name == _ANCHOR or name.endswith("." + _ANCHOR)]
    if len(anchors) != 1:
        raise ValueError(
            f"AlphaNet weights: expected one tensor named {_ANCHOR!r} (after a common prefix), found {anchors}"
        )
    prefix = anchors[0].removesuffix(_ANCHOR)
    return {
        name.removeprefix(prefix): torch.as_tensor(value)
        for name, value in state_dict.items()
        if name.startswith(prefix) and not name.endswith("__config__")
    }


def _key_map(model: AlphaNet) -> dict[str, str]:
    """Our name -> published name."""
    parts = {
        "scale": "a",
        "shift": "b",
        "body.initial_phase": "kernel1",
        "body.element": "z_emb",
        "body.neighbour": "neighbor_emb.embedding",
        "body.radial.frequencies": "radial_emb.bessel_weights",
        "body.radial.means": "radial_emb.means",
        "body.radial.betas": "radial_emb.betas",
        "body.radial_filter": "radial_lin",
        "body.direction": "S_vector.lin1.0",
        "body.scalarise": "lin",
        "body.scalar_readout": "last_layer",
        "body.phase_readout": "last_layer_quantum",
    }
    message = {
        "node_filter": "x_proj",
        "node_norm": "x_layernorm",
        "edge_radial": "rbf_proj",
        "edge_direction": "dir_proj",
        "expand": "scale",
        "kernel_real": "kernel_real",
        "kernel_imag": "kernel_imag",
        "gate": "diagonal",
        "mix": "dia",
        "mix_vector": "diachi1",
        "angle": "fc_mps",
        "rotation": "scale2.0",
        "message_norm": "dx_layer_norm",
    }
    for t in range(model.config.num_layers):
        parts |= {f"body.layers.{t}.{ours}": f"message_layers.{t}.{theirs}" for ours, theirs in message.items()}
        parts[f"body.layers.{t}.vector_mix"] = f"FTEs.{t}.vec_proj"
        parts[f"body.layers.{t}.vector_gate"] = f"FTEs.{t}.xvec_proj"
    names = {}
    for key in model.state_dict():
        if key.startswith("body.phase_steps."):
            names[key] = "kernels_" + key.rsplit(".", 1)[1]
            continue
        part = max((p for p in parts if key == p or key.startswith(p + ".")), key=len)
        names[key] = parts[part] + key.removeprefix(part)
    return names


def _translate(model: AlphaNet, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    config = model.config
    unread = set(tensors)
    translated = {}
    for ours, theirs in _key_map(model).items():
        target = model.state_dict()[ours]
        if theirs not in tensors:
            raise _misfit(tensors, config, f"{theirs!r} is missing")
        unread.discard(theirs)
        tensor = tensors[theirs]
        shape = tuple(target.shape)
        if ours.startswith("body.phase_steps."):
            shape = (config.num_layers, *shape)
        if tuple(tensor.shape) != shape:
            raise _misfit(tensors, config, f"{theirs!r} has shape {tuple(tensor.shape)}, the config says {shape}")
        if ours.startswith("body.phase_steps."):
            tensor = tensor[int(ours.split(".")[2])]
        translated[ours] = tensor
    last = f"message_layers.{config.num_layers - 1}.scale2.0."
    for name in sorted(unread):
        if not (name.endswith(_UNUSED) or name.startswith((last, "fzbl_"))):
            raise _misfit(tensors, config, f"{name!r} has no place in this network")
    return translated


def _misfit(tensors: Mapping[str, Tensor], config: AlphaNetConfig, what: str) -> ValueError:
    gauss = "radial_emb.means" in tensors
    looks = ("gauss",) if gauss else ("bessel", "square")
    if config.variant in looks:
        advice = f"variant {config.variant!r} is possible; check the sizes in the config"
    else:
        advice = f"the weights look like variant {' or '.join(map(repr, looks))}, not {config.variant!r}"
    return ValueError(f"AlphaNet weights do not fit the network: {what}; {advice}")
