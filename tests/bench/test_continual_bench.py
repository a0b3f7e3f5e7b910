"""The continual benchmark, end to end on a small file in ADER's layout."""

from __future__ import annotations

import gzip
import json
import sys
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from bench import continual
from bench.weekly import is_periods, windows
from pipeline.settings import Settings

TOML = """
[learning]
evaluate_at_most = 0
first_epochs = 2
epochs = 1
replay_capacity = 50
model = { dim = 8, heads = 2, max_length = 10 }
"""


@pytest.fixture
def events(tmp_path):
    random = np.random.default_rng(3)
    lines = ["period,session_id,item_id"]
    for period in range(3):
        items = random.integers(0, 60, (4, 40))
        lines += [
            f"{period},{period * 40 + session},{item}"
            for step in items
            for session, item in enumerate(step)
        ]
    path = tmp_path / "periods.csv.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def test_a_period_becomes_a_window(events):
    """Sessions stand for users, events keep their order, and no event is lost."""
    found = windows(events, Settings())

    assert is_periods(events)
    assert [160, 160, 160] == [len(window.clicks) for window in found]
    assert all((np.diff(window.clicks.time) > 0).all() for window in found)
    assert "session:0" in found[0].clicks.user.values
    assert [160, 319] == found[1].clicks.position[[0, -1]].tolist()


def test_thinned_windows_keep_whole_sessions(events):
    """About one session in four is left, with all of its events in their order."""
    whole, thinned = windows(events, Settings()), windows(events, Settings(), thin=4)
    for before, after in zip(whole, thinned, strict=True):
        left = np.isin(before.clicks.user.codes, after.clicks.user.codes)
        assert (before.clicks.position[left] == after.clicks.position).all()
        assert 4 * len(set(after.clicks.user.codes.tolist())) == len(after.clicks)
    kept = sum(len(window.clicks) for window in thinned) / 480
    assert 0.15 < kept < 0.35


def test_it_prints_keeps_and_draws(events, tmp_path, monkeypatch, capsys):
    """Means in the file are those of its windows; the drawing is sound XML."""
    settings = tmp_path / "quick.toml"
    settings.write_text(TOML)
    monkeypatch.chdir(tmp_path)
    flags = ["--events", events, "--settings", settings, "--seeds", "2"]
    flags += ["--strategy", "default", "finetune"]
    monkeypatch.setattr(sys, "argv", ["continual", *map(str, flags)])
    continual.main()
    told = json.loads((tmp_path / "build/bench/continual.json").read_text())
    runs = told["finetune"]["windows"]
    expected = np.mean([report["knn"]["recall@20"] for report in runs[0][1:]])

    assert 2 == len(runs)
    assert expected == pytest.approx(told["finetune"]["means"][0]["knn"]["recall@20"])
    assert 10 > runs[0][-1]["buffer_bytes"] < told["default"]["costs"]["buffer_bytes"]
    out = capsys.readouterr().out
    assert "published" in out
    assert 2 == out.count("backward transfer")
    ET.parse(tmp_path / "build/bench/continual.svg")  # noqa: S314  our own drawing


def test_contributions_are_differences_between_strategies(events, tmp_path, monkeypatch, capsys):
    """Of each part: what it adds to nothing, and what is lost where it alone is left out."""
    settings = tmp_path / "quick.toml"
    settings.write_text(TOML)
    monkeypatch.chdir(tmp_path)
    flags = ["--events", events, "--settings", settings, "--seeds", "1", "--contributions"]
    monkeypatch.setattr(sys, "argv", ["continual", *map(str, flags)])
    continual.main()
    told = json.loads((tmp_path / "build/bench/continual.json").read_text())

    def gain(one, other):
        found = [told[name]["means"][0]["model"]["recall@20"] for name in (one, other)]
        return f"{100 * (found[0] - found[1]):+.2f}"

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    [ewc] = [line for line in lines if line and line[0] == "ewc" and len(line) > 5]
    assert gain("ewc", "finetune") == ewc[1]
    assert gain("replay+ewc+distill", "distill") == ewc[6]
