"""A broker in a container, for machines with Docker but without Java and Maven.

`compose.yaml` beside this file says how it is set up.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Self

from deploy.kafka.cluster import HERE, HOST, Cluster, ClusterError, free_ports, missing

PORT = "DRIFTLINE_KAFKA_PORT"
"""The variable of `compose.yaml` that holds the port."""


def broker(directory: Path, *, brokers: int = 1, port: int | None = None) -> Cluster | Container:
    """Return a cluster of Maven's jars or, where those cannot be had, a broker in a container.

    Args:
        directory: of the cluster; a container keeps its data itself.
        brokers: how many.
        port: of the first one; None takes a free one.

    Raises:
        ClusterError: neither can be had; or the directory holds another number of brokers.
    """
    lack = missing()
    if lack is None:
        return Cluster(directory=directory, brokers=brokers, port=port)
    if not engine():
        raise ClusterError(f"{lack}; or start Docker")
    if brokers > 1:
        raise ClusterError(f"{lack}; Docker is here, but starts one broker alone")
    return Container(port=port)


def engine() -> bool:
    """Tell whether a Docker engine answers."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    told = subprocess.run([docker, "info"], capture_output=True, check=False)  # noqa: S603 (our own command)
    return told.returncode == 0


class Container:
    """One broker in a container, to use like a cluster of one.

    What was produced outlives `stop`, and `start` goes on with it; the context manager leaves
    nothing behind.
    """

    def __init__(self, *, port: int | None = None) -> None:
        """Name it by its port; None takes a free one."""
        self._port = port or free_ports(1)[0]

    @property
    def bootstrap(self) -> str:
        """The address that a client connects to."""
        return f"{HOST}:{self._port}"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._compose("down", "--volumes")
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._compose("down", "--volumes")

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            ClusterError: Docker did not start it.
        """
        self._compose("up", "--detach", "--wait")

    def stop(self) -> None:
        """Shut it down; its data stay."""
        self._compose("stop")

    def running(self) -> int:
        """Return the number of brokers that run: one or none."""
        return len(self._compose("ps", "--status", "running", "--quiet").split())

    def _compose(self, *words: str) -> str:
        project = [
            "--project-name",
            f"driftline-{self._port}",
            "--file",
            str(HERE / "compose.yaml"),
        ]
        done = subprocess.run(  # noqa: S603 (our own command)
            ["docker", "compose", *project, *words],  # noqa: S607 (the one on the PATH)
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {PORT: str(self._port)},
        )
        if done.returncode:
            raise ClusterError(f"docker compose {words[0]} failed: {done.stderr.strip()}")
        return done.stdout
