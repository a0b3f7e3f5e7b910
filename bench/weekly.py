"""Windows for the continual benchmark: of any file that replay reads, and of ADER's layout.

ADER's weekly cut of DIGINETICA (Mi et al., 2020, "ADER: Adaptively Distilled Exemplar Replay
Towards Continual Learning for Session-based Recommendation") has no clock: `period`,
`session_id`, `item_id` in true order. A period becomes a week, and its events are spread evenly
over it.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from connectors.files import read
from pipeline.events import NO_CODE, Clicks, Column
from pipeline.settings import Settings
from pipeline.windows import Window, Windows

_COLUMNS = ["period", "session_id", "item_id"]
_WEEK = 7 * 86_400_000
_FIRST = 2_300  # weeks after 1970 at which the first period is put


def is_periods(path: Path) -> bool:
    """Tell whether a file is in ADER's layout."""
    if ".csv" not in path.suffixes:
        return False
    with pa.input_stream(str(path)) as stream:
        return bytes(stream.read(64)).split()[0].decode() == ",".join(_COLUMNS)


def windows(path: Path, settings: Settings, most: int = 0, thin: int = 1) -> list[Window]:
    """Return the windows of a file, the first `most` of them where that is not 0.

    With `thin` of every so many users or sessions one is kept, by a hash of its name.

    Raises:
        FileError: the file cannot be read.
    """
    found = _periods(path) if is_periods(path) else _clicks(path, settings)
    return [_thinned(window, thin) for window in (found[:most] if most else found)]


def _thinned(window: Window, thin: int) -> Window:
    user = window.clicks.user
    kept = np.array([zlib.crc32(name.encode()) % thin == 0 for name in user.values], np.bool_)
    return replace(window, clicks=window.clicks.take(np.flatnonzero(kept[user.codes])))


def _clicks(path: Path, settings: Settings) -> list[Window]:
    cutting = Windows(settings)
    found: list[Window] = []
    for clicks, _ in read([path], settings.source):
        found += cutting.add(clicks)
    return found + cutting.drain()


def _periods(path: Path) -> list[Window]:
    table = pyarrow.csv.read_csv(path)
    period, session, item = (table[name].to_numpy() for name in _COLUMNS)
    found, read_before = [], 0
    for number in np.unique(period).tolist():
        rows = np.flatnonzero(period == number)
        start = (_FIRST + number) * _WEEK
        clicks = Clicks(
            source="file",
            position=np.arange(read_before, read_before + len(rows)),
            time=start + np.arange(len(rows)) * _WEEK // len(rows),
            user=_column(session[rows], "session:"),
            item=_column(item[rows]),
            category=_nothing(len(rows)),
            event_type=_nothing(len(rows)),
            session=_nothing(len(rows)),
            event_id=np.zeros(len(rows), np.uint64),
        )
        read_before += len(rows)
        sources = {"file": read_before - 1}
        found.append(Window(start=start, end=start + _WEEK, clicks=clicks, sources=sources))
    return found


def _column(values: np.ndarray, start: str = "") -> Column:
    names, codes = np.unique(values, return_inverse=True)
    return Column([f"{start}{name}" for name in names.tolist()], codes.astype(np.int32))


def _nothing(count: int) -> Column:
    return Column([], np.full(count, NO_CODE, np.int32))
