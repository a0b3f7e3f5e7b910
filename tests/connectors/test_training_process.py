"""The process that trains, by itself."""

import subprocess
import sys

from connectors.kafka.settings import Kafka
from connectors.kafka.training import Task, encode_task
from pipeline.settings import Settings, Signing


def test_a_process_that_cannot_train_ends_in_good_order(tmp_path):
    """It tells why and no more, though its input is still open."""
    settings = Settings(signing=Signing(key=str(tmp_path / "none.key")))
    task = Task(settings=settings, kafka=Kafka(), directory=str(tmp_path), weights="")
    command = [sys.executable, "-m", "connectors.kafka.training_process"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        process.stdin.write(encode_task(task) + b"\n")
        process.stdin.flush()
        told = process.stderr.read().decode()
        process.wait(60)

    assert 1 == process.returncode
    assert "none.key is no readable Ed25519 key" in told
    assert "Fatal Python error" not in told
