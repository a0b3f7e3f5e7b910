"""How often drift alerts are wrong, how many changes they find, and how soon; beside River's.

    python -m bench.drift [--events FILE] [--seeds 5] [--peers river:adwin …]

The streams are those of `bench.streams`. Everything is tuned on one half of the users (the prior
and threshold by `driftline calibrate`, River's options over a grid, at the promised rate of false
alarms on shuffled visits), and the figures are of the other half.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from time import process_time

import numpy as np

from bench.machine import inputs, save
from bench.river_detectors import GRIDS, MOST_STREAMS, Found, run, signals, tune
from bench.streams import Streams, make
from connectors.files import read
from pipeline.calibration import SIDE, alarms, calibrate, histories, scores
from pipeline.engine import Engine
from pipeline.events import Clicks, concatenate
from pipeline.prior import Prior
from pipeline.settings import Settings, Source

MOST_USERS = 800
TUNED_ON = 200
"""Users of the tuning half that River's options are chosen on."""
UNLIKE = 2 / 3
"""Pairs are unlike from this quantile of their distance on."""

Detect = Callable[[Streams], Found]
Figures = dict[str, dict[str, float]]


def measure(clicks: Clicks, seed: int, peers: list[str]) -> Figures:
    """Tune on half of the users, and measure our detector and its peers on the other half."""
    random = np.random.default_rng(seed)
    settings = Settings(seed=seed)
    half = random.random(len(clicks.user.values)) < 0.5  # noqa: PLR2004  a half
    tuning = clicks.take(np.flatnonzero(half[clicks.user.codes]))
    rest = clicks.take(np.flatnonzero(~half[clicks.user.codes]))
    prior = calibrate(tuning, settings)
    made = make(rest, histories(rest, 2 * SIDE, random)[:MOST_USERS], random)
    tuned = make(tuning, histories(tuning, 2 * SIDE, random)[:TUNED_ON], random)
    figures = {"driftline": judge(_driftline(rest, settings, prior), made)}
    for name in peers:
        few = MOST_STREAMS.get(name)
        steady, spliced = (
            signals(tuning, tuned[kind].rows[:few], settings, prior)
            for kind in ("visits", "spliced")
        )
        options = tune(name, steady, spliced, tuned["spliced"], settings)

        def detect(streams: Streams, name: str = name, options: dict = options) -> Found:
            signal = signals(rest, streams.rows, settings, prior)
            return run(name, options, signal, settings.drift.minimum_events)

        figures[name] = judge(detect, {kind: _first(made[kind], few) for kind in made})
    return figures


def _first(streams: Streams, few: int | None) -> Streams:
    return Streams(streams.rows[:few], streams.change[:few], streams.unlike[:few])


def _driftline(clicks: Clicks, settings: Settings, prior: Prior) -> Detect:
    def detect(streams: Streams) -> Found:
        found = alarms(clicks, streams.rows, settings, prior)
        start = process_time()
        scores(clicks, streams.rows, settings, prior)
        seconds = process_time() - start
        return Found(
            alarms=found,
            ns_per_event=1e9 * seconds / sum(len(rows) for rows in streams.rows),
            bytes_per_user=state_bytes(clicks, streams, settings, prior),
        )

    return detect


def state_bytes(clicks: Clicks, streams: Streams, settings: Settings, prior: Prior) -> float:
    """Return the mean length of a stored interest state, with the profile that it is too."""
    engine = Engine(settings, prior=prior)
    engine.process(clicks.take(np.sort(np.concatenate(streams.rows[:100]))))
    return float(np.mean([len(data) for _, data in engine.changes().states]))


def judge(detect: Detect, made: dict[str, Streams]) -> dict[str, float]:
    """Return the figures of one detector over all kinds of streams."""
    found = {kind: detect(streams) for kind, streams in made.items()}
    figures: dict[str, float] = {}
    for kind in ("spliced", "gradual"):
        figures |= {
            f"{kind} {name}": value
            for name, value in _changes(found[kind].alarms, made[kind]).items()
        }
    for kind in ("permuted", "visits", "untouched"):
        events = sum(len(rows) for rows in made[kind].rows)
        raised = sum(len(of) for of in found[kind].alarms)
        told = "alarms" if kind == "untouched" else "false_alarms"
        figures[f"{kind} {told} per 1,000"] = 1000 * raised / events
    figures["false discovery rate"] = _false_discoveries(found, made)
    figures["event_ns"] = found["visits"].ns_per_event
    figures["user_bytes"] = found["visits"].bytes_per_user
    return figures


def _changes(raised: list[list[int]], streams: Streams) -> dict[str, float]:
    delays = np.array(
        [
            next((event - change + 1 for event in events if event >= change), np.nan)
            for events, change in zip(raised, streams.change, strict=True)
        ]
    )
    caught = np.isfinite(delays)
    recall = caught.mean()
    precision = caught.sum() / max(sum(len(events) for events in raised), 1)
    unlike = streams.unlike >= np.quantile(streams.unlike, UNLIKE)
    return {
        "F1": 2 * precision * recall / max(precision + recall, 1e-9),
        "recall": recall,
        "precision": precision,
        "delay": _quantile(delays[caught], 0.5),
        "delay 90": _quantile(delays[caught], 0.9),
        "delay unlike": _quantile(delays[caught & unlike], 0.5),
    }


def _quantile(delays: np.ndarray, share: float) -> float:
    return float(np.quantile(delays, share)) if len(delays) else float("nan")


def _false_discoveries(found: dict[str, Found], made: dict[str, Streams]) -> float:
    """Return the share of false alerts over users: as many who change as do not.

    A user counts once, by the first alert; those without a change over as many events.
    """
    false = true = 0
    for events, change in zip(found["spliced"].alarms, made["spliced"].change, strict=True):
        if events:
            false += events[0] < change
            true += events[0] >= change
    pairs = zip(made["spliced"].rows, found["visits"].alarms, strict=False)
    false += sum(bool(events) and events[0] < len(rows) for rows, events in pairs)
    return float(false / max(false + true, 1))


def _cell(values: np.ndarray) -> str:
    return f"{values.mean():14.3f} ± {values.std():5.3f}" if len(values) else f"{'none':>22}"


def main() -> None:
    """Print a table a data set: the mean over seeds, and its spread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=Path, help="a file that `driftline replay` reads")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--peers", nargs="*", choices=list(GRIDS), default=list(GRIDS))
    arguments = parser.parse_args()
    chosen = {arguments.events.name: arguments.events} if arguments.events else inputs()
    promise = Settings().drift
    figures = {}
    for name, path in chosen.items():
        clicks = concatenate([batch for batch, _ in read([path], Source())])
        runs = [measure(clicks, seed, arguments.peers) for seed in range(arguments.seeds)]
        figures[name] = {
            detector: {
                figure: [one[detector][figure] for one in runs] for figure in runs[0][detector]
            }
            for detector in runs[0]
        }
        print(
            f"{name}: {arguments.seeds} seeds; promised: "
            f"{1000 / promise.events_per_false_alarm:g} false alarms per 1,000 events, "
            f"a false discovery rate of {promise.false_discovery_rate:g}"
        )
        print(f"{'':30}" + "".join(f"{detector:>22}" for detector in runs[0]))
        for figure in runs[0]["driftline"]:
            cells = [np.array(found[figure]) for found in figures[name].values()]
            print(f"{figure:30}" + "".join(_cell(of[np.isfinite(of)]) for of in cells))
    print(f"written to {save('drift', figures)}")


if __name__ == "__main__":
    main()
