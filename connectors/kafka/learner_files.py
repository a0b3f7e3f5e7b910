"""The learner's directory: how far it has come, and the windows that wait.

`progress.json` is written by the process that consumes, `learnt` and lessons that have yet to be
published by the one that trains; all outlive a crash.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from connectors.kafka.spool import Spool
from connectors.log import write_atomically
from learners.state_file import is_name, unseal
from pipeline.windows import WindowsState

_Kept = TypeVar("_Kept")


class LearnerFilesError(OSError):
    """The directory cannot be used for this learner; the message says why and how to mend it."""


class _Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Where consuming goes on, and what that holds for."""

    topic: str
    settings: str
    windows: WindowsState


class LearnerFiles:
    """What a learner keeps on disk, beside checkpoints and the learner's own states."""

    def __init__(self, directory: Path) -> None:
        """Open the directory, or make it.

        Raises:
            OSError: it cannot be written.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.spool = Spool(directory / "windows")

    def learnt(self) -> str:
        """Return the name of the learner's state to start from; empty to start anew.

        Raises:
            LearnerFilesError: what was recorded is damaged.
        """
        return self._number("learnt")

    def check(self) -> None:
        """Check the learner's state to start from, if there is one, and its lesson.

        Raises:
            LearnerFilesError: which one that is, or the lesson, is damaged.
            StateError: the state itself is not there or damaged.
        """
        learnt = self.learnt()
        if learnt:
            unseal(self.directory / "learner" / learnt)
            self.unpublished()

    def record(self, state: str, lesson: bytes) -> None:
        """Make a state the one to start from; what it has learnt has yet to be published."""
        write_atomically(self._lesson(state), lesson)
        write_atomically(self.directory / "learnt", state.encode())

    def unpublished(self) -> bytes | None:
        """Return the lesson of the state to start from, JSON, if it has yet to be published.

        Raises:
            LearnerFilesError: it is damaged.
        """
        path = self._lesson(self.learnt())
        return bytes(_decoded(path, msgspec.Raw)) if path.exists() else None

    def record_published(self) -> None:
        """Note that the lesson of the state to start from was published."""
        self._lesson(self.learnt()).unlink()

    def erased(self) -> int:
        """Return the offset of the erasures at which to go on.

        Raises:
            LearnerFilesError: what was recorded is damaged.
        """
        return int(self._number("erased") or 0)

    def record_erased(self, offset: int) -> None:
        """Note that all erasures before an offset were carried out."""
        write_atomically(self.directory / "erased", b"%d" % offset)

    def progress(self, topic: str, settings: str) -> WindowsState:
        """Return where to go on consuming; windows that are here or learnt count as closed.

        Raises:
            LearnerFilesError: the directory is of another topic or of other settings, or what
                was recorded is damaged.
        """
        path = self.directory / "progress.json"
        if path.exists():
            kept = _decoded(path, _Progress)
        else:
            kept = _Progress(topic=topic, settings=settings, windows=WindowsState())
        if (kept.topic, kept.settings) != (topic, settings):
            raise LearnerFilesError(
                f"{self.directory} is of topic {kept.topic} and settings {kept.settings}, not of "
                f"{topic} and {settings}: take those, or name another directory to start anew"
            )
        ends = [*self.spool.ends(), int(self.learnt() or kept.windows.closed)]
        return replace(kept.windows, closed=max(kept.windows.closed, *ends))

    def save(self, topic: str, settings: str, windows: WindowsState) -> None:
        """Write down where to go on consuming. The closed windows must be in the spool by now."""
        progress = _Progress(topic=topic, settings=settings, windows=windows)
        write_atomically(self.directory / "progress.json", msgspec.json.encode(progress))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other learners out, and delete what one that was killed left half written.

        Raises:
            LearnerFilesError: one is in already.
        """
        with (self.directory / "learner.lock").open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LearnerFilesError(
                    f"another learner is at work in {self.directory}: stop it, or name another "
                    "directory"
                ) from None
            self.spool.remove_torn()
            yield

    def _lesson(self, state: str) -> Path:
        return self.directory / f"lesson-{state}.json"

    def _number(self, name: str) -> str:
        path = self.directory / name
        if not path.exists():
            return ""
        content = path.read_bytes().decode(errors="replace")
        if not is_name(content):
            raise _damaged(path)
        return content


def _decoded(path: Path, kind: type[_Kept]) -> _Kept:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except msgspec.DecodeError:
        raise _damaged(path) from None


def _damaged(path: Path) -> LearnerFilesError:
    return LearnerFilesError(
        f"{path} is damaged: remove the learner's directory, and it starts over from the click "
        "topic"
    )
