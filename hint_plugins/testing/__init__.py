"""Tests that other packages run on their own models (needs pytest)."""

import pytest

pytest.register_assert_rewrite("hint_plugins.testing.energy_model")  # what a failure compared is shown
