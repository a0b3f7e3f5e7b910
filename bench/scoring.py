"""How long the best 20 items for a user take: python -m bench.scoring [--items 10000 1000000].

Models of the default size over made catalogues: items around the centres of their categories, 200
in each, as a trained model has them. Asked after histories of 30 events, most of three categories,
on one core: what the model knows, and the best items by it. The index is compared with scoring all.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import torch

from bench.machine import save
from learners.checkpoint import Names
from learners.model import SequenceModel
from learners.recommend import Recommender
from pipeline.settings import Model

QUERIES = 500
COUNT = 20
A_CATEGORY = 200
GOAL_MS = 5.0
SPREAD = 0.7
"""Of items around their category, whose own spread is 1."""


def made(items: int, draw: torch.Generator) -> tuple[SequenceModel, Names]:
    """Make a model over a catalogue."""
    model = SequenceModel(Model(output="mean"), draw)
    categories = items // A_CATEGORY
    model.grow(torch.arange(items) % categories, categories, 1, draw)
    with torch.no_grad():
        model.categories.normal_(0, 1, generator=draw)
        model.items.normal_(0, SPREAD, generator=draw)
    names = [f"i{row}" for row in range(items)]
    return model.eval(), Names(items=names, categories=["c"] * categories, types=["click"])


def histories(items: int, random: np.random.Generator) -> list[list[str]]:
    """Draw what users met: 30 items of three categories."""
    categories = items // A_CATEGORY
    found = []
    for _ in range(QUERIES):
        of = random.choice(random.integers(0, categories, 3), 30)
        rows = of + categories * random.integers(0, A_CATEGORY, 30)
        found.append([f"i{row}" for row in rows.tolist()])
    return found


def asked(recommender: Recommender, users: list[list[str]]) -> tuple[list[set[str]], np.ndarray]:
    """Return the best items of each user, and how long each took, milliseconds (n,)."""
    best, took = [], []
    for items in users:
        began = time.perf_counter()
        found = recommender.top(items, count=COUNT)
        took.append(1000 * (time.perf_counter() - began))
        best.append({item for item, _ in found})
    return best, np.array(took)


def main() -> None:
    """Print a line a catalogue and way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, dict[str, float]] = {}
    print(f"the best {COUNT} items, {QUERIES} users, one core; goal: p99 within {GOAL_MS:g} ms")
    for items in options.items:
        model, names = made(items, torch.Generator().manual_seed(1))
        users = histories(items, np.random.default_rng(2))
        exact, took = asked(Recommender(model, names, exact_up_to=items), users)
        figures[f"{items} exact"] = _told(f"{items:,} items, all scored", took)
        began = time.perf_counter()
        index = Recommender(model, names, exact_up_to=0)
        made_in = time.perf_counter() - began
        found, took = asked(index, users)
        recall = float(np.mean([len(a & b) / COUNT for a, b in zip(exact, found, strict=True)]))
        figures[f"{items} index"] = _told(f"{items:,} items, index", took) | {"recall": recall}
        print(f"{'':30} recall against all {recall:.4f}; made in {made_in:.1f} s")
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"  at most {resident:.2f} GiB; written to {save('scoring', figures)}")


def _told(name: str, took: np.ndarray) -> dict[str, float]:
    p50, p99 = (float(ms) for ms in np.percentile(took, [50, 99]))
    print(f"{name:30} p50 {p50:7.2f} ms  p99 {p99:7.2f} ms", flush=True)
    return {"p50_ms": p50, "p99_ms": p99}


if __name__ == "__main__":
    main()
