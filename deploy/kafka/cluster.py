"""A real Kafka on this machine, without containers: one or three brokers on loopback ports.

The jars come from Maven Central (pom.xml beside this file) and are fetched once into
`build/kafka/jars`. Needs Java 17 or newer, and Maven for the first start.

    python -m deploy.kafka start --brokers 3 --port 9092 --dir build/kafka
    python -m deploy.kafka stop --dir build/kafka

Not for production: no TLS, no authentication, small heaps.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Self

HERE = Path(__file__).resolve().parent
JARS = HERE.parents[1] / "build" / "kafka" / "jars"
HOST = "127.0.0.1"
CLUSTER_ID = "ZHJpZnRsaW5lLWxvY2FsMQ"  # 16 bytes in base64; any will do, it must only stay the same
# The first compiler alone: a broker is up in half the time, and no slower beside its clients.
QUICK = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
BROKER = [*QUICK, "-Xms192m", "-Xmx384m", "-Dlog4j2.level=WARN"]
PORTS = range(20_000, 30_000)
"""Below those that the system gives to clients, which might take one before the broker does."""
START_SECONDS = 90.0
STOP_SECONDS = 30.0


class ClusterError(RuntimeError):
    """The cluster cannot be had; the message says why and how to mend it."""


@dataclass(frozen=True)
class Broker:
    """Where a broker listens: for clients, and for the other controllers."""

    node: int
    port: int
    controller: int


def missing() -> str | None:
    """Say what this machine lacks to run a broker; None where it lacks nothing."""
    java = shutil.which("java")
    if java is None:
        return "java is not on the PATH: install a Java runtime, 17 or newer"
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S603 (our own command)
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version[1]) < 17:  # noqa: PLR2004 (what Kafka 4 asks for)
        said = told.splitlines()[0] if told else "nothing"
        return f"{java} is not Java 17 or newer (it says: {said}); put a newer one on the PATH"
    if not _fetched() and shutil.which("mvn") is None:
        return f"mvn is not on the PATH and {JARS} is empty: install Maven, it fetches Kafka once"
    return None


def fetch_jars() -> None:
    """Fetch Kafka's jars with Maven, unless they are here already.

    Raises:
        ClusterError: Java or Maven is missing, or Maven failed.
    """
    lack = missing()
    if lack:
        raise ClusterError(lack)
    if _fetched():
        return
    JARS.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=JARS.parent) as fresh:
        command = ["mvn", "-q", "-B", "-f", str(HERE / "pom.xml"), "dependency:copy-dependencies"]
        done = subprocess.run(  # noqa: S603 (our own command)
            [*command, f"-DoutputDirectory={fresh}/jars"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ClusterError(
                f"Maven could not fetch Kafka (exit {done.returncode}); is Maven Central within "
                f"reach?\n{_tail(done.stdout + done.stderr)}"
            )
        shutil.rmtree(JARS, ignore_errors=True)
        Path(fresh, "jars").rename(JARS)
        _stamp().write_text(_wanted(), "utf-8")


class Cluster:
    """One or three combined brokers and controllers (KRaft) in a directory.

    What was produced outlives `stop`, and `start` goes on with it. The same directory always has
    the same ports. As a context manager it starts on entry and stops on exit.

    Args:
        directory: where data, logs and process ids stand.
        brokers: how many; three tolerate the loss of one.
        port: of the first broker, the others follow; None takes free ones.
        properties: broker settings to add or replace.
    """

    def __init__(
        self,
        *,
        directory: Path,
        brokers: int = 1,
        port: int | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory.resolve()
        self.brokers = self._remembered() or _layout(brokers, port)
        self._properties = properties or {}
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        if len(self.brokers) != brokers:
            raise ClusterError(
                f"{directory} holds {len(self.brokers)} brokers, not {brokers}: name another "
                f"directory, or delete this one to start anew"
            )

    @property
    def bootstrap(self) -> str:
        """The addresses that a client connects to."""
        return ",".join(f"{HOST}:{broker.port}" for broker in self.brokers)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all brokers that do not run, and wait until every one knows all the others.

        Raises:
            ClusterError: something is missing, a port is taken, or a broker failed to start.
        """
        fetch_jars()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._memory().write_text(json.dumps([asdict(b) for b in self.brokers]), "utf-8")
        for index in range(len(self.brokers)):
            if not self.alive(index):
                self._launch(index)
        for index in range(len(self.brokers)):
            self._wait_ready(index)

    def stop(self, only: int | None = None) -> None:
        """Shut every broker, or one, down cleanly; one that hangs is killed after a while."""
        wanted = range(len(self.brokers)) if only is None else [only]
        running = [index for index in wanted if self.alive(index)]
        for index in running:
            self._signal(index, signal.SIGCONT)
            self._signal(index, signal.SIGTERM)
        until = time.monotonic() + STOP_SECONDS
        for index in running:
            while self.alive(index) and time.monotonic() < until:
                time.sleep(0.05)
            if self.alive(index):
                self.kill(index)

    def kill(self, index: int) -> None:
        """End a broker at once, as a power cut would (SIGKILL)."""
        self._signal(index, signal.SIGKILL)
        while self.alive(index):
            time.sleep(0.01)

    def pause(self, index: int) -> None:
        """Freeze a broker (SIGSTOP): its connections stay open and nothing answers."""
        self._signal(index, signal.SIGSTOP)

    def resume(self, index: int) -> None:
        """Let a frozen broker go on (SIGCONT)."""
        self._signal(index, signal.SIGCONT)

    def restart(self, index: int) -> None:
        """Start a broker that ended, and wait until it answers; a running one is killed first."""
        if self.alive(index):
            self.kill(index)
        self._launch(index)
        self._wait_ready(index)

    def alive(self, index: int) -> bool:
        """Tell whether the broker's process runs."""
        child = self._children.get(index)
        if child is not None:
            return child.poll() is None
        pid = self._pid(index)
        if pid is None:
            return False
        command = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
        told = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603 (our own command)
        return "kafka.Kafka" in told and str(self._home(index)) in told

    def running(self) -> int:
        """Return the number of brokers whose processes run."""
        return sum(self.alive(index) for index in range(len(self.brokers)))

    def ready(self, index: int) -> bool:
        """Tell whether the broker answers and knows all the brokers of the cluster."""
        return _known_brokers(self.brokers[index].port) == len(self.brokers)

    def _memory(self) -> Path:
        return self.directory / "cluster.json"

    def _remembered(self) -> list[Broker]:
        try:
            return [Broker(**broker) for broker in json.loads(self._memory().read_text("utf-8"))]
        except FileNotFoundError:
            return []

    def _home(self, index: int) -> Path:
        return self.directory / f"broker-{self.brokers[index].node}"

    def _pid(self, index: int) -> int | None:
        try:
            return int(self._home(index).joinpath("pid").read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def _signal(self, index: int, number: signal.Signals) -> None:
        pid = self._pid(index)
        if pid is None or not self.alive(index):
            raise ClusterError(f"broker {index} of {self.directory} does not run")
        os.kill(pid, number)

    def _launch(self, index: int) -> None:
        broker, home = self.brokers[index], self._home(index)
        for port in (broker.port, broker.controller):
            _require_free(port)
        home.mkdir(parents=True, exist_ok=True)
        lines = (_properties(self.brokers, broker, home / "data") | self._properties).items()
        config = home / "server.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in lines), "utf-8")
        classes = ["-cp", f"{JARS}/*"]
        if not home.joinpath("data", "meta.properties").exists():
            tool = ["java", *QUICK, *classes, "kafka.tools.StorageTool", "format"]
            done = subprocess.run(  # noqa: S603 (our own command)
                [*tool, "-t", CLUSTER_ID, "-c", str(config)],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise ClusterError(f"cannot format {home}: {_tail(done.stdout + done.stderr)}")
        command = ["java", *BROKER, *classes]
        with home.joinpath("log").open("ab") as log:
            child = subprocess.Popen(  # noqa: S603 (our own command)
                [*command, "kafka.Kafka", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupt of the caller must not reach the broker
            )
        self._children[index] = child
        home.joinpath("pid").write_text(str(child.pid), "utf-8")

    def _wait_ready(self, index: int) -> None:
        until = time.monotonic() + START_SECONDS
        while not self.ready(index):
            if not self.alive(index) or time.monotonic() > until:
                log = self._home(index) / "log"
                state = "is not ready in time" if self.alive(index) else "ended while starting"
                tail = _tail(log.read_text("utf-8", "replace"))
                raise ClusterError(f"broker {index} {state}; the end of {log}:\n{tail}")
            time.sleep(0.1)


def _wanted() -> str:
    return HERE.joinpath("pom.xml").read_text("utf-8")


def _stamp() -> Path:
    return JARS / "pom.xml"


def _fetched() -> bool:
    """Tell whether the jars are those that pom.xml names now."""
    return _stamp().is_file() and _stamp().read_text("utf-8") == _wanted()


def _tail(text: str, lines: int = 25) -> str:
    return "\n".join(text.splitlines()[-lines:])


def _layout(brokers: int, port: int | None) -> list[Broker]:
    if brokers not in (1, 3):
        raise ClusterError(f"{brokers} brokers: take 1, or 3 (which survive the loss of 1)")
    nodes = range(1, brokers + 1)
    if port is not None:
        return [Broker(node, port + node - 1, port + 100 + node - 1) for node in nodes]
    free = free_ports(2 * brokers)
    return [Broker(node, free[node - 1], free[brokers + node - 1]) for node in nodes]


def free_ports(count: int) -> list[int]:
    """Draw ports that nothing listens on now."""
    drawn = (port for port in random.sample(PORTS, len(PORTS)) if _is_free(port))
    return list(islice(drawn, count))


def _is_free(port: int) -> bool:
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return False
    return True


def _require_free(port: int) -> None:
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        raise ClusterError(
            f"port {port} is taken ({error.strerror}): stop what listens there, or choose another "
            f"with --port"
        ) from None


def _properties(brokers: list[Broker], broker: Broker, data: Path) -> dict[str, str]:
    replicas = str(len(brokers))
    in_sync = "2" if len(brokers) > 1 else "1"
    return {
        "node.id": str(broker.node),
        "process.roles": "broker,controller",
        "listeners": f"PLAINTEXT://{HOST}:{broker.port},CONTROLLER://{HOST}:{broker.controller}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{broker.port}",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": ",".join(f"{b.node}@{HOST}:{b.controller}" for b in brokers),
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",  # a mistyped topic name must not pass silently
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": "4",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "controlled.shutdown.enable": "false",  # the last of three would wait for a quorum
        "broker.session.timeout.ms": "4000",
        "broker.heartbeat.interval.ms": "500",
        "log.cleaner.dedupe.buffer.size": str(16 << 20),
    }


def _known_brokers(port: int) -> int:
    """Ask the broker on a port how many brokers it knows (Metadata v4); 0 where none answers."""
    client = b"driftline"
    body = struct.pack(">hhih", 3, 4, 1, len(client)) + client + struct.pack(">i?", 0, False)
    try:
        with socket.create_connection((HOST, port), timeout=2) as link:
            link.sendall(struct.pack(">i", len(body)) + body)
            answer = link.makefile("rb").read(16)  # size, correlation, throttle time, brokers
    except OSError:
        return 0
    return int(struct.unpack(">iiii", answer)[3]) if len(answer) == struct.calcsize(">iiii") else 0
