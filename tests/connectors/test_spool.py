"""Windows on disk come back as they were, or not at all."""

import numpy as np
import pytest
from clicks import clicks

from connectors.cli import Exit, _code_of
from connectors.kafka.spool import Spool, SpoolError
from pipeline.windows import Window

ROWS = [
    {"user": "anna", "item": "ä", "time": 5, "category": "a/b", "event_id": "one"},
    {"user": "ben", "item": "j", "time": 7, "session": "s"},
]
FIELDS = ("position", "time", "event_id")
TEXTS = ("user", "item", "category", "event_type", "session")


def window(end=10, rows=ROWS):
    return Window(start=0, end=end, clicks=clicks(rows, source="t/1"), sources={"t/1": 1})


@pytest.mark.parametrize("rows", [ROWS, []])
def test_a_window_comes_back_as_it_was(tmp_path, rows):
    """Texts, numbers, dictionaries and what a click lacks."""
    spool, before = Spool(tmp_path), window(rows=rows)
    spool.put(before)
    after = spool.get(10)
    assert (0, 10, {"t/1": 1}, "t/1") == (
        after.start,
        after.end,
        after.sources,
        after.clicks.source,
    )
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(before.clicks, name), getattr(after.clicks, name))
        assert getattr(before.clicks, name).dtype == getattr(after.clicks, name).dtype
    for name in TEXTS:
        one, other = getattr(before.clicks, name), getattr(after.clicks, name)
        assert (one.values, one.codes.tolist()) == (other.values, other.codes.tolist())


def test_windows_wait_in_order_of_time(tmp_path):
    """Ends are sorted as numbers; a removed window waits no longer."""
    spool = Spool(tmp_path)
    for end in (100, 20, 3):
        spool.put(window(end))
    spool.remove(20)
    assert [3, 100] == Spool(tmp_path).ends()
    with pytest.raises(SpoolError, match="no window that ends at 20"):
        spool.get(20)


def test_a_damaged_window_is_refused(tmp_path):
    """One flipped bit is noticed."""
    spool = Spool(tmp_path)
    spool.put(window())
    [path] = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(SpoolError, match="damaged") as error:
        spool.get(10)
    assert Exit.CORRUPT == _code_of(error.value)


def test_a_window_that_is_learnt_while_all_are_read_is_passed_over(tmp_path):
    """One that is written anew meanwhile, without a user, is read as it is then."""
    spool = Spool(tmp_path)
    for end in (10, 20, 30):
        spool.put(window(end))
    windows = spool.all()
    first = next(windows)
    spool.remove(20)
    spool.forget("anna")
    rest = list(windows)
    assert [10, 30] == [one.end for one in [first, *rest]]
    assert "anna" not in rest[0].clicks.user.values


def test_a_user_leaves_every_window(tmp_path):
    """The clicks of others stay as they are, and windows without the user are left alone."""
    spool = Spool(tmp_path)
    spool.put(window())
    spool.put(window(end=20, rows=ROWS[1:]))
    untouched = next(tmp_path.glob("20.*")).name
    spool.forget("anna")
    assert ([10, 20], untouched) == (spool.ends(), next(tmp_path.glob("20.*")).name)
    kept = spool.get(10).clicks
    assert (["ben"], [7]) == ([kept.user.values[c] for c in kept.user.codes], kept.time.tolist())
    assert "anna" not in kept.user.values
    spool.forget("ben")
    assert [0, 0] == [len(spool.get(end).clicks) for end in spool.ends()]
