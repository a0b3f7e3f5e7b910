"""Two workers on two cores beside one, and what the broker takes of the same cores.

python -m bench.pair [--events 4000000] [--seconds 6] [--repeats 3]

One broker, one topic of two partitions, events as in `bench.live`. Two workers of one group have a
partition each; the clock starts when every worker has read some of its own. Cores are CPU seconds
in a second by the clock.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.live import START_SECONDS, events, offsets, offsets_by_source, prepared, running
from bench.machine import save
from connectors.kafka.produce import produce
from connectors.kafka.settings import Kafka
from connectors.kafka.topics import create
from deploy.kafka.cluster import Cluster

TARGET = 1.8
"""How many times as fast as one two workers have to be."""
PARTITIONS = 2
TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What workers did together, by the second."""

    events_per_second: float
    worker_cores: float
    broker_cores: float


def measure(kafka: Kafka, broker: int, homes: Sequence[Path], seconds: float) -> Run:
    """Run a worker in each directory, all of one group; `broker` is the broker's process."""
    with ExitStack() as stack:
        pids, ports = [], []
        for home in homes:
            settings, port = prepared(kafka, home)
            pids.append(stack.enter_context(running("worker", settings, home / "log")).pid)
            ports.append(port)
        _wait_shared(ports)
        began, first = time.monotonic(), sum(map(offsets, ports))
        workers, brokers = sum(map(_cpu, pids)), _cpu(broker)
        time.sleep(seconds)
        took, last = time.monotonic() - began, sum(map(offsets, ports))
        return Run(
            events_per_second=(last - first) / took,
            worker_cores=(sum(map(_cpu, pids)) - workers) / took,
            broker_cores=(_cpu(broker) - brokers) / took,
        )


def _wait_shared(ports: Sequence[int]) -> None:
    """Wait until every worker has read of partitions that are its own alone."""
    until = time.monotonic() + START_SECONDS
    while True:
        read = [offsets_by_source(port) for port in ports]
        shares = [sum(1 for offset in offsets.values() if offset) for offsets in read]
        if min(shares) == max(shares) == PARTITIONS // len(ports):
            return
        if time.monotonic() > until:
            raise RuntimeError(f"the partitions were not shared out: {read}")
        time.sleep(0.1)


def _cpu(pid: int) -> float:
    """Return the CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


def main() -> None:
    """Print the speed of one worker and of two, and the cores that each took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=4_000_000)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    runs: dict[int, list[Run]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as folder:
        home = Path(folder)
        for place in ("first", "second"):
            (home / place).mkdir()
        with Cluster(directory=home / "kafka") as cluster:
            kafka = Kafka(
                bootstrap_servers=cluster.bootstrap.split(","),
                partitions=PARTITIONS,
                replication=1,
            )
            create(kafka)
            sent = produce(kafka, events(options.events))
            print(f"{sent:,} events, {options.repeats} repeats: min, median, max")
            broker = int((home / "kafka" / "broker-1" / "pid").read_text())
            for repeat in range(options.repeats):
                for count, done in runs.items():
                    group = f"group-{count}-{repeat}"
                    homes = [home / place / group for place in ("first", "second")[:count]]
                    done.append(measure(kafka, broker, homes, options.seconds))
    for count, done in runs.items():
        speeds = [run.events_per_second for run in done]
        print(
            f"  workers: {count} {min(speeds):>9,.0f} "
            f"{statistics.median(speeds):>9,.0f} {max(speeds):>9,.0f} events/s; cores: "
            f"{statistics.median(run.worker_cores for run in done):.2f}, "
            f"broker {statistics.median(run.broker_cores for run in done):.2f}"
        )
    one, two = (statistics.median(run.events_per_second for run in done) for done in runs.values())
    print(f"  two are {two / one:.2f} times as fast as one (target {TARGET})")
    figures = {f"workers_{count}": [asdict(run) for run in done] for count, done in runs.items()}
    print(f"  written to {save('pair', {'events': sent, 'ratio': two / one, **figures})}")


if __name__ == "__main__":
    main()
