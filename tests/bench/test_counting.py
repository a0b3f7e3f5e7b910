"""The counting benchmark against the learner's own figures."""

from __future__ import annotations

import gzip
import json
import sys

import numpy as np
import pytest

from bench import counting
from bench.weekly import windows
from learners.continual import Learner
from pipeline.settings import Learning, Model, Settings

TOML = "[learning]\nmodel = { dim = 8, max_length = 10 }\n"


def test_it_counts_as_the_learner_does(tmp_path, monkeypatch):
    """The kNN of a window ranks the same alone and within the learner."""
    random = np.random.default_rng(3)
    lines = ["period,session_id,item_id"]
    lines += [
        f"{period},{period * 40 + session},{item}"
        for period in range(2)
        for step in random.integers(0, 60, (4, 40))
        for session, item in enumerate(step)
    ]
    events = tmp_path / "periods.csv.gz"
    events.write_bytes(gzip.compress("\n".join(lines).encode()))
    (tmp_path / "quick.toml").write_text(TOML)
    monkeypatch.chdir(tmp_path)
    flags = ["--events", events, "--settings", tmp_path / "quick.toml"]
    monkeypatch.setattr(sys, "argv", ["counting", *map(str, flags)])
    counting.main()
    told = json.loads((tmp_path / "build/bench/counting.json").read_text())

    model = Model(dim=8, max_length=10)
    learning = Learning(model=model, evaluate_at_most=0, first_epochs=1, epochs=1)
    learner = Learner(Settings(learning=learning))
    report = [learner.learn(window) for window in windows(events, Settings())][1]
    assert pytest.approx([100 * report.knn.recall, 100 * report.knn.mrr]) == told["knn"][0]
    assert pytest.approx([100 * report.markov.recall, 100 * report.markov.mrr]) == told["markov"][0]
