"""Worker processes, and what they wrote down."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

WORKER = Path(__file__).with_name("ledger_worker.py")


def committed_offsets(admin: KafkaAdminClient, group: str, topic: str) -> dict[int, int]:
    """Return a group's committed offsets; none while its coordinator is still being made."""
    try:
        offsets = admin.list_group_offsets(group)[group].items()
    except KafkaError as error:
        if not error.retriable:
            raise
        return {}
    return {at.partition: offset.offset for at, offset in offsets if at.topic == topic}


class Workers:
    """Worker processes of one consumer group, and the ledger that they share."""

    def __init__(self, admin: KafkaAdminClient, home: Path, **kafka: object) -> None:
        self.admin, self.home, self.kafka = admin, home, kafka
        self.ledger = home / "ledger"
        self.running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running:
            process.kill()
            process.wait()

    def start(self, *topics: str, **options: object) -> subprocess.Popen[bytes]:
        """Start a worker on topics."""
        flags = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
        kafka = json.dumps(self.kafka)
        command = [sys.executable, WORKER, kafka, self.ledger, *topics, *flags]
        with self.home.joinpath(f"log-{len(self.running)}").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        self.running.append(process)
        return process

    def batches(self) -> list[dict]:
        """Return what was read so far, a line a batch."""
        if not self.ledger.exists():
            return []
        whole = self.ledger.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def values(self, topic: str, partition: int) -> list[str]:
        """Return what was read of a partition, in the order read."""
        here = [b for b in self.batches() if (b["topic"], b["partition"]) == (topic, partition)]
        return [value for batch in here for value in batch["values"]]

    def committed(self, topic: str) -> dict[int, int]:
        """Return the group's committed offsets of a topic, by partition."""
        return committed_offsets(self.admin, str(self.kafka["group"]), topic)

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 40) -> None:
        """Wait until a condition holds, and show the workers' logs where it never does."""
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                logs = "\n".join(log.read_text() for log in sorted(self.home.glob("log-*")))
                pytest.fail(f"{what}: not within {seconds} s\n{logs[-8000:]}")
            time.sleep(0.1)
