"""The recommenders that count and never train, over all periods of ADER's DIGINETICA.

    python -m bench.counting [--events FILE] [--settings FILE]

The protocol is that of `bench.continual`; without a model a period takes about a second. The kNN
stands twice: absorbing each period while it lasts, and waiting for its end.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.continual import ADER, ADER_SETTINGS
from bench.machine import save
from bench.weekly import is_periods, windows
from learners.baselines import Markov, Popularity
from learners.catalogue import Catalogue
from learners.ensemble import Exam
from learners.evaluation import answers
from learners.metrics import figures
from learners.neighbours import Neighbours
from learners.sequences import Ints, Sequences, group
from pipeline.settings import Learning, load

_ROWS = 256
Ranks = dict[str, list[Ints]]


class Counting:
    """What counts, and how it ranks a window's targets."""

    def __init__(self, learning: Learning) -> None:
        self.learning = learning
        self.absorbing, self.waiting = Neighbours(learning), Neighbours(learning)
        self.markov, self.popularity = Markov(learning), Popularity()

    def rank(self, exam: Exam, sequences: Sequences, known: int, items: int) -> Ranks:
        """Rank the protocol's targets among the known ones of all items, by recommender."""
        targets = answers(exam.questions)[exam.protocol]
        found: Ranks = {"popularity": [self.popularity.ranks(targets, known)]}
        since = 0
        for part in np.array_split(np.arange(len(exam)), self.learning.absorptions):
            until = int(exam.times[part[0]])
            self._absorb(sequences, since, until)
            since = until
            asked = part[exam.protocol[part]]
            for begin in range(0, len(asked), _ROWS):
                rows = asked[begin : begin + _ROWS]
                batch = exam.questions.take(rows)
                for name, scores in (
                    ("knn", self.absorbing.scores(batch, items)),
                    ("knn, waiting", self.waiting.scores(batch, items)),
                    ("markov", self.markov.scores(batch, items)),
                ):
                    found.setdefault(name, []).append(scores.ranks(answers(batch), known))
        self._absorb(sequences, since, int(sequences.times.max()) + 1)
        return found

    def learn(self, sequences: Sequences, factor: float) -> None:
        """End a window; `absorbing` has it already."""
        self.waiting.absorb(sequences)
        for neighbours in (self.absorbing, self.waiting):
            neighbours.settle(factor)
        self.markov.learn(sequences, factor)
        self.popularity.learn(sequences, factor)

    def _absorb(self, sequences: Sequences, since: int, until: int) -> None:
        now = (sequences.times >= since) & (sequences.times < until)
        self.absorbing.absorb(replace(sequences, fresh=now))


def main() -> None:
    """Print each period and the mean."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=Path, default=ADER)
    parser.add_argument("--settings", type=Path)
    arguments = parser.parse_args()
    ader = ADER_SETTINGS if is_periods(arguments.events) else None
    settings = load(arguments.settings or ader)
    learning = settings.learning
    counting, catalogue, known = Counting(learning), Catalogue(), 0
    found: dict[str, list[tuple[float, float]]] = {}
    for number, window in enumerate(windows(arguments.events, settings)):
        sequences, _ = group(window.clicks, *catalogue.read(window.clicks), learning.sequence)
        items = len(catalogue.items)
        if number:
            exam = Exam.of(
                sequences,
                known,
                length=learning.model.max_length,
                most=0,
                random=np.random.default_rng(settings.seed),
            )
            for name, ranks in counting.rank(exam, sequences, known, items).items():
                told = figures(np.concatenate(ranks))
                found.setdefault(name, []).append((100 * told.recall, 100 * told.mrr))
            print(number, {name: f"{r[-1][0]:.2f}/{r[-1][1]:.2f}" for name, r in found.items()})
        else:
            counting.absorbing.absorb(sequences)
        passed = window.end - window.start if number else 0
        counting.learn(sequences, 0.5 ** (passed / learning.half_life))
        known = items
    for name, pairs in found.items():
        recall, mrr = np.mean(pairs, axis=0)
        print(f"{name:14} recall@20 {recall:.2f}  mrr@20 {mrr:.2f}")
    print(f"pairs counted: {counting.absorbing.counts.bytes / 1e6:.1f} MB")
    print(f"written to {save('counting', found)}")


if __name__ == "__main__":
    main()
