"""Arrows point one way: connectors -> learners -> pipeline."""

import ast
import gc
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "pipeline": {
        "learners",
        "connectors",
        "faust",
        "mode",
        "kafka",
        "aiokafka",
        "rocksdict",
        "torch",
    },
    "learners": {"connectors", "faust", "mode", "kafka", "aiokafka", "rocksdict"},
}


def parsed(path):
    gc.disable()  # Python 3.11 fails where a traceback is printed meanwhile, of what is collected
    try:
        return ast.parse(path.read_text())
    finally:
        gc.enable()


def imported(path):
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_arrow_points_back(package):
    """Neither the core nor the learners know of what stands above them."""
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    found = {(str(f.relative_to(ROOT)), m) for f in files for m in imported(f)}
    assert set() == {(f, m) for f, m in found if m in FORBIDDEN[package]}


def test_the_core_reads_no_clock_and_draws_nothing_unseeded():
    """Event time only."""
    clocks = {"time", "random", "datetime", "secrets", "uuid"}
    found = {(f.name, m) for f in (ROOT / "pipeline").rglob("*.py") for m in imported(f)}
    assert set() == {(f, m) for f, m in found if m in clocks}


def test_nothing_is_pickled():
    """No pickle, marshal, shelve or joblib anywhere."""
    packages = ("pipeline", "learners", "connectors")
    files = [f for package in packages for f in (ROOT / package).rglob("*.py")]
    found = {(f.name, m) for f in files for m in imported(f)}
    assert set() == {(f, m) for f, m in found if m in {"pickle", "marshal", "shelve", "joblib"}}
