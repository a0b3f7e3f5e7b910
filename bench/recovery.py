"""How fast a worker comes back: python -m bench.recovery [--states 1000000].

One partition's states, made by the engine, are written to a changelog on a broker of its own and
restored from it to an empty disk; then the store is opened with its disk in place. The peer is what
any restore has to do: read the same records with the same client, and keep nothing. Rates are by
the clock and, as a busy machine tells on those, by CPU time of all threads of this process.

Then a standby copies the partition at its own pace, a hundredth of the states changes, and the
partition moves to the copy before that has read any of it.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np

from bench.machine import save
from connectors.kafka.changelog import Changelog
from connectors.kafka.restore import LOG, open_state, state_path
from connectors.kafka.settings import Kafka
from connectors.kafka.standby import Standby
from connectors.kafka.topics import create
from connectors.store import Pair, meta_key
from deploy.kafka.cluster import Cluster
from pipeline.engine import Engine
from pipeline.events import NO_CODE, Clicks, Column
from pipeline.settings import Settings

TEMPLATES = 2000
EVENTS = 30
FLUSH = 100_000
"""States in a flush."""


class Stopwatch:
    """Seconds that a block takes, by the clock and of CPU time."""

    clock = cpu = 0.0

    def __enter__(self) -> Self:
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.clock = time.perf_counter() - self._began[0]
        self.cpu = time.process_time() - self._began[1]


def templates() -> list[bytes]:
    """Return the states of users with some thirty events each, in a dozen categories or so."""
    draw = np.random.default_rng(7)
    count = TEMPLATES * EVENTS
    texts = {
        "user": Column([f"u{n}" for n in range(TEMPLATES)], np.arange(count) % TEMPLATES),
        "item": Column([f"i{n}" for n in range(5000)], draw.integers(0, 5000, count)),
        "category": Column([f"c{n}" for n in range(40)], draw.zipf(1.6, count) % 40),
        "event_type": Column(["view"], np.zeros(count, np.int32)),
        "session": Column([], np.full(count, NO_CODE)),
    }
    columns = {name: Column(c.values, c.codes.astype(np.int32)) for name, c in texts.items()}
    clicks = Clicks(
        source="bench",
        position=np.arange(count),
        time=1_700_000_000_000 + np.arange(count) * 60_000,
        event_id=np.zeros(count, np.uint64),
        **columns,
    )
    engine = Engine(Settings())
    engine.process(clicks)
    return [state for _, state in engine.changes().states]


def flushes(states: int, kinds: list[bytes]) -> Iterator[list[Pair]]:
    """Yield the keys and values of a changelog of so many users."""
    for first in range(0, states, FLUSH):
        users = range(first, min(first + FLUSH, states))
        pairs: list[Pair] = [(b"suser-%08d" % n, kinds[n % len(kinds)]) for n in users]
        yield [*pairs, (b"mprogress", b"\x80"), (meta_key(LOG), b"bench"), (meta_key("stamp"), b"")]


async def measure(kafka: Kafka, states: int, disk: Path) -> dict[str, Any]:
    """Write, read, restore and reopen; seconds and rates."""
    kinds = templates()
    log = Changelog(kafka, 0)
    await log.claim()
    with Stopwatch() as write:
        for pairs in flushes(states, kinds):
            await log.write(pairs, [])
    with Stopwatch() as read:
        async for _ in log.read(0):
            pass
    with Stopwatch() as restore:
        store, _ = await open_state(disk, log)
    store.close()
    with Stopwatch() as reopen:
        store, _ = await open_state(disk, log)
    found = store.load([f"user-{states - 1:08d}"])
    store.close()
    copy, move = await measure_copy(kafka, log, states // 100, kinds, disk.parent)
    await log.close()
    if found != [kinds[(states - 1) % len(kinds)]]:
        raise RuntimeError("the last user's state did not come back")
    rates = {"written": write, "read": read, "restored": restore}
    return {
        "states": states,
        "bytes_a_state": round(sum(map(len, kinds)) / len(kinds)),
        **{f"{name}_a_second": round(states / watch.clock) for name, watch in rates.items()},
        **{f"{name}_a_cpu_second": round(states / watch.cpu) for name, watch in rates.items()},
        "restored_to_read": round(read.clock / restore.clock, 2),
        "restored_seconds": round(restore.clock, 2),
        "reopened_seconds": round(reopen.clock, 2),
        "copied_a_second": round(states / copy.clock),
        "moved_seconds": round(move.clock, 2),
    }


async def measure_copy(
    kafka: Kafka, log: Changelog, changed: int, kinds: list[bytes], home: Path
) -> tuple[Stopwatch, Stopwatch]:
    """Copy a partition, change some states, and have it move to the copy."""
    standby = Standby(kafka, str(home), quiet=0.0)
    with Stopwatch() as copy:
        rest = 0.0
        while list(standby.behind().values()) != [0]:
            await asyncio.sleep(rest)
            rest = await standby.follow()
    for pairs in flushes(changed, kinds[1:]):
        await log.write(pairs, [])
    with Stopwatch() as move:
        await standby.let_go(0)
        store, _ = await open_state(state_path(str(home), kafka.clicks, 0), log)
    found = store.load(["user-00000000"])
    store.close()
    await standby.close()
    if found != [kinds[1]]:
        raise RuntimeError("the newest state did not come along")
    return copy, move


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="bench.recovery", description=__doc__)
    parser.add_argument("--states", type=int, default=1_000_000)
    states = parser.parse_args().states
    with tempfile.TemporaryDirectory() as home, Cluster(directory=Path(home, "kafka")) as cluster:
        kafka = Kafka(bootstrap_servers=[cluster.bootstrap], partitions=1, replication=1)
        create(kafka)
        figures = asyncio.run(measure(kafka, states, Path(home, "state")))
    for name, figure in figures.items():
        print(f"{name:20} {figure:>12,}")
    print(f"saved to {save('recovery', figures)}")


if __name__ == "__main__":
    main()
