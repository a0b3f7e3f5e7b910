"""Tokens a second of the learner's training loop, against a bare torch loop.

`python -m bench.training`. Both train the same model on the same inputs with the same loss; the
bare loop has its batches ready and does forward, loss, backward and step, and nothing else. They
take turns in one process; the medians are compared.
"""

from __future__ import annotations

import copy
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from learners.model import SequenceModel, TensorBatch
from learners.sequences import Batch, Sequences, lessons
from learners.softmax import Sampler, cross_entropy
from learners.training import Lessons, batches, fit
from pipeline.settings import Learning

ITEMS, CATEGORIES, USERS, EVENTS = 30_000, 300, 1_500, 45
REPEATS = 7
GOAL = 0.8
OUT = Path("build/bench/training.json")


def inputs(settings: Learning) -> Batch:
    """Make one week of users who walk through a catalogue in which few items are frequent."""
    random = np.random.default_rng(7)
    events = USERS * EVENTS
    sequences = Sequences(
        owners=[f"u{user}" for user in range(USERS)],
        starts=np.arange(USERS + 1) * EVENTS,
        items=np.minimum(random.zipf(1.2, events), ITEMS) - 1,
        types=np.zeros(events, np.int64),
        times=np.cumsum(random.integers(0, 3_600_000, events)),
        fresh=np.ones(events, np.bool_),
    )
    return lessons(sequences, settings.model.max_length)


def bare(model: SequenceModel, ready: list[TensorBatch], sampler: Sampler, rate: float) -> None:
    """Train once over the batches."""
    optimiser = torch.optim.Adam(model.parameters(), lr=rate, fused=True)
    draws = torch.Generator().manual_seed(7)
    model.train()
    for batch in ready:
        optimiser.zero_grad(set_to_none=True)
        loss, _ = cross_entropy(model, model(batch), batch.targets, sampler, draws)
        loss.backward()
        optimiser.step()


def ours(model: SequenceModel, rows: Batch, sampler: Sampler, settings: Learning) -> None:
    """Train once over the inputs, as the learner does; judging on held-out targets left out."""
    fit(
        model,
        Lessons(new=rows),
        epochs=1,
        settings=settings,
        sampler=sampler,
        seed=7,
        score=lambda _: 0.0,
        progress=lambda _share, _text: None,
    )


def run() -> dict[str, float]:
    """Measure; returns tokens a second of both loops and their ratio."""
    settings = Learning()
    torch.set_num_threads(settings.threads)
    rows = inputs(settings)
    model = SequenceModel(settings.model, torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    model.grow(torch.arange(ITEMS) % CATEGORIES, CATEGORIES, 1, generator)
    sampler = Sampler(np.ones(ITEMS, np.float32), settings.negatives, torch.device("cpu"))
    order = batches(rows, settings.batch, np.random.default_rng(7))
    ready = [TensorBatch.of(rows.take(chosen), torch.device("cpu")) for chosen in order]
    seconds: dict[str, list[float]] = {"learner": [], "bare": []}
    for turn in range(REPEATS + 1):
        for name, spent in seconds.items():
            pupil = copy.deepcopy(model)
            began = time.perf_counter()
            if name == "bare":
                bare(pupil, ready, sampler, settings.learning_rate)
            else:
                ours(pupil, rows, sampler, settings)
            if turn:  # the first is for warming up
                spent.append(time.perf_counter() - began)
    tokens = int(rows.lengths.sum())
    rates = {name: tokens / statistics.median(spent) for name, spent in seconds.items()}
    return {
        "tokens": tokens,
        "learner_tokens_per_second": round(rates["learner"]),
        "bare_tokens_per_second": round(rates["bare"]),
        "ratio": round(rates["learner"] / rates["bare"], 3),
        "goal": GOAL,
    }


def main() -> None:
    """Print the figures and keep them as JSON."""
    figures = run()
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"learner   {figures['learner_tokens_per_second']:>10,} tokens/s")
    print(f"bare loop {figures['bare_tokens_per_second']:>10,} tokens/s")
    print(f"ratio     {figures['ratio']:>10.2f}  (goal: at least {figures['goal']})")


if __name__ == "__main__":
    main()
