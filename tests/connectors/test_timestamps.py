from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.timestamps import Span, milliseconds
from pipeline.settings import SettingsError, Source

SPAN = Span.of(Source())
NOON = 1_714_564_800_123  # 2024-05-01T12:00:00.123Z


def read_one(value):
    times, reasons = milliseconds([value], SPAN)
    return reasons.get(0, int(times[0]))


@pytest.mark.parametrize(
    ("expected", "value"),
    [
        (NOON - 123, 1_714_564_800),
        (NOON, NOON),
        (NOON, NOON * 1000 + 999),
        (NOON, NOON * 1_000_000 + 999_999),
        (NOON, str(NOON)),
        (NOON, 1_714_564_800.123),
        (NOON, "1714564800.123"),
        (NOON, float(NOON)),
        (NOON, "2024-05-01T12:00:00.123Z"),
        (NOON, "2024-05-01T12:00:00.123"),
        (NOON, "2024-05-01 14:00:00.123456+02:00"),
        (NOON - 123, "2024-05-01 12:00:00 UTC"),
        (1_714_521_600_000, "2024-05-01"),
        (631_152_000_000, "1990-01-01"),
        (4_102_444_799_999, "2099-12-31T23:59:59.999"),
    ],
)
def test_every_common_form_is_read(expected, value):
    """Numbers of any unit and ISO 8601 give the same milliseconds."""
    assert expected == read_one(value)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("missing", None),
        ("missing", ""),
        ("not a finite number", float("nan")),
        ("not a finite number", "NaN"),
        ("not a finite number", "inf"),
        ("-5 lies outside 1990-01-01 to 2100-01-01", -5),
        ("-5 lies outside", "-5"),
        ("0 lies outside", 0),
        ("9999-12-31T00:00:00 lies outside 1990-01-01", "9999-12-31T00:00:00"),
        ("lies outside", 253_402_214_400),
        ("lies outside", 10**400),
        ("lies outside", 1e300),
        ("not a finite number", "9" * 5000),
        ("lies outside", "1989-12-31T23:59:59.999"),
        ("lies outside", "2100-01-01"),
        ("'yesterday' is neither a number nor ISO 8601", "yesterday"),
        ("neither a number nor ISO 8601", "2024-13-01"),
    ],
)
def test_a_wrong_time_is_named_with_the_range(word, value):
    """The reason shows the value and what would have been right."""
    reason = read_one(value)

    assert isinstance(reason, str)
    assert word in reason
    assert len(reason) < 250


def test_arrays_of_times_are_read_in_their_own_unit():
    """A datetime64 needs no guess, and NaT is missing."""
    raw = np.array(["2024-05-01T12:00:00.123456", "NaT", "9999-01-01"], "datetime64[us]")

    times, reasons = milliseconds(raw, SPAN)

    assert times[0] == NOON
    assert [1, 2] == list(reasons)
    assert reasons[1] == "timestamp is missing"


values = st.one_of(
    st.none(),
    st.integers(),
    st.integers(631_152_000, 4_102_444_800),
    st.integers(631_152_000, 4_102_444_800).map(str),
    st.integers(631_152_000 * 10**9, 4_102_444_800 * 10**9),
    st.floats(),
    st.datetimes().map(str),
    st.text(),
)


@given(st.lists(values, min_size=1, max_size=20))
def test_a_value_is_read_alike_in_any_company(raw):
    """The fast paths of whole batches give what each value gives alone."""
    times, reasons = milliseconds(raw, SPAN)

    together = [reasons.get(row, int(time)) for row, time in enumerate(times)]
    assert [read_one(value) for value in raw] == together


@given(st.datetimes(datetime(1990, 1, 1), datetime(2099, 12, 31)))  # noqa: DTZ001  naive is UTC
def test_iso_text_keeps_the_moment(moment):
    """Reading what isoformat writes agrees with the calendar, to the millisecond."""
    exact = (moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000

    assert abs(exact - read_one(moment.isoformat())) < 1.001


@pytest.mark.parametrize(
    ("word", "source"),
    [
        ("source.earliest = 'soon'", Source(earliest="soon")),
        ("must lie before", Source(earliest="2030-01-01", latest="2020-01-01")),
    ],
)
def test_a_wrong_range_is_a_settings_error(word, source):
    """The range itself is checked before any event."""
    with pytest.raises(SettingsError, match=word):
        Span.of(source)
