"""Where a learner's files still know a user."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from connectors.seen import Seen

_OTHER_NAMES = {"items", "categories", "types"}


def learner_traces(directory: Path, user: str) -> Iterator[tuple[str, int]]:
    """Yield the places that a learner keeps users in, and how often the user is there.

    Args:
        directory: of a live learner, or of a replay.
        user: who it is about.

    Raises:
        StateError: the learner's state is damaged.
        SpoolError: a window that waits is.
    """
    from connectors.kafka.spool import Spool  # noqa: PLC0415  torch and Arrow take seconds
    from connectors.learning import states  # noqa: PLC0415
    from learners import state  # noqa: PLC0415
    from learners.state_file import FILE, StateError  # noqa: PLC0415

    if (directory / "windows").exists():
        waiting = [window.clicks.user for window in Spool(directory / "windows").all()]
        yield f"{directory / 'windows'}", sum(user in column.values for column in waiting)
    for folder in states(directory):
        try:
            kept = state.read(folder)
        except StateError:
            if not (folder / FILE).exists():  # a later one is there by now
                continue
            raise
        named = [text for name, text in kept.texts.items() if name not in _OTHER_NAMES]
        yield str(folder), sum(text.count(user) for text in named if isinstance(text, list))
        yield str(folder / "seen"), int(Seen.load(folder).first(user) is not None)
