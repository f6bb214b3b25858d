"""Growing string and RS-I-RFO of pysisyphus, where the user has installed it (GPL-3; it is not a dependency)."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from hint_plugins.cli.common import InputError

if TYPE_CHECKING:
    from hint_recipes.transition_states.search import SearchSettings


def needs_pysisyphus(settings: SearchSettings) -> None:
    """Refuse settings that ask for pysisyphus when it is not installed."""
    if (settings.path == "gsm" or settings.saddle == "rsirfo") and importlib.util.find_spec("pysisyphus") is None:
        raise InputError("gsm and rsirfo need pysisyphus (GPL-3): pip install pysisyphus, or choose neb and sella")
