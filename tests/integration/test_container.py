"""Without Java and Maven a broker runs in a container, and without those either that is told.

The engine here is a stand-in that writes down what it is asked, for there may be none; where there
is one and no Java, all tests of this folder run on its broker.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGINE = """#!/bin/sh
[ "$1" = info ] && exit {health}
echo "$DRIFTLINE_KAFKA_PORT $@" >> {log}
[ "$6" = ps ] && echo 4f1c
exit 0
"""


def kafka(directory, *words, health=0):
    """Run the command with a PATH that holds no Java, and an engine of that exit code."""
    path = directory / "bin"
    path.mkdir(exist_ok=True)
    docker = path / "docker"
    docker.write_text(ENGINE.format(health=health, log=directory / "asked"))
    docker.chmod(0o755)
    command = [sys.executable, "-m", "deploy.kafka", *words, "--dir", directory / "data"]
    environment = os.environ | {"PATH": str(path)}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_the_engine_is_asked_for_the_broker_that_compose_describes(tmp_path):
    """Start waits until it answers, stop keeps its data; both say at which port it is."""
    compose = f"compose --project-name driftline-9092 --file {ROOT / 'deploy/kafka/compose.yaml'}"
    assert "1 of 1 brokers running at 127.0.0.1:9092\n" == kafka(tmp_path, "start").stdout
    assert 0 == kafka(tmp_path, "stop").returncode
    status = "ps --status running --quiet"
    assert [
        f"9092 {compose} {words}" for words in ("up --detach --wait", status, "stop", status)
    ] == (tmp_path / "asked").read_text().splitlines()


@pytest.mark.parametrize(
    ("words", "health", "told"),
    [(["--brokers", "3"], 0, "one broker alone"), ([], 1, "install a Java .*; or start Docker")],
)
def test_what_cannot_be_had_is_told(tmp_path, words, health, told):
    """Three brokers in containers, or any without an engine, are refused in words."""
    done = kafka(tmp_path, "start", *words, health=health)
    assert 1 == done.returncode
    assert re.search(told, done.stderr)
    assert not (tmp_path / "asked").exists()
