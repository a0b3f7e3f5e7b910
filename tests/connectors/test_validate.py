import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from connectors.timestamps import Span
from connectors.validate import RawClicks, validate
from pipeline.settings import Source

SPAN = Span.of(Source())
GOOD = {"user_id": "anna", "item_id": "lamp", "timestamp": 1_714_564_800}


def check(*events):
    """Validate events given as dicts; a field left out is None."""
    names = {name: None for event in events for name in event}
    columns = {name: [event.get(name) for event in events] for name in names}
    raw = RawClicks(timestamp=columns.pop("timestamp"), columns=columns, faults={})
    return validate(raw, source="log", position=np.arange(len(events)) + 10, span=SPAN)


def texts(column):
    return [column.values[code] if code >= 0 else None for code in column.codes]


def reason(**fields):
    clicks, reasons = check(GOOD | fields)
    assert len(clicks) == 1 - len(reasons)
    return reasons.get(0)


def test_a_whole_event_keeps_every_field():
    """Each field of an event arrives in its column."""
    clicks, reasons = check(
        GOOD
        | {
            "category": "home/light",
            "event_type": "cart",
            "session_id": "s1",
            "event_id": "e1",
            "price": 9.5,
        }
    )

    assert {} == reasons
    assert [1_714_564_800_000] == clicks.time.tolist()
    assert [10] == clicks.position.tolist()
    assert ["anna"] == texts(clicks.user)
    assert ["lamp"] == texts(clicks.item)
    assert ["home/light"] == texts(clicks.category)
    assert ["cart"] == texts(clicks.event_type)
    assert ["s1"] == texts(clicks.session)
    assert [xxh3_64_intdigest(b"e1")] == clicks.event_id.tolist()


def test_what_an_event_may_lack_is_filled_or_none():
    """No type is a click, no event id is 0, no category is none, an empty text is no text."""
    clicks, reasons = check(GOOD, GOOD | {"category": "", "event_id": "", "event_type": ""})

    assert {} == reasons
    assert [None, None] == texts(clicks.category)
    assert ["click", "click"] == texts(clicks.event_type)
    assert [0, 0] == clicks.event_id.tolist()


def test_a_session_stands_in_for_a_missing_user():
    """An event without a user belongs to its session; one user's name is one code."""
    clicks, reasons = check(
        GOOD | {"session_id": "7"},
        GOOD | {"user_id": None, "session_id": "7"},
        GOOD | {"user_id": "session:7"},
        GOOD | {"user_id": "", "session_id": "8"},
        GOOD | {"user_id": None},
    )

    assert ["anna", "session:7", "session:7", "session:8"] == texts(clicks.user)
    assert ["7", "7", None, "8"] == texts(clicks.session)
    assert len(set(clicks.user.values)) == len(clicks.user.values)
    assert {4: "user_id and session_id are both missing"} == reasons


def test_numbers_for_ids_are_their_decimal_text():
    """The id 5 is one id, whether it comes as a number or as text."""
    clicks, reasons = check(*({**GOOD, "item_id": item} for item in (5, "5", 5.0, 6)))

    assert {} == reasons
    assert ["5", "5", "5", "6"] == texts(clicks.item)
    assert ["5", "6"] == clicks.item.values


@pytest.mark.parametrize(
    ("expected", "fields"),
    [
        (None, {"item_id": "x" * 512}),
        (None, {"item_id": "é" * 256}),
        (None, {"item_id": " ", "price": "3.50"}),
        ("item_id is missing", {"item_id": ""}),
        ("item_id is missing", {"item_id": None}),
        ("item_id 1.5 is neither text nor a whole number", {"item_id": 1.5}),
        ("item_id nan is neither text nor a whole number", {"item_id": float("nan")}),
        ("item_id is 514 bytes long; at most 512 are allowed", {"item_id": "é" * 257}),
        ("user_id is 100000 bytes long; at most 512 are allowed", {"user_id": "u" * 100_000}),
        ("session_id is not valid UTF-8", {"session_id": "s\udcff"}),
        ("category 'a\\x00b' contains a NUL byte", {"category": "a\0b"}),
        ("price 'cheap' is not a finite number", {"price": "cheap"}),
        ("price 'nan' is not a finite number", {"price": float("nan")}),
        ("price 'inf' is not a finite number", {"price": "inf"}),
        ("timestamp is missing", {"timestamp": None}),
    ],
)
def test_the_reason_names_the_field_and_the_fault(expected, fields):
    """What is wrong is said; what is unusual but right passes."""
    assert expected == reason(**fields)


def test_a_poison_event_costs_its_neighbours_nothing():
    """The others come through in order, and no wrong text stays in a dictionary."""
    clicks, reasons = check(
        GOOD | {"user_id": "ben"},
        GOOD | {"user_id": "u\udcff", "item_id": "i\0", "event_id": "x" * 600},
        GOOD | {"user_id": "cora", "timestamp": -1},
        GOOD | {"user_id": "dan"},
    )

    assert [1, 2] == list(reasons)
    assert [10, 13] == clicks.position.tolist()
    assert ["ben", "dan"] == texts(clicks.user)
    assert ["lamp"] == clicks.item.values


def test_a_row_that_was_faulty_before_keeps_its_first_reason():
    """A record that could not be decoded is not blamed for missing fields."""
    raw = RawClicks(
        timestamp=[None, GOOD["timestamp"]],
        columns={"user_id": [None, "anna"], "item_id": [None, "lamp"]},
        faults={0: "not JSON"},
    )

    clicks, reasons = validate(raw, source="log", position=np.arange(2), span=SPAN)

    assert {0: "not JSON"} == reasons
    assert ["anna"] == texts(clicks.user)


anything = st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.just("x" * 513)
good = st.sampled_from(["a", "b", "7", 7, None])
events = st.fixed_dictionaries(
    {
        "user_id": good | anything,
        "item_id": good | anything,
        "timestamp": st.just(GOOD["timestamp"]) | anything,
        "category": good | anything,
        "event_type": good | anything,
        "session_id": good | anything,
        "event_id": good | anything,
        "price": anything,
    }
)


def rows(clicks):
    columns = (clicks.user, clicks.item, clicks.category, clicks.event_type, clicks.session)
    return list(
        zip(clicks.time.tolist(), clicks.event_id.tolist(), *map(texts, columns), strict=True)
    )


@given(st.lists(events, min_size=1, max_size=12))
def test_an_event_is_judged_alike_in_any_company(batch):
    """A batch is its events: each passes or fails, and reads, as it does alone."""
    clicks, reasons = check(*batch)
    alone = [check(event) for event in batch]

    assert [reasons.get(row) for row in range(len(batch))] == [faults.get(0) for _, faults in alone]
    assert rows(clicks) == [row for one, _ in alone for row in rows(one)]


@given(st.lists(events, min_size=1, max_size=12))
def test_what_passes_is_valid(batch):
    """Clicks and rejects are all of the batch, and text is short, valid and in order."""
    clicks, reasons = check(*batch)

    assert len(batch) == len(clicks) + len(reasons)
    assert (np.diff(clicks.position) > 0).all()
    assert None not in texts(clicks.user)
    for column in (clicks.user, clicks.item, clicks.category, clicks.event_type, clicks.session):
        assert len(set(column.values)) == len(column.values)
        assert all(0 < len(value.encode()) <= 520 for value in column.values)
