"""Writes and reads small files for tests."""

import pytest

from connectors.files import FileError, read
from pipeline.settings import Source

START = 1_714_564_800


def rows(count, start=0):
    return [f"{START + i},u{i % 3},i{i}" for i in range(start, start + count)]


def csv_bytes(*lines, header="timestamp,user_id,item_id", newline="\n"):
    return "".join(line + newline for line in (header, *lines)).encode(errors="surrogateescape")


def texts(column):
    return [column.values[code] if code >= 0 else None for code in column.codes]


def load(*paths, given_map=None, **options):
    """Read files whole: events as (position, time in s, user, item), and rejects."""
    events, rejects = [], []
    for clicks, wrong in read(paths, Source(map=given_map or {}), **options):
        seconds = (clicks.time // 1000).tolist()
        events += zip(
            clicks.position.tolist(), seconds, texts(clicks.user), texts(clicks.item), strict=True
        )
        rejects += wrong
    return events, rejects


def drain(reading, items):
    for clicks, _ in reading:
        items += texts(clicks.item)


def failure(path, *, sort=False, **options):
    """Read a file that fails: the items that came before, and what the error says."""
    items = []
    with pytest.raises(FileError) as caught:
        drain(read([path], Source(**options), sort=sort), items)
    assert str(path) in str(caught.value)
    return items, str(caught.value)
