"""The ``hint:`` block of a fairchem config: one set of options for dataset, sampler and callback."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pluggy
from omegaconf import DictConfig, OmegaConf

from hint_plugins.config import ConfigError, HintConfig, make_config
from hint_plugins.hookspecs import Options
from hint_plugins.plugins import load_plugins
from hint_plugins.registries import use

#: Keys of the block that belong to the adapter itself.
OWN = ("plugins", "seed")


@dataclass
class Hint:
    """Plugins and their options, as one part of the config sees them.

    Attributes
    ----------
    manager
        Plugins, configured.
    config
        Options of the plugin ``hint``.
    seed
        Of the probes.
    values
        All options of the block, defaults of ``hint`` included: what must be equal in all parts of a config.
    """

    manager: pluggy.PluginManager
    config: HintConfig
    seed: int
    values: dict[str, Any]

    @property
    def hook(self) -> Any:
        return self.manager.hook


def read_block(block: Mapping[str, Any] | DictConfig | None) -> Hint:
    """Validate the block and load the plugins it names.

    Parameters
    ----------
    block
        Options of the plugins (those of ``hint`` are the fields of
        :class:`~hint_plugins.config.HintConfig`), with ``plugins`` (names, default ``[hint]``) and
        ``seed`` (default 0).

    Raises
    ------
    ConfigError
        For an unknown key, with the nearest known one, and for values that do not fit.
    """
    if isinstance(block, DictConfig):
        block = OmegaConf.to_container(block, resolve=True)  # type: ignore[assignment]
    if block is not None and not isinstance(block, Mapping):
        raise ConfigError(f"hint: expected a block of options, got {block!r}")
    values = {str(name): value for name, value in (block or {}).items()}
    plugins = values.pop("plugins", ["hint"])
    manager = load_plugins(plugins)
    use(manager)
    options = Options()
    manager.hook.add_options(options=options)
    known = {name for model in options.groups.values() for name in model.model_fields}
    for name in values:
        if name not in known and name not in OWN:
            near = difflib.get_close_matches(name, sorted(known) + list(OWN), 1)
            advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
            raise ConfigError(f"hint.{name}: no such option; {advice}")
    seed = values.setdefault("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ConfigError(f"hint.seed: expected a whole number, got {seed!r}")
    manager.hook.configure(values=values)
    config = make_config(HintConfig, {k: v for k, v in values.items() if k in HintConfig.model_fields})
    assert isinstance(config, HintConfig)
    return Hint(manager, config, seed, {"plugins": list(plugins), **config.model_dump(), **values})


def require_same(mine: Hint, other: Hint, where: str) -> None:
    """Refuse a part of the config that works with other options than the callback.

    Parameters
    ----------
    mine, other
        Options of the callback and of the other part.
    where
        The other part, for the message.

    Raises
    ------
    ConfigError
        Naming the first option that differs.
    """
    for name in {**mine.values, **other.values}:
        first, second = mine.values.get(name), other.values.get(name)
        if first != second:
            raise ConfigError(
                f"hint.{name} is {first!r} in the callback but {second!r} in {where}: give both `hint: ${{hint}}`, "
                "the one block of options"
            )


def no_unknown(where: str, unknown: Mapping[str, Any], known: list[str]) -> None:
    """Refuse misspelt keywords of one of our parts.

    Raises
    ------
    ConfigError
        With the nearest known name.
    """
    for name in unknown:
        near = difflib.get_close_matches(name, known, 1)
        advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        raise ConfigError(f"{where}.{name}: no such key; {advice}")
