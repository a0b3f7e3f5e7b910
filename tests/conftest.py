"""Shared by all tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("default", deadline=None)
settings.load_profile("default")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the parity test run on all of its data, see `make parity`."""
    parser.addoption("--whole", action="store_true", help="parity on whole data sets, not on parts")
