import json

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connectors import wire
from pipeline.events import (
    AlertKind,
    AlertState,
    CategoryForecast,
    Click,
    DriftAlert,
    Evidence,
    ForecastWindow,
    Guarantee,
    Interest,
    Reach,
    SourcePosition,
)
from pipeline.rollups import Rollup
from pipeline.settings import SettingsError, Source

GOOD = b'{"user_id":"anna","item_id":"lamp","timestamp":1714564800,"context":{"page":[1,2]}}'
NESTED = Source(map={"user": "data.user.id", "item": "data.item", "timestamp": "at", "type": "do"})

ALERT = DriftAlert(
    id="a1",
    kind=AlertKind.USER_JUMP,
    subject="anna",
    time=1_714_564_800_000,
    since=1_714_561_200_000,
    before=[Interest("home", 0.75)],
    after=[Interest("toys", 0.5)],
    score=12.5,
    threshold=9.25,
    guarantee=Guarantee(kind="average_run_length", value=10_000.0),
    evidence=[Evidence(time=1_714_564_800_000, item_id="lamp", category="home")],
    source=SourcePosition(source="clicks-0", position=41),
    settings="5e77",
    prior="uniform",
    state=AlertState.RAISED,
    of="",
    strength=0.75,
    by_chance=12_000.0,
    clears_after=9,
)
ALERT_BYTES = (
    b'{"id":"a1","kind":"user_jump","subject":"anna","time":1714564800000,"since":1714561200000,'
    b'"from":[{"category":"home","weight":0.75}],"to":[{"category":"toys","weight":0.5}],'
    b'"score":12.5,"threshold":9.25,"guarantee":{"kind":"average_run_length","value":10000.0},'
    b'"evidence":[{"time":1714564800000,"item_id":"lamp","category":"home"}],'
    b'"source":{"source":"clicks-0","position":41},"settings":"5e77","prior":"uniform",'
    b'"state":"raised","of":"","strength":0.75,"by_chance":12000.0,"clears_after":9,"schema":1}'
)
PROFILE_BYTES = (
    b'{"user_id":"anna","time":1714564800000,"events":3,'
    b'"short_term":[{"category":"home/light","weight":1.0}],"long_term":[],'
    b'"recent_items":["lamp"],"schema":1}'
)


def decode(*records, source=Source()):  # noqa: B008  settings are frozen
    return wire.decode_clicks(records, np.arange(len(records)) + 5, "clicks-0", source)


def reason(record, source=Source()):  # noqa: B008  settings are frozen
    clicks, rejects = decode(record, source=source)
    assert 1 == len(clicks) + len(rejects)
    return rejects[0].reason if rejects else None


def test_a_click_is_read_and_unknown_fields_are_ignored():
    """The default layout is that of events.Click."""
    clicks, rejects = decode(GOOD)

    assert [] == rejects
    assert "clicks-0" == clicks.source
    assert [5] == clicks.position.tolist()
    assert ["anna"] == clicks.user.values
    assert ["lamp"] == clicks.item.values
    assert [1_714_564_800_000] == clicks.time.tolist()


def test_every_field_of_a_click_is_read():
    """What the Click type declares is what the decoder looks for."""
    fields = {field.name for field in msgspec.structs.fields(Click)}

    assert fields == set(wire.FIELDS.values())


def test_a_map_reads_nested_objects():
    """A dotted path leads into objects; what leads nowhere is missing."""
    clicks, rejects = decode(
        b'{"data":{"user":{"id":7},"item":"lamp"},"at":"2024-05-01T12:00:00Z","do":"buy"}',
        b'{"data":{"user":null,"item":"lamp"},"at":"2024-05-01T12:00:00Z","session_id":"s"}',
        b'{"data":null,"at":"2024-05-01T12:00:00Z"}',
        b'{"data":{"user":7},"at":"2024-05-01T12:00:00Z"}',
        source=NESTED,
    )

    assert ["7", "session:s"] == clicks.user.values
    assert ["buy", "click"] == [clicks.event_type.values[code] for code in clicks.event_type.codes]
    assert [7, 8] == [reject.position for reject in rejects]
    assert "item_id is missing" == rejects[0].reason
    assert "got `int` - at `$.data.user`" in rejects[1].reason


@pytest.mark.parametrize(
    ("word", "record"),
    [
        ("tombstone", None),
        ("not a click in JSON: Input data was truncated", b""),
        ("not a click in JSON: JSON is malformed", b"junk"),
        ("Expected `object`, got `null`", b"null"),
        ("Expected `object`, got `array`", b"[]"),
        ("trailing characters", GOOD + GOOD),
        ("got `object` - at `$.user_id`", b'{"user_id":{}}'),
        ("got `bool` - at `$.item_id`", b'{"item_id":true}'),
        ("can't decode byte 0xff", GOOD.replace(b"anna", b"\xff")),
        ("surrogate", GOOD.replace(b"anna", b"\\ud800")),
        ("NUL", GOOD.replace(b"anna", b"\\u0000")),
        ("recursion", b'{"x":' + b"[" * 100_000),
        ("longer than 1048576 bytes", b" " * (wire.MAX_RECORD + 1)),
        ("user_id is 100000 bytes long", GOOD.replace(b"anna", b"a" * 100_000)),
        ("item_id is missing", b'{"user_id":"anna","timestamp":1714564800}'),
        ("timestamp is missing", b'{"user_id":"anna","item_id":"lamp"}'),
        ("both missing", b'{"item_id":"lamp","timestamp":1714564800}'),
        ("out of range", GOOD.replace(b"1714564800", b"1e999")),
        ("-5 lies outside", GOOD.replace(b"1714564800", b"-5")),
    ],
)
def test_a_bad_record_is_rejected_with_a_reason(word, record):
    """Whatever a record holds, the reject says what is wrong and keeps the bytes."""
    clicks, [reject] = decode(record)

    assert 0 == len(clicks)
    assert word in reject.reason
    assert record == reject.record
    assert 5 == reject.position


def test_a_bad_record_leaves_the_others_as_they_are():
    """Records around a bad one come through, in order, at their own positions."""
    clicks, rejects = decode(GOOD, b"junk", None, GOOD)

    assert [5, 8] == clicks.position.tolist()
    assert [6, 7] == [reject.position for reject in rejects]


jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
objects = st.dictionaries(
    st.sampled_from([*wire.FIELDS.values(), "data", "at"]), jsons | st.just(1_714_564_800)
)
records = st.none() | st.binary() | st.just(GOOD) | objects.map(lambda o: json.dumps(o).encode())


@given(st.lists(records, max_size=8), st.sampled_from([Source(), NESTED]))
@example([], Source())
def test_no_bytes_raise_and_none_are_lost(batch, source):
    """Every record in is a click or a reject, at its own position, once."""
    clicks, rejects = decode(*batch, source=source)

    positions = clicks.position.tolist() + [reject.position for reject in rejects]
    assert list(range(5, 5 + len(batch))) == sorted(positions)
    assert all(batch[reject.position - 5] == reject.record for reject in rejects)


@pytest.mark.parametrize(
    ("word", "given_map"),
    [
        ("'colour' is none of our fields", {"colour": "c"}),
        ("user_id is given twice", {"user": "a", "user_id": "b"}),
        ("'a.b' for item_id cannot be read", {"user": "a", "item": "a.b"}),
        ("'a' for item_id cannot be read", {"user": "a.b", "item": "a"}),
        ("'a..b' for item_id cannot be read", {"item": "a..b"}),
    ],
)
def test_a_map_that_cannot_hold_is_a_settings_error(word, given_map):
    """The map is checked before any record."""
    with pytest.raises(SettingsError, match=word):
        decode(GOOD, source=Source(map=given_map))


def test_alert_bytes_stay_as_they_are():
    """The wire form of an alert, version 1, byte for byte."""
    assert ALERT_BYTES == wire.encode_alert(ALERT)
    assert ALERT == wire.decode_alert(ALERT_BYTES)


def test_the_bytes_of_an_alert_about_many_end_with_its_reach():
    """Alerts about one subject have no such field, so that theirs stay as they were."""
    shift = msgspec.structs.replace(ALERT, reach=Reach(users=195, active=1516))
    end = b',"reach":{"users":195,"active":1516},"schema":1}'
    assert ALERT_BYTES.replace(b',"schema":1}', end) == wire.encode_alert(shift)
    assert shift == wire.decode_alert(wire.encode_alert(shift))


text = st.text(max_size=6)
numbers = st.floats(allow_nan=False, allow_infinity=False)
times = st.integers(0, 2**53)
interests = st.lists(st.builds(Interest, text, numbers), max_size=3)
alerts = st.builds(
    DriftAlert,
    id=text,
    kind=st.sampled_from(AlertKind),
    subject=text,
    time=times,
    since=times,
    before=interests,
    after=interests,
    score=numbers,
    threshold=numbers,
    guarantee=st.builds(Guarantee, kind=text, value=numbers),
    evidence=st.lists(st.builds(Evidence, time=times, item_id=text, category=text), max_size=2),
    source=st.builds(SourcePosition, source=text, position=times),
    settings=text,
    prior=text,
)


@given(alerts)
def test_an_alert_comes_back_as_it_was(alert):
    """Decoding undoes encoding."""
    assert alert == wire.decode_alert(wire.encode_alert(alert))


forecasts = st.builds(
    CategoryForecast,
    category=text,
    made=times,
    coverage=numbers,
    windows=st.lists(
        st.builds(
            ForecastWindow,
            start=times,
            end=times,
            expected=numbers,
            low=times,
            high=times,
            volume=numbers,
        ),
        max_size=2,
    ),
    settings=text,
)
symbols = st.integers(1, 2**64 - 1)
rollups = st.builds(
    Rollup,
    start=times,
    end=times,
    counts=st.dictionaries(text, times, max_size=3),
    types=st.dictionaries(text, times, max_size=2),
    uncategorised=times,
    users=st.dictionaries(symbols, st.lists(st.integers(0, 2), max_size=2), max_size=2),
    items=st.dictionaries(symbols, times, max_size=2),
    source=text,
    position=times,
).filter(
    lambda rollup: all(max(met, default=-1) < len(rollup.counts) for met in rollup.users.values())
)


@given(forecasts, rollups)
def test_forecasts_and_rollups_come_back_as_they_were(forecast, rollup):
    """Decoding undoes encoding."""
    assert forecast == wire.decode_forecast(wire.encode_forecast(forecast))
    assert rollup == wire.decode_rollup(wire.encode_rollup(rollup))


def test_a_rollup_without_samples_is_read():
    """Rollups are kept for good: those of the first form have counts alone."""
    data = b'{"rollup":{"start":0,"end":7,"counts":{"a":2},"source":"s","position":3},"schema":1}'
    assert Rollup(start=0, end=7, counts={"a": 2}, source="s", position=3) == (
        wire.decode_rollup(data)
    )


@pytest.mark.parametrize(
    ("word", "data"),
    [
        ("DriftAlert of schema version 2: .* reads version 1", b'{"schema":2,"id":9}'),
        ("missing required field `schema`", ALERT_BYTES.replace(b',"schema":1', b"")),
        ("not a DriftAlert in JSON", PROFILE_BYTES),
        ("not a DriftAlert in JSON", b"\xff"),
        ("not a DriftAlert in JSON", b"[" * 100_000),
        ("Invalid enum value 'x'", ALERT_BYTES.replace(b"user_jump", b"x")),
    ],
)
def test_what_is_no_alert_is_refused(word, data):
    """A version of the future and bytes of another kind are told apart."""
    with pytest.raises(wire.WireError, match=word):
        wire.decode_alert(data)


@given(st.binary())
def test_bytes_that_are_no_profile_raise_one_error(data):
    """Nothing but a WireError comes out of bytes of any kind."""
    with pytest.raises(wire.WireError):
        wire.decode_profile(data)
