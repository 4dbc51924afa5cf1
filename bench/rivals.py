"""Rivals are optional: one that cannot be installed is left out, and the report says so."""

from __future__ import annotations

import importlib
from typing import Any

import pytest


def rival(module: str) -> Any:
    """Import a rival's module, or skip the contender that needs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        pytest.skip(f"{module} cannot be imported: {error}")
