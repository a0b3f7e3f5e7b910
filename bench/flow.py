"""Clicks at an even rate while the learner trains: is memory flat, and does the group hold?

python -m bench.flow [--minutes 60] [--rate 5000]

One broker, a worker and a learner; settings are the defaults but for longer windows, and training
that keeps up with them on a core of its own. The clicks are a year of real purchases, played eight
times over: later by whole weeks each time, and by as many users beside each other as the rate asks
for. So all users, items and seasons are met in the first quarter, and what grows after it has no
reason to. Resident memory is that of the worker, and of the learner's two processes: one consumes,
one trains.
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event, Thread
from typing import Self

import numpy as np
import pyarrow.parquet as pq
from kafka.admin import KafkaAdminClient

from bench.chart import chart, page
from bench.live import START_SECONDS, offsets, prepared, running
from bench.machine import RESULTS, inputs, save
from bench.tiling import span, tiled, year
from connectors.kafka.produce import Record, produce, timed_records
from connectors.kafka.settings import Kafka
from connectors.kafka.topics import create
from deploy.kafka.cluster import Cluster

SETTINGS = """
[windows]
size = "28d"
[learning]
first_epochs = 2
epochs = 1
batch = 128
"""
TIMES = 8
"""How often the year is played: twice a quarter, since trends look back a year."""
TOLERANCE = 0.05
"""By how much the memory of the last quarter may differ from that of the second."""
EVERY_SECONDS = 5.0
ASSIGNED = "Executing _on_partitions_assigned"
"""What Faust logs whenever partitions are dealt out."""
LEARNT = re.compile(r"window to \S+ (?:promoted|rejected|none),")
_MINUTE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How things stand at a moment."""

    seconds: float
    """Since the first click."""
    sent: int
    lag_worker: int
    """Clicks sent that the worker has not dealt with."""
    lag_learner: int
    """The same of the learner's committed offsets."""
    learnt: int
    """Windows."""
    memory: dict[str, float]
    """MB by process."""


def clicks(copies: int) -> Iterator[Record]:
    """Yield the year over and over, each user in so many copies, with event times."""
    log = year()
    for later in itertools.count(step=span(log)):
        for batch in tiled(log, copies):
            yield from timed_records([replace(batch, time=batch.time + later)])


class Watch:
    """Samples a worker and a learner from a thread of its own, and tells of it."""

    def __init__(
        self, kafka: Kafka, home: Path, *, port: int, pids: tuple[int, int], sent: int
    ) -> None:
        self.samples: list[Sample] = []
        self._sent = self._first = sent
        self._began = time.monotonic()
        self._logs = [home / "worker.log", home / "learner.log"]
        self._group = f"{home.name}-learner"
        self._admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
        self._port, self._pids = port, pids
        self._over = Event()
        self._thread = Thread(target=self._run)

    def __enter__(self) -> Self:
        self._before = self._assignments()
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._admin.close()

    def tell(self, sent: int, _time: int) -> None:
        """Note how many clicks were sent."""
        self._sent = self._first + sent

    @property
    def rebalances(self) -> int:
        """How often partitions were dealt out since the first click."""
        return self._assignments() - self._before

    def _assignments(self) -> int:
        return sum(log.read_text("utf-8", "replace").count(ASSIGNED) for log in self._logs)

    def _run(self) -> None:
        lines = itertools.count(1)
        while not self._over.wait(EVERY_SECONDS):
            self.samples.append(now := self._sample())
            everyone = " ".join(f"{name} {size:,.0f}" for name, size in now.memory.items())
            line = (
                f"{now.seconds / _MINUTE:.1f} min, {now.sent:,} clicks, lag {now.lag_worker:,} and "
                f"{now.lag_learner:,}, {now.learnt} windows, MB: {everyone}"
            )
            if sys.stderr.isatty():
                print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
            elif next(lines) % round(_MINUTE / EVERY_SECONDS) == 0:
                print(line, file=sys.stderr, flush=True)

    def _sample(self) -> Sample:
        read_ = self._admin.list_group_offsets(self._group)[self._group]
        return Sample(
            seconds=time.monotonic() - self._began,
            sent=self._sent,
            lag_worker=max(0, self._sent - offsets(self._port)),
            lag_learner=max(0, self._sent - sum(at.offset for at in read_.values())),
            learnt=len(LEARNT.findall(self._logs[1].read_text("utf-8", "replace"))),
            memory=resident(*self._pids),
        )


def resident(worker: int, learner: int) -> dict[str, float]:
    """Return the resident memory of a worker, a learner and its child, in MB."""
    command = ["ps", "-A", "-o", "pid=,ppid=,rss="]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603  our own command
    found = {"worker": 0.0, "learner": 0.0, "training": 0.0}
    for pid, parent, size in (map(int, line.split()) for line in told.splitlines()):
        name = {worker: "worker", learner: "learner"}.get(pid)
        name = name or ("training" if parent == learner else None)
        if name:
            found[name] += size * 1024 / 1e6
    return found


def quarters(samples: list[Sample], name: str) -> list[float]:
    """Return a process's mean memory in each quarter of the time, in MB."""
    parts = np.array_split(np.array([sample.memory[name] for sample in samples]), 4)
    return [float(part.mean()) for part in parts]


def report(samples: list[Sample], rebalances: int, rate: int) -> dict[str, object]:
    """Print what came out, and return it."""
    last = samples[-1]
    print(f"\n{last.sent:,} clicks in {last.seconds / _MINUTE:.1f} minutes; MB by quarter:")
    memory = {name: quarters(samples, name) for name in last.memory}
    growth = {}
    for name, parts in memory.items():
        growth[name] = parts[3] / parts[1] - 1
        held = "flat" if abs(growth[name]) <= TOLERANCE else "NOT flat"
        told = "".join(f"{part:>9,.0f}" for part in parts)
        print(f"  {name:10}{told}   last to second {growth[name]:+.1%}: {held}")
    print(f"  {last.learnt} windows learnt, {rebalances} rebalances since the first click")
    for name in ("lag_worker", "lag_learner"):
        lags = np.array([getattr(sample, name) for sample in samples]) / rate
        middle, most = np.median(lags), lags.max()
        print(f"  {name}: median {middle:.1f} s, at most {most:.1f} s, at the end {lags[-1]:.1f} s")
    return {
        "offered_per_second": last.sent / last.seconds,
        "memory_megabytes": memory,
        "growth": growth,
        "rebalances": rebalances,
        "samples": [asdict(sample) for sample in samples],
    }


def drawing(samples: list[Sample], rate: int) -> str:
    """Draw memory and lag over the minutes."""
    minutes = samples[:: round(_MINUTE / EVERY_SECONDS)]
    memory = {name: [s.memory[name] for s in minutes] for name in minutes[0].memory}
    lag = {
        "worker": [s.lag_worker / rate for s in minutes],
        "learner": [s.lag_learner / rate for s in minutes],
    }
    return page(
        [chart("resident memory, MB", memory, "minute"), chart("lag, seconds", lag, "minute")]
    )


def _await_both(port: int, learner: Path) -> None:
    """Wait until both have their partitions."""
    until = time.monotonic() + START_SECONDS
    while not offsets(port) or ASSIGNED not in learner.read_text("utf-8", "replace"):
        if time.monotonic() > until:
            raise TimeoutError(f"worker or learner did not start, see {learner.parent}")
        time.sleep(0.5)


def flow(home: Path, minutes: float, rate: int) -> None:
    """Run it in a directory, in which all logs stay."""
    count = round(minutes * _MINUTE * rate)
    events = pq.read_metadata(inputs()["complete_journey"]).num_rows
    copies = max(1, round(count / TIMES / events))
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(directory=home / "kafka"))
        kafka = Kafka(bootstrap_servers=cluster.bootstrap.split(","), partitions=2, replication=1)
        create(kafka)
        records = clicks(copies)
        produce(kafka, itertools.islice(records, rate))
        settings, port = prepared(kafka, home / "flow", SETTINGS)
        logs = [settings.parent / f"{name}.log" for name in ("worker", "learner")]
        worker = stack.enter_context(running("worker", settings, logs[0]))
        learner = stack.enter_context(running("learner", settings, logs[1]))
        _await_both(port, logs[1])
        pids = worker.pid, learner.pid
        with Watch(kafka, settings.parent, port=port, pids=pids, sent=rate) as watch:
            paced = ((n * 1000 // rate, key, value) for n, (_, key, value) in enumerate(records))
            produce(kafka, itertools.islice(paced, count), speed=1.0, progress=watch.tell)
        figures = report(watch.samples, watch.rebalances, rate)
    print(f"  written to {save('flow', {'copies': copies, **figures})}")
    picture = RESULTS / "flow.svg"
    picture.write_text(drawing(watch.samples, rate))
    print(f"  drawn in {picture}")


def main() -> None:
    """Print the figures, keep and draw them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=int, default=5_000, help="clicks a second")
    parser.add_argument("--dir", type=Path, help="kept, with all logs; default: a temporary one")
    options = parser.parse_args()
    if options.dir:
        options.dir.mkdir(parents=True)
        return flow(options.dir, options.minutes, options.rate)
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as home:
        return flow(Path(home), options.minutes, options.rate)


if __name__ == "__main__":
    main()
