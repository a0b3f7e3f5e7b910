"""The processes: workers and a learner, started anew whenever they end, as a supervisor would."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

STOP_SECONDS = 60.0
_SUPERVISE_SECONDS = 0.5

SETTINGS = """
[interests]
profile_interval = "2d"
lateness = "1d"
retention = "5d"
[drift]
events_per_false_alarm = 100
minimum_events = 8
[trends]
window = "1d"
warm_up = 3
minimum_events = 10
[windows]
size = "14d"
[learning]
batch = 16
first_epochs = 1
epochs = 1
replay_capacity = 60
model = {{ dim = 16, blocks = 1, heads = 2, max_length = 12, dropout = 0.1 }}
[kafka]
bootstrap_servers = {servers}
group = "soak"
partitions = {partitions}
replication = {replication}
[worker]
data = "{data}"
flush_interval = "1s"
flush_records = 5000
commit_interval = "500ms"
session_timeout = "6s"
batch = 500
standby = {standby}
"""
SESSION_SECONDS = 6.0


class Process:
    """One of the processes: what it runs, where it logs, and that it is to run."""

    def __init__(self, command: list[str], log: Path, disk: Path) -> None:
        self._command = command
        self._log = log
        self.disk = disk
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._wanted = False
        self.ended_by_itself = 0

    def start(self) -> None:
        """Start it, and have it started again whenever it ends."""
        with self._lock:
            self._wanted = True
            self._launch()

    def supervise(self) -> None:
        """Start it where it has ended by itself."""
        with self._lock:
            if self._wanted and self._child and self._child.poll() is not None:
                self.ended_by_itself += 1
                self._launch()

    def kill(self, *, wipe: bool = False) -> None:
        """End it as a power cut would, take its disk if told so, and start it again."""
        with self._lock:
            if self._child:
                self._child.kill()
                self._child.wait()
            if wipe:
                shutil.rmtree(self.disk, ignore_errors=True)
            self._launch()

    def stop(self) -> None:
        """End it in good order, by force only where it hangs."""
        with self._lock:
            self._wanted = False
            if self._child and self._child.poll() is None:
                self._child.terminate()
                try:
                    self._child.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    self._child.kill()
                    self._child.wait()
                    raise RuntimeError(f"a process did not stop, see {self._log}") from None

    def restart(self) -> None:
        """Stop it in good order, and start it again."""
        self.stop()
        self.start()

    def freeze(self, seconds: float) -> None:
        """Let it sleep (SIGSTOP), its connections open."""
        with self._lock:
            child = self._child
        if child and child.poll() is None:
            child.send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            child.send_signal(signal.SIGCONT)

    def log(self) -> str:
        """Return what it has said."""
        return self._log.read_text("utf-8", "replace") if self._log.exists() else ""

    def _launch(self) -> None:
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: S603  our own command
                self._command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )


class Fleet:
    """Workers with a disk each, and a learner if wanted; entered, they run and are supervised.

    The last worker keeps copies of the others' partitions.
    """

    def __init__(
        self,
        home: Path,
        servers: list[str],
        *,
        workers: int,
        learner: bool,
        partitions: int,
        replication: int,
        fault: str = "",
    ) -> None:
        self.settings = self._settings(home, "settings", servers, partitions, replication)
        self.workers = []
        for number in range(workers):
            name = f"worker-{number}"
            last = number == workers - 1
            path = self._settings(home, name, servers, partitions, replication, standby=last)
            command = [
                sys.executable,
                "-m",
                "bench.soak.worker",
                f"--fault={fault}",
                f"--settings={path}",
            ]
            self.workers.append(Process(command, home / f"{name}.log", home / name))
        self.learner: Process | None = None
        if learner:
            command = [sys.executable, "-c", "from connectors.cli import main; main()", "learner"]
            command += [f"--settings={self.settings}", f"--directory={home / 'learner'}"]
            self.learner = Process(command, home / "learner.log", home / "learner")
        self._over = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)

    @property
    def processes(self) -> list[Process]:
        """All of them."""
        return [*self.workers, *([self.learner] if self.learner else [])]

    @property
    def disks(self) -> list[Path]:
        """Of the workers."""
        return [worker.disk for worker in self.workers]

    def start(self) -> None:
        """Start all, and keep them running."""
        for process in self.processes:
            process.start()
        self._supervisor.start()

    def stop(self) -> None:
        """Stop all in good order."""
        self._over.set()
        for process in self.processes:
            process.stop()

    def rebalances(self) -> int:
        """Return how often the workers were assigned partitions anew, by their logs."""
        return sum(
            worker.log().count("Executing _on_partitions_assigned") for worker in self.workers
        )

    def _supervise(self) -> None:
        while not self._over.wait(_SUPERVISE_SECONDS):
            for process in self.processes:
                process.supervise()

    @staticmethod
    def _settings(
        home: Path,
        name: str,
        servers: list[str],
        partitions: int,
        replication: int,
        *,
        standby: bool = False,
    ) -> Path:
        path = home / f"{name}.toml"
        text = SETTINGS.format(
            servers=json.dumps(servers),
            partitions=partitions,
            replication=replication,
            data=home / name,
            standby=json.dumps(standby),
        )
        path.write_text(text, "utf-8")
        return path
