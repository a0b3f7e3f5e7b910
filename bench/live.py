"""Events a second of the worker's whole job, beside other ways to read the same topic.

python -m bench.live [--events 600000] [--seconds 20] [--repeats 3]

One broker, one topic of two partitions, real events keyed by user: those of Complete Journey, its
users seven times beside each other. The clock of each starts behind its first batch, so that
starting up does not count, and stops after so many events or seconds. Peers that are not
dependencies of ours live in an environment of their own, build/bench/peers.
"""

from __future__ import annotations

import argparse
import itertools
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.machine import save
from bench.tiling import tiled, year
from connectors.kafka.produce import Record, produce, timed_records
from connectors.kafka.settings import Kafka
from connectors.kafka.topics import create
from deploy.kafka.cluster import Cluster

PEERS = Path("build/bench/peers")
PINNED = ["quixstreams==3.28.1", "bytewax[kafka]==0.21.1"]
TARGET = 100_000
"""Events a second of the whole job."""
TARGETS = {
    "aiokafka decoding": 0.5,
    "faust Table count": 60.0,
    "quix stateful count": 5.0,
    "bytewax stateful count": 1.5,
}
"""How many times as fast as a peer the whole job is to be."""
PROGRAMS = {
    "aiokafka decoding": (sys.executable, "aiokafka_decode.py"),
    "faust Table count": (sys.executable, "faust_table.py"),
    "quix stateful count": (str(PEERS / "bin/python"), "quix_count.py"),
    "bytewax stateful count": (str(PEERS / "bin/python"), "bytewax_count.py"),
}
OURS = "driftline worker, whole job"
DRIFTLINE = str(Path(sys.executable).with_name("driftline"))
START_SECONDS = 90.0
COPIES = 7
"""How often the users of Complete Journey are there: its year then has ten million events."""


def environment() -> str | None:
    """Install the peers where they are not yet; return why they cannot be."""
    uv = Path(sys.executable).with_name("uv")
    made = [str(uv), "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(PEERS)]
    target = ["--quiet", "--python", str(PEERS / "bin/python")]
    for command in (made, [str(uv), "pip", "install", *target, *PINNED]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  our own command
        if done.returncode:
            return done.stderr.strip().splitlines()[-1]
    return None


def events(count: int) -> Iterator[Record]:
    """Return real purchases as records, from the beginning of the year."""
    return itertools.islice(timed_records(tiled(year(), COPIES)), count)


def peer(name: str, kafka: Kafka, count: int, seconds: float) -> float:
    """Run a peer; return its events a second."""
    python, program = PROGRAMS[name]
    path = Path("bench/peers", program)
    command = [python, str(path), ",".join(kafka.bootstrap_servers), kafka.clicks]
    done = subprocess.run(  # noqa: S603  our own command
        [*command, str(count), str(seconds)],
        capture_output=True,
        text=True,
        check=False,
        timeout=START_SECONDS + 2 * seconds,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd())]))},
    )
    if done.returncode or not done.stdout.strip():
        raise RuntimeError(f"{name} failed: {done.stderr[-2000:]}")
    seen, took = done.stdout.split()[-2:]
    return int(seen) / float(took)


def worker(kafka: Kafka, count: int, seconds: float, home: Path) -> float:
    """Run the worker in a group of its own; return its events a second, read off its metrics."""
    with started(kafka, home) as port:
        return _followed(port, count, seconds)


@contextmanager
def started(kafka: Kafka, home: Path, more: str = "") -> Iterator[int]:
    """Run a worker, named by its directory; give the port of its metrics.

    `more` are further lines of its settings file.
    """
    settings, port = prepared(kafka, home, more)
    try:
        with running("worker", settings, home / "log"):
            yield port
    except TimeoutError:
        raise RuntimeError(
            f"the worker did not start: {(home / 'log').read_text()[-2000:]}"
        ) from None


def prepared(kafka: Kafka, home: Path, more: str = "") -> tuple[Path, int]:
    """Write settings into a new directory, whose name is the group's, and make the topics.

    Returns the settings file and the port of a worker's metrics.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    home.mkdir()
    settings = home / "driftline.toml"
    servers = ", ".join(f'"{server}"' for server in kafka.bootstrap_servers)
    settings.write_text(
        f'[kafka]\nbootstrap_servers = [{servers}]\ngroup = "{home.name}"\nreplication = 1\n'
        f'partitions = 2\n[worker]\ndata = "{home}/data"\nmetrics_port = {port}\n{more}'
    )
    subprocess.run(  # noqa: S603  our own command
        [DRIFTLINE, "topics", "create", "--settings", settings], check=True, capture_output=True
    )
    return settings, port


@contextmanager
def running(command: str, settings: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `driftline worker` or `driftline learner`."""
    with log.open("wb") as told:
        process = subprocess.Popen(  # noqa: S603  our own command
            [DRIFTLINE, command, "--settings", settings], stdout=told, stderr=told
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _followed(port: int, count: int, seconds: float) -> float:
    until, first, began = time.monotonic() + START_SECONDS, 0, 0.0
    while True:
        now, seen = time.monotonic(), offsets(port)
        if not first and seen:
            first, began = seen, now
        if first and (seen >= count or now - began > seconds):
            return (seen - first) / (now - began)
        if not first and now > until:
            raise TimeoutError
        time.sleep(0.1)  # each look takes a moment from the worker


def offsets(port: int) -> int:
    """Return how many records a worker has dealt with, by its metrics."""
    return sum(offsets_by_source(port).values())


def offsets_by_source(port: int) -> dict[str, int]:
    """Return how far a worker has come in each of its partitions; nothing before it answers."""
    address = f"http://127.0.0.1:{port}/metrics"
    with suppress(OSError), urllib.request.urlopen(address) as answer:
        lines = [line.rsplit(maxsplit=1) for line in answer.read().decode().splitlines()]
        return {
            name: int(float(value)) for name, value in lines if name.startswith("driftline_offset{")
        }
    return {}


def main() -> None:
    """Print a line a competitor, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=600_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    lack = environment()
    if lack:
        print(f"  quix and bytewax are left out: {lack}")
    names = [name for name in PROGRAMS if not lack or PROGRAMS[name][0] == sys.executable]
    runs: dict[str, list[float]] = {name: [] for name in [OURS, *names]}
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as folder:
        home = Path(folder)
        with Cluster(directory=home / "kafka") as cluster:
            kafka = Kafka(
                bootstrap_servers=cluster.bootstrap.split(","), partitions=2, replication=1
            )
            create(kafka)
            sent = produce(kafka, events(options.events))
            print(
                f"{sent:,} events of Complete Journey, each user {COPIES} times; "
                f"{options.repeats} repeats: min, median, max"
            )
            for repeat in range(options.repeats):
                ours = worker(kafka, sent, options.seconds, home / f"worker-{repeat}")
                runs[OURS].append(ours)
                for name in names:
                    runs[name].append(peer(name, kafka, sent, options.seconds))
    told = statistics.median(runs[OURS])
    for name, speeds in runs.items():
        median = statistics.median(speeds)
        target = f" (target {TARGET:,})"
        if name != OURS:
            target = f"; ours is {told / median:.2f} times as fast (target {TARGETS[name]:g})"
        seen = f"{min(speeds):>9,.0f} {median:>9,.0f} {max(speeds):>9,.0f}"
        print(f"  {name:28} {seen} events/s{target}")
    print(f"  written to {save('live', {'events': sent, 'events_per_second': runs})}")


if __name__ == "__main__":
    main()
