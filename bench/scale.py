"""What an event costs as the work grows: python -m bench.scale [--big] [--only users ...].

The interest stage without the bus: batches through the engine, states read from and written to
RocksDB as the worker does it, with the worker's cache and flushes. One thing grows at a time:
users, categories, the history behind each user, partitions. Who clicks follows Zipf's law with
exponent 1 over all users, and each of them has a state in the store before the clock starts. Each
point runs in a process of its own; its clock is that process's CPU time, all threads together.

`--big` has ten million users, too: that takes some 15 GB of disk and four minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.chart import chart, page
from bench.machine import RESULTS, save
from connectors.kafka.live_settings import Worker
from connectors.store import Pair, Store, WriteBehind, pairs
from pipeline.engine import Changes, Engine
from pipeline.events import NO_CODE, Clicks, Column
from pipeline.settings import Settings

BATCH = 4096
ITEMS_A_CATEGORY = 20
TEMPLATES = 500
BULK = 50_000
FLUSH_EVENTS = 200_000
"""What a worker reads in one `worker.flush_interval` at 100,000 events a second."""
NOW = 1_700_000_000_000
GOAL_SLOWER, GOAL_RESIDENT = 0.3, 1.5 * 2**30
"""Ten million users may be so much slower than 100,000, and take so many bytes."""


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """What a store and the clicks are made of."""

    users: int = 100_000
    categories: int = 1000
    history: int = 30
    """Events behind each user, on average, before the clock starts."""
    partitions: int = 1
    events: int = 1_000_000


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What came out."""

    microseconds: float
    """Of CPU time an event."""
    events_a_second: float
    """By the clock."""
    resident: int
    """Bytes, at most, while the clock ran."""


CURVES = {
    "users": [10_000, 100_000, 1_000_000],
    "categories": [10, 100, 1000, 10_000, 100_000],
    "history": [1, 10, 100, 1000],
    "partitions": [1, 4, 16, 64],
}
BIG = 10_000_000


def clicks_of(size: Size, draw: np.random.Generator, first: int, count: int) -> Clicks:
    """Draw clicks, one a second."""
    rank = np.floor(size.users ** draw.random(count)).astype(np.int64)  # Zipf, exponent 1
    user = rank * 2_654_435_761 % size.users  # neighbours by rank are none by key
    category = np.floor(size.categories ** draw.random(count)).astype(np.int64)
    item = category * ITEMS_A_CATEGORY + draw.integers(0, ITEMS_A_CATEGORY, count)
    return _clicks(user, item, category, first)


def _clicks(
    user: NDArray[np.int64], item: NDArray[np.int64], category: NDArray[np.int64], first: int
) -> Clicks:
    count = len(user)
    position = np.arange(first, first + count)
    return Clicks(
        source="bench",
        position=position,
        time=NOW + position * 1000,
        user=_column("u", user),
        item=_column("i", item),
        category=_column("c", category),
        event_type=Column(["view"], np.zeros(count, np.int32)),
        session=Column([], np.full(count, NO_CODE, np.int32)),
        event_id=np.zeros(count, np.uint64),
    )


def _column(letter: str, numbers: NDArray[np.int64]) -> Column:
    found, codes = np.unique(numbers, return_inverse=True)
    return Column([f"{letter}{number}" for number in found.tolist()], codes.astype(np.int32))


def fill(store: Store, size: Size, partition: int) -> None:
    """Give every user of a partition a state: one of some hundreds that the engine has made."""
    draw = np.random.default_rng(7)
    engine = Engine(Settings(), profiles=False)
    lengths = draw.geometric(1 / size.history, TEMPLATES)
    user = draw.permutation(np.repeat(np.arange(TEMPLATES), lengths))
    home = np.floor(size.categories ** draw.random((TEMPLATES, 8))).astype(np.int64)
    category = home[user, draw.integers(0, 8, len(user))]
    item = category * ITEMS_A_CATEGORY + draw.integers(0, ITEMS_A_CATEGORY, len(user))
    engine.process(_clicks(user, item, category, 0))
    changes = engine.changes()
    states = [state for _, state in changes.states]
    store.commit(Changes(states=[], names=changes.names, progress=b""), {})
    store.load_in_bulk(begin=True)
    mine = range(partition, size.users, size.partitions)
    for start in range(0, len(mine), BULK):
        users = mine[start : start + BULK]
        store.write(
            ((b"su%d" % number, states[number % len(states)]) for number in users), durable=False
        )
    store.flush()
    store.load_in_bulk(begin=False)
    store.compact()


class _Partition:
    """An engine over a store, which a flush writes to while further events are applied."""

    def __init__(self, store: Store, writer: ThreadPoolExecutor) -> None:
        self._states = states = WriteBehind(store)
        hot = Worker().hot_users
        self.engine = Engine(Settings(), load=states.load, name=states.name, capacity=hot)
        self._writer = writer
        self._written = writer.submit(lambda: None)

    def flush(self) -> None:
        """Begin to write what has changed, when the flush before it is written."""
        self._written.result()
        items = pairs(self.engine.changes(), {})
        self._states.on_its_way = dict(items)
        self._written = self._writer.submit(self._write, items)

    def _write(self, items: list[Pair]) -> None:
        self._states.store.write(items)
        self._states.on_its_way = {}


def measure(size: Size, home: Path) -> Cost:
    """Fill the stores, and run clicks through them."""
    stores = [Store(home / str(number)) for number in range(size.partitions)]
    for number, store in enumerate(stores):
        fill(store, size, number)
    with ThreadPoolExecutor(1) as writer:
        cost = _run(size, [_Partition(store, writer) for store in stores])
    for store in stores:
        store.close()
    return cost


def _run(size: Size, partitions: list[_Partition]) -> Cost:
    draw = np.random.default_rng(11)
    cpu = clock = 0.0
    resident = unflushed = 0
    behind = 2 * size.history * TEMPLATES
    for first in range(0, size.events, BATCH):
        batch = clicks_of(size, draw, behind + first, min(BATCH, size.events - first))
        shares = [(batch, 0)] if size.partitions == 1 else list(_by_partition(batch, size))
        began = time.process_time(), time.perf_counter()
        for share, number in shares:
            partitions[number].engine.process(share)
        unflushed += len(batch)
        for partition in partitions:
            if partition.engine.crowded or unflushed >= FLUSH_EVENTS:
                partition.flush()
        unflushed %= FLUSH_EVENTS
        cpu += time.process_time() - began[0]
        clock += time.perf_counter() - began[1]
        resident = max(resident, _resident())
    return Cost(
        microseconds=round(cpu / size.events * 1e6, 3),
        events_a_second=round(size.events / clock),
        resident=resident,
    )


def _by_partition(batch: Clicks, size: Size) -> Iterator[tuple[Clicks, int]]:
    of = np.array([int(name[1:]) % size.partitions for name in batch.user.values])
    partition = of[batch.user.codes]
    for number in np.unique(partition).tolist():
        yield batch.take(np.flatnonzero(partition == number)), number


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def apart(size: Size) -> Cost:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "bench.scale", "--one", msgspec.json.encode(size).decode()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)  # noqa: S603  our own command
    if done.returncode:
        raise RuntimeError(f"{size} failed: {done.stderr[-2000:]}")
    return msgspec.json.decode(done.stdout, type=Cost)


def slope(sizes: list[int], costs: list[Cost]) -> float:
    """Return the exponent: cost grows as size to that power, by least squares on the logs."""
    told = [cost.microseconds for cost in costs]
    return float(np.polyfit(np.log(sizes), np.log(told), 1)[0])


def curve(name: str, sizes: list[int], events: int) -> tuple[list[Cost], str]:
    """Measure along one dimension, print a line a point, and draw it."""
    print(f"{name}:")
    costs = []
    for number in sizes:
        size = msgspec.convert({"events": events, name: number}, Size)
        costs.append(apart(size))
        print(
            f"  {number:>12,}  {costs[-1].microseconds:8.2f} us of CPU an event"
            f"  {costs[-1].events_a_second:>9,.0f} events/s"
            f"  {costs[-1].resident / 2**20:>7,.0f} MiB",
            flush=True,
        )
    power = slope(sizes, costs)
    print(f"  cost grows as {name} to the power of {power:.3f}")
    across = "log10 of the " + name + ": " + ", ".join(f"{math.log10(n):.1f}" for n in sizes)
    title = f"Microseconds of CPU an event, by {name} (power {power:.3f})"
    return costs, chart(title, {name: [cost.microseconds for cost in costs]}, across)


def main() -> None:
    """Print each curve with its slope; draw them all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--big", action="store_true", help="ten million users, too")
    parser.add_argument("--only", nargs="+", choices=list(CURVES), default=list(CURVES))
    parser.add_argument("--events", type=int, default=Size().events)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        with tempfile.TemporaryDirectory(prefix="driftline-scale-") as home:
            size = msgspec.json.decode(options.one, type=Size)
            print(json.dumps(msgspec.to_builtins(measure(size, Path(home)))))
        return
    figures, charts = {}, []
    for name in options.only:
        sizes = CURVES[name] + ([BIG] if options.big and name == "users" else [])
        costs, drawn = curve(name, sizes, options.events)
        figures[name] = dict(zip(map(str, sizes), msgspec.to_builtins(costs), strict=True))
        charts.append(drawn)
        if sizes[-1] == BIG:
            usual, big = (costs[sizes.index(number)] for number in (Size().users, BIG))
            print(
                f"  ten million users: {big.events_a_second / usual.events_a_second - 1:+.0%} "
                f"events a second (goal: {-GOAL_SLOWER:+.0%} or better), "
                f"{big.resident / 2**30:.2f} GiB "
                f"(goal: below {GOAL_RESIDENT / 2**30})"
            )
    print(f"written to {save('scale', figures)}")
    (RESULTS / "scale.svg").write_text(page(charts), "utf-8")


if __name__ == "__main__":
    main()
