"""Every benchmark can be started."""

import importlib
import pkgutil

import pytest

import bench

APART = "bench.peers."
"""Programs with dependencies of their own."""
MODULES = [found.name for found in pkgutil.walk_packages(bench.__path__, "bench.")]


@pytest.mark.parametrize(
    "name",
    [name for name in MODULES if not name.startswith(APART) and not name.endswith("__main__")],
)
def test_a_module_of_the_benchmarks_can_be_imported(name):
    """What it takes from others is there."""
    importlib.import_module(name)
