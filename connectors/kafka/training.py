"""The consuming process's side of training: another process, started, fed and watched."""

from __future__ import annotations

import asyncio
import re
import sys
from asyncio.subprocess import PIPE, Process
from typing import Any

import fsspec  # type: ignore[import-untyped]  # ships no types
import msgspec
from fsspec.core import split_protocol  # type: ignore[import-untyped]

from connectors.kafka.erasures import Request
from connectors.kafka.settings import Kafka
from connectors.kafka.spool import Spool
from pipeline.settings import Settings, SettingsError
from pipeline.windows import Window

_PASSWORD = re.compile(r"://[^/@]*:(?!\d+/)[^@]*@")

STOP_SECONDS = 10.0
"""How long the process may take to end when its input has."""


class TrainingError(RuntimeError):
    """The process that trains has ended where it should have gone on."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What the training process is for."""

    settings: Settings
    kafka: Kafka
    directory: str
    """The learner's directory, see `learner_files`."""
    weights: str
    """An fsspec address for weights; empty sends them over the bus."""


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the training process's input that is no window's end: somebody to be erased."""

    request: Request
    offset: int


def check_address(weights: str) -> None:
    """Check that what an fsspec address needs is installed; nothing is written.

    Raises:
        SettingsError: it is not, no file system goes by that name, or the address bears a password.
    """
    for link in weights.split("::"):
        if _PASSWORD.search(link):
            raise SettingsError(
                "--weights bears a password, and manifests would tell it to all who read the "
                "topic: give it by the file system's own environment variables or files"
            )
        try:
            fsspec.get_filesystem_class(split_protocol(link)[0])
        except (ImportError, ValueError) as error:
            raise SettingsError(f"--weights {weights}: {error}") from None


def encode_task(task: Task) -> bytes:
    """Write a task as JSON in one line."""
    return msgspec.json.encode(task, enc_hook=str)


def decode_task(line: bytes) -> Task:
    """Read a task."""

    def duration(kind: Any, text: Any) -> Any:
        return kind.parse(text)

    return msgspec.json.decode(line, type=Task, dec_hook=duration)


class Training:
    """Hands windows over to the process that trains, a bounded number at a time."""

    def __init__(self, task: Task, spool: Spool, *, limit: int) -> None:
        """Make it; `run` starts the process.

        Args:
            task: for the process.
            spool: where windows wait; those that are there already come first.
            limit: how many windows may wait, the one that is being learnt included.
        """
        self._task = task
        self._spool = spool
        self._limit = limit
        self._waiting = spool.ends()
        self._changed = asyncio.Event()
        self._erasures: list[bytes] = []
        self._process: Process | None = None

    @property
    def waiting(self) -> int:
        """How many windows wait, the one that is being learnt included."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether the next window has to wait before it may wait."""
        return self.waiting >= self._limit

    async def hand_over(self, window: Window) -> None:
        """Put a window into the spool, as soon as there is room, and have it learnt."""
        while self.full:
            self._changed.clear()
            await self._changed.wait()
        await asyncio.to_thread(self._spool.put, window)
        self._waiting.append(window.end)
        self._tell(window.end)

    def erase(self, request: Request, offset: int) -> None:
        """Have a user erased before any window that is handed over from now on is learnt.

        Args:
            request: for it.
            offset: at which the erasures go on when this one is carried out.
        """
        line = msgspec.json.encode(Work(request=request, offset=offset)) + b"\n"
        self._erasures.append(line)
        self._write(line)

    async def run(self) -> None:
        """Start the process, and follow what it has learnt until cancelled.

        Raises:
            TrainingError: the process has ended.
        """
        command = [sys.executable, "-m", "connectors.kafka.training_process"]
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
        try:
            await self._follow(process)
        finally:
            await _stop(process)
        raise TrainingError(
            f"the training process ended with exit code {process.returncode}; why stands in the "
            "log above. Nothing is lost: a new start goes on with the same window"
        )

    async def _follow(self, process: Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise TrainingError("the training process has no pipes")
        process.stdin.write(encode_task(self._task) + b"\n")
        self._process = process
        for line in self._erasures:
            self._write(line)
        for end in self._waiting:
            self._tell(end)
        async for line in process.stdout:
            self._waiting.remove(int(line))
            self._changed.set()

    def _tell(self, end: int) -> None:
        self._write(b"%d\n" % end)

    def _write(self, line: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(line)


async def _stop(process: Process) -> None:
    """End the process by the end of its input, or by force."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
