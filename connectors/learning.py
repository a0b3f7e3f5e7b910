"""The learning stage, as both drivers run it: clicks into windows, windows into the learner."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from connectors.seen import Seen
from learners import checkpoint
from learners.continual import Learner, Report
from learners.staleness import CONFIDENCE
from learners.state_file import FILE, is_name
from pipeline.drift import alert_id
from pipeline.events import AlertKind, DriftAlert, Guarantee, SourcePosition
from pipeline.settings import Settings
from pipeline.windows import Window, Windows

MODEL_NAME = "next-item"

_STATES = "learner"

Progress = Callable[[float, str], None]
"""Takes the share of a window's learning that is done, and what is going on."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a window gave rise to."""

    report: Report
    alerts: list[DriftAlert]


def newest_state(directory: Path) -> Path | None:
    """Return where the learner's newest state is, below a driver's directory; None without one."""
    return max(states(directory), key=lambda folder: int(folder.name), default=None)


def states(directory: Path) -> list[Path]:
    """Return where states are, below a driver's directory; a torn one, of a crash, is none."""
    found = (path.parent for path in directory.glob(f"{_STATES}/*/{FILE}"))
    return sorted(folder for folder in found if is_name(folder.name))


class LearningStage:
    """Windows and a learner whose state is kept in a directory.

    After each window the learner's state is saved in a folder named by the window's end. `state`
    is the newest one's name, for the caller to commit, and to start from again.
    """

    def __init__(
        self,
        settings: Settings | None,
        directory: Path,
        state: str,
        progress: Progress = lambda _fraction, _text: None,
    ) -> None:
        """Start anew, or from the learner's `state` where that is not empty.

        Without settings it is under those that the state was saved under.

        Raises:
            StateError: the state is damaged, of other settings or of another release.
        """
        self.state = state
        self._directory = directory / _STATES
        self._directory.mkdir(exist_ok=True)
        self._seen = Seen.load(self._directory / state)
        self._checkpoints = checkpoints = directory / "checkpoints"
        self._learner = (
            Learner.load(
                self._directory / state, settings, checkpoints=checkpoints, progress=progress
            )
            if state
            else Learner(settings or Settings(), checkpoints=checkpoints, progress=progress)
        )
        self.windows = Windows(self._learner.settings)
        self._version = self._learner.settings.version

    def learn(self, window: Window) -> Lesson | None:
        """Learn from a closed window; None where it was learnt before."""
        if self.state and window.end <= int(self.state):
            return None
        report = self._learner.learn(window)
        self.state = str(window.end)
        self._learner.save(self._directory / self.state)
        self._seen.add(window)
        self._seen.save(self._directory / self.state)
        return Lesson(report, self._alerts(report, window))

    def seen_by(self, user: str) -> list[str]:
        """Return the ids of the checkpoints made since a user was met, oldest first."""
        first = self._seen.first(user)
        if first is None or not self._checkpoints.exists():
            return []
        found = [
            checkpoint.load(home).manifest
            for home in self._checkpoints.iterdir()
            if (home / "manifest.json").exists() and not home.name.startswith(".")
        ]
        return [
            manifest.id
            for manifest in sorted(found, key=lambda manifest: manifest.window_end)
            if manifest.window_end >= first
        ]

    def erase(self, user: str) -> None:
        """Erase what is kept of a user but for when the user was first met; see `erase_trace`.

        The model's weights, and sums over all users, stay as they are.
        """
        self.forget_former()  # a crash may have left it, with the user in it
        self._learner.forget(user)
        if self.state:
            self._learner.save(self._directory / self.state)

    def erase_trace(self, user: str) -> None:
        """Erase when a user was first met: nobody can say any more which checkpoints saw them."""
        self._seen.forget(user)
        if self.state:
            self._seen.save(self._directory / self.state)

    def forget_former(self) -> None:
        """Delete the learner's states other than the newest."""
        for folder in self._directory.iterdir():
            if folder.name != self.state:
                shutil.rmtree(folder)

    def _alerts(self, report: Report, window: Window) -> list[DriftAlert]:
        if report.stale is None:
            return []
        source, position = max(window.sources.items())
        return [
            DriftAlert(
                id=alert_id(AlertKind.MODEL_STALE, MODEL_NAME, window.start),
                kind=AlertKind.MODEL_STALE,
                subject=MODEL_NAME,
                time=window.end,
                since=window.start,
                before=[],
                after=[],
                score=report.stale.score,
                threshold=report.stale.threshold,
                guarantee=Guarantee(kind="false_positive_rate", value=CONFIDENCE),
                evidence=[],
                source=SourcePosition(source=source, position=position),
                settings=self._version,
                prior="",
            )
        ]
