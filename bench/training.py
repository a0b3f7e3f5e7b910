"""Tokens a second of the learner's training loop, against a bare torch loop.

    python -m bench.training [--device cuda] [--settings FILE]

All train the same model on the same inputs with the same loss; the bare loops have their batches
ready on the device and do forward, loss, backward and step, and nothing else: in float32, with the
model under bfloat16 (autocast), with it compiled, and with both. They take turns in one process;
the medians are compared.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.machine import save
from learners.model import SequenceModel, TensorBatch
from learners.sequences import Batch, Sequences, lessons
from learners.softmax import Sampler, cross_entropy
from learners.training import Lessons, batches, fit
from pipeline.settings import Learning, load

ITEMS, CATEGORIES, USERS, EVENTS = 30_000, 300, 1_500, 45
REPEATS = 7
GOAL = 0.9


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


def bare(
    model: SequenceModel,
    ready: list[TensorBatch],
    sampler: Sampler | None,
    settings: Learning,
    *,
    states: Callable[..., torch.Tensor],
    half: bool = False,
) -> None:
    """Train once over the batches; `states` are the model's, compiled or as they are."""
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=True)
    draws = torch.Generator().manual_seed(7)
    model.train()
    for batch in ready:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=half):
            known = states(batch.items, batch.types, batch.gaps)[batch.asked]
        loss, _ = cross_entropy(
            model, known.float(), batch.targets, sampler, draws, half=settings.half_precision
        )
        loss.backward()
        optimiser.step()


def ours(model: SequenceModel, rows: Batch, sampler: Sampler | None, settings: Learning) -> None:
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


def loading(rows: Batch, settings: Learning, device: torch.device) -> float:
    """Return the seconds that the learner's loop takes to put its batches on the device."""
    began = time.perf_counter()
    for chosen in batches(rows, settings.batch, np.random.default_rng(7)):
        TensorBatch.of(rows.take(chosen), device)
    _finish(device)
    return time.perf_counter() - began


def run(settings: Learning, device: torch.device) -> dict[str, Any]:
    """Measure; returns tokens a second of all loops, and each over the bare one in float32."""
    torch.set_num_threads(settings.threads)
    rows = inputs(settings)
    model = SequenceModel(settings.model, torch.Generator().manual_seed(7)).to(device)
    generator = torch.Generator().manual_seed(7)
    model.grow((torch.arange(ITEMS) % CATEGORIES).to(device), CATEGORIES, 1, generator)
    sampler = None
    if settings.full_softmax_up_to < ITEMS:
        sampler = Sampler(np.ones(ITEMS, np.float32), settings.negatives, device)
    order = batches(rows, settings.batch, np.random.default_rng(7))
    ready = [TensorBatch.of(rows.take(chosen), device) for chosen in order]
    loops: dict[str, Callable[[], None]] = {}
    pupils = {}
    for name in ("learner", "bare", "bare, bfloat16", "bare, compiled", "bare, both"):
        pupils[name] = pupil = copy.deepcopy(model)
        if name == "learner":
            loops[name] = partial(ours, pupil, rows, sampler, settings)
            continue
        compiled = name.endswith(("compiled", "both"))
        states = torch.compile(pupil.states, dynamic=True) if compiled else pupil.states
        half = name.endswith(("bfloat16", "both"))
        loops[name] = partial(bare, pupil, ready, sampler, settings, states=states, half=half)
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(REPEATS + 1):
        for name, loop in loops.items():
            pupils[name].load_state_dict(model.state_dict())
            _finish(device)
            began = time.perf_counter()
            loop()
            _finish(device)
            if turn:  # the first is for warming up
                seconds[name].append(time.perf_counter() - began)
    tokens = int(rows.lengths.sum())
    medians = {name: statistics.median(spent) for name, spent in seconds.items()}
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "tokens": tokens,
        "tokens_per_second": {name: round(tokens / spent) for name, spent in medians.items()},
        "ratio": {name: round(medians["bare"] / spent, 3) for name, spent in medians.items()},
        "loading_share": round(loading(rows, settings, device) / medians["learner"], 3),
        "goal": GOAL,
    }


def _finish(device: torch.device) -> None:
    """Wait for the device: it computes behind the caller's back."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Print the figures and keep them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="of torch: cpu, cuda, …")
    parser.add_argument("--settings", type=Path, help="a TOML file; the defaults without one")
    arguments = parser.parse_args()
    figures = run(load(arguments.settings).learning, torch.device(arguments.device))
    print(figures["device"])
    for name, rate in figures["tokens_per_second"].items():
        print(f"{name:16}{rate:>12,} tokens/s{figures['ratio'][name]:>8.2f} of the bare loop")
    print(f"goal: the learner at {GOAL} of the bare loop or above")
    print(f"of the learner's time, {figures['loading_share']:.1%} goes into loading batches")
    print(f"written to {save('training', figures)}")


if __name__ == "__main__":
    main()
