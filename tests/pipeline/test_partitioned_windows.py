"""Windows over several logs: how far one is read ahead of another cuts nothing off."""

import numpy as np
from clicks import DAY, clicks
from hypothesis import given
from hypothesis import strategies as st

from pipeline.settings import from_toml
from pipeline.windows import Windows

DAILY = from_toml('[windows]\nsize = "1d"\nlateness = "6h"')
HOUR = DAY // 24
UNREAD = {"a": False, "b": False}

times = st.lists(st.integers(0, 4 * DAY), max_size=25)
cuts = st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 8)), max_size=12)


def log(source, times):
    users = [f"{source}{time % 3}" for time in times]
    rows = [{"user": u, "item": "i", "time": t} for u, t in zip(users, times, strict=True)]
    return clicks(rows, source=source)


def batches(logs, cuts):
    """Cut logs into batches, as far as the cuts go, then the rest of each."""
    left = dict(logs)
    for source, count in cuts:
        batch, left[source] = left[source].take(slice(count)), left[source].take(slice(count, None))
        yield batch
    yield from left.values()


def readable(window):
    users = [window.clicks.user.values[code] for code in window.clicks.user.codes]
    return window.start, list(zip(window.clicks.time.tolist(), users, strict=True)), window.sources


def test_the_log_furthest_behind_holds_windows_open():
    """A day closes when every log has passed its end and the lateness."""
    windows = Windows(DAILY)
    assert [] == windows.add(log("a", [HOUR, 60 * HOUR]), UNREAD)
    assert [] == windows.add(log("b", [2 * HOUR, 29 * HOUR]), UNREAD)
    [window] = windows.add(log("b", [0, 0, 30 * HOUR]), UNREAD)
    assert [HOUR, 2 * HOUR] == window.clicks.time.tolist()
    assert {"a": 0, "b": 0} == window.sources


def test_an_idle_log_holds_nothing_up():
    """A log read to its end and more than a window behind is not waited for; a closed day stays."""
    windows = Windows(DAILY)
    windows.add(log("a", [HOUR]), UNREAD)
    assert [] == windows.add(log("b", [2 * HOUR, 40 * HOUR]), {"a": False, "b": True})
    [window] = windows.add(log("b", [0, 0, 40 * HOUR]), {"a": True, "b": True})
    assert [HOUR, 2 * HOUR] == window.clicks.time.tolist()
    assert [] == windows.add(log("a", [0, 3 * HOUR]), {"a": True, "b": True})
    assert 1 == windows.late


def test_a_log_read_to_its_end_still_holds_the_newest_window():
    """Less than a window behind, a log is waited for even where nothing is left unread."""
    windows = Windows(DAILY)
    windows.add(log("a", [20 * HOUR]), UNREAD)
    assert [] == windows.add(log("b", [2 * HOUR, 40 * HOUR]), {"a": True, "b": True})


@given(times, times, cuts)
def test_how_logs_interleave_does_not_matter(first, second, cuts):
    """The same clicks are in the same windows, and as many are late, in whatever order."""
    logs = {"a": log("a", first), "b": log("b", second)}

    def run(cuts):
        windows = Windows(DAILY)
        closed = [w for batch in batches(logs, cuts) for w in windows.add(batch, UNREAD)]
        return [readable(window) for window in closed + windows.drain()], windows.late

    assert run([]) == run(cuts)


@given(times, times, cuts, st.integers(0, 12))
def test_windows_go_on_from_their_state(first, second, cuts, stop):
    """Read again from the marks, the windows that were open close with the same clicks."""
    logs = {"a": log("a", first), "b": log("b", second)}
    parts = list(batches(logs, cuts))
    whole = Windows(DAILY)
    expected = [readable(w) for batch in parts for w in whole.add(batch, UNREAD)]
    expected += [readable(window) for window in whole.drain()]

    before = Windows(DAILY)
    actual = [readable(w) for batch in parts[:stop] for w in before.add(batch, UNREAD)]
    state = before.state
    after = Windows(DAILY, state)
    for source, batch in logs.items():
        mark = state.logs.get(source)
        start = np.searchsorted(batch.position, mark.position) if mark else 0
        actual += [readable(w) for w in after.add(batch.take(slice(int(start), None)), UNREAD)]
    actual += [readable(window) for window in after.drain()]
    assert expected == actual


@given(times)
def test_clicks_that_were_added_before_are_passed_over(first):
    """A batch that comes twice counts once."""
    windows = Windows(DAILY)
    closed = windows.add(log("a", first)) + windows.add(log("a", first)) + windows.drain()
    assert len(first) == windows.late + sum(len(window.clicks) for window in closed)
