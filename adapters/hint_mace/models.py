"""Models of plugins in MACE's trainer."""

from __future__ import annotations

from typing import Any


def wrap_models(adapter: Any) -> None:
    """Placeholder until models are registered."""
