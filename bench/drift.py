"""How often drift alerts are wrong, how many changes they find, and how soon.

    python -m bench.drift [--events FILE] [--seeds 5]

Streams are made of real histories, so that the truth is known:

- permuted: each user's events in random order; nothing to find, every alert is false
- visits: each user's visits in random order, so that bursts remain; nothing to find either
- splices: one user's shuffled visits go on with another's; the change point is known

The prior is calibrated on one half of the users and the figures are of the other half.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from bench.machine import inputs, save
from connectors.files import read
from pipeline.calibration import (
    MOST_EVENTS,
    alarms,
    calibrate,
    false_alarm_rate,
    histories,
    shuffle_visits,
    splices,
)
from pipeline.events import Clicks, concatenate
from pipeline.settings import Settings, Source

SIDE = 50
"""Events that a history has on either side of a splice, at least."""
MOST_USERS = 600


def measure(clicks: Clicks, seed: int) -> dict[str, float]:
    """Calibrate on half of the users, and measure on the other half."""
    random = np.random.default_rng(seed)
    settings = Settings(seed=seed)
    half = random.random(len(clicks.user.values)) < 0.5  # noqa: PLR2004  a half
    prior = calibrate(clicks.take(np.flatnonzero(half[clicks.user.codes])), settings)
    rest = clicks.take(np.flatnonzero(~half[clicks.user.codes]))
    users = histories(rest, 2 * SIDE, random)[:MOST_USERS]
    permuted = [random.permutation(rows[:MOST_EVENTS]) for rows in users]
    visits = [shuffle_visits(rest, rows[:MOST_EVENTS], random) for rows in users]
    made = splices(rest, users, random, least=SIDE)
    found = alarms(rest, [splice.rows for splice in made], settings, prior)
    hits = [
        [event - splice.change for event in events if event >= splice.change]
        for events, splice in zip(found, made, strict=True)
    ]
    caught = sum(bool(events) for events in hits)
    raised = sum(len(events) for events in found)
    recall, precision = caught / len(made), caught / max(raised, 1)
    delays = [events[0] for events in hits if events]
    return {
        "users": len(users),
        "concentration": prior.concentration,
        "false_alarms_per_1000_permuted": 1000 * false_alarm_rate(rest, permuted, settings, prior),
        "false_alarms_per_1000_visits": 1000 * false_alarm_rate(rest, visits, settings, prior),
        "recall": recall,
        "precision": precision,
        "f1": 2 * precision * recall / max(precision + recall, 1e-9),
        "delay_median": float(np.median(delays)) if delays else float("nan"),
        "delay_90": float(np.percentile(delays, 90)) if delays else float("nan"),
    }


def main() -> None:
    """Print a table a data set: mean and spread over seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=Path, help="a file that `driftline replay` reads")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    chosen = {arguments.events.name: arguments.events} if arguments.events else inputs()
    promise = 1000 / Settings().drift.events_per_false_alarm
    figures = {}
    for name, path in chosen.items():
        clicks = concatenate([batch for batch, _ in read([path], Source())])
        runs = [measure(clicks, seed) for seed in range(arguments.seeds)]
        figures[name] = runs
        print(f"{name}: {arguments.seeds} seeds; promised: {promise:g} false alarms per 1,000")
        for figure in runs[0]:
            values = [run[figure] for run in runs]
            print(f"  {figure:32} {np.mean(values):9.4f} ± {np.std(values):.4f}")
    print(f"written to {save('drift', figures)}")


if __name__ == "__main__":
    main()
