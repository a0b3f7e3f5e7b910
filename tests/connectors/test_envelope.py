"""Clicks inside CloudEvents, and what else a record of the bus says beside its value."""

import json
from base64 import b64encode

import numpy as np
import pytest
from aiokafka import ConsumerRecord

from connectors import wire
from connectors.files import read
from connectors.kafka.decoding import decode_records
from connectors.kafka.records import Records
from pipeline.settings import Source

CLICK = {"user_id": "anna", "item_id": "lamp", "timestamp": 1_714_564_800}
UNTIMED = {"user_id": "anna", "item_id": "lamp"}
EVENT = {
    "specversion": "1.0",
    "type": "shop.click",
    "source": "shop",
    "id": "17",
    "time": "2024-05-01T12:00:00Z",
    "datacontenttype": "application/json",
}
TIME = 1_714_564_800_000


def record(value, headers=(), *, offset=3, sent=TIME):
    """Make a record as the client hands it over."""
    payload = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
    size = len(payload or b"")
    return ConsumerRecord("t", 0, offset, sent, 1, None, payload, None, 0, size, tuple(headers))


def decode(*records, source=Source()):  # noqa: B008  settings are frozen
    return decode_records(Records.of(records), "t/0", source)


def headers(**attributes):
    return [(f"ce_{name}", value.encode()) for name, value in attributes.items()]


def known(clicks):
    """Return what the tests look at: user, item, time, and whether there is an event id."""
    return [
        (clicks.user.values[u], clicks.item.values[i], t, bool(e))
        for u, i, t, e in zip(
            clicks.user.codes, clicks.item.codes, clicks.time, clicks.event_id, strict=True
        )
    ]


@pytest.mark.parametrize(
    "value",
    [
        EVENT | {"data": CLICK},
        EVENT | {"data": UNTIMED},
        EVENT | {"data_base64": b64encode(json.dumps(CLICK).encode()).decode()},
    ],
)
def test_a_structured_event_is_opened(value):
    """The click is the event's data; time and id are the event's where the click has none."""
    clicks, rejects = decode(record(value))
    assert ([("anna", "lamp", TIME, True)], []) == (known(clicks), rejects)


def test_a_binary_event_lends_time_and_id():
    """Attributes in headers stand for what the value does not say, and for nothing else."""
    told = headers(specversion="1.0", id="17", source="shop", time="2024-05-01T13:00:00Z")
    later = TIME + 3_600_000
    clicks, _ = decode(
        record(UNTIMED, told), record(CLICK, told, offset=4), record(CLICK, offset=5)
    )
    assert [(later, True), (TIME, True), (TIME, False)] == [row[2:] for row in known(clicks)]
    structured, _ = decode(record(EVENT | {"data": CLICK}))
    assert clicks.event_id[0] == structured.event_id[0]


def test_an_events_id_is_unique_with_its_source_only():
    """The same id of two sources is two events; a click's own event_id comes first."""
    values = [
        EVENT | {"data": CLICK},
        EVENT | {"data": CLICK, "source": "app"},
        EVENT | {"data": CLICK | {"event_id": "x"}},
        CLICK | {"event_id": "x"},
    ]
    clicks, _ = decode(*(record(value, offset=n) for n, value in enumerate(values)))
    first, second, *own = clicks.event_id.tolist()
    assert first != second
    assert 1 == len(set(own))


@pytest.mark.parametrize(
    ("word", "value", "told"),
    [
        ("CloudEvent of specversion '0.3'", EVENT | {"specversion": "0.3", "data": CLICK}, []),
        ("CloudEvent of specversion '2.0'", CLICK, headers(specversion="2.0")),
        ("CloudEvent without data", EVENT, []),
        ("not a click in a CloudEvent", EVENT | {"data": [1]}, []),
        ("not a CloudEvent in JSON", EVENT | {"data_base64": "%%"}, []),
        ("not a CloudEvent in JSON", EVENT | {"specversion": 1, "data": CLICK}, []),
        ("schema version 2: this release reads version 1", CLICK | {"schema": 2}, []),
        ("schema version 7", EVENT | {"data": CLICK | {"schema": 7}}, []),
        ("schema registry", b"\0\0\0\0\x07" + json.dumps(CLICK).encode(), []),
        ("25 hours ahead", CLICK | {"timestamp": TIME + 25 * 3_600_000}, []),
    ],
)
def test_a_stranger_is_refused_with_a_reason(word, value, told):
    """What cannot be read is a reject with its bytes and place, and its neighbours are read."""
    stranger = record(value, told)
    clicks, [reject] = decode(record(CLICK, offset=2), stranger, record(CLICK, offset=4))
    assert [2, 4] == clicks.position.tolist()
    assert word in reject.reason
    assert (3, stranger.value) == (reject.position, reject.record)


@pytest.mark.parametrize("schema", [1, "2", {"type": "struct"}, None])
def test_what_is_no_version_of_ours_is_no_matter(schema):
    """A field of that name with another meaning does not keep a click out."""
    assert 1 == len(decode(record(CLICK | {"schema": schema}))[0])


def test_a_layout_of_its_own_has_versions_of_its_own():
    """With a map the schema field is the layout's, and a path through the data is kept to."""
    mapped = Source(map={"user": "who"})
    value = {"who": "anna", "item_id": "lamp", "timestamp": TIME, "schema": 9}
    assert 1 == len(decode(record(value), source=mapped)[0])
    through = Source(map={"user": "data.user_id", "item": "data.item_id", "timestamp": "time"})
    assert [("anna", "lamp", TIME, False)] == known(
        decode(record(EVENT | {"data": UNTIMED}), source=through)[0]
    )


def test_a_wrong_clock_is_measured_by_the_time_of_sending():
    """An event may be as old as it likes, and ahead by what the settings allow."""
    far = record(CLICK, sent=TIME - 3 * 86_400_000)
    assert (0, 1) == tuple(map(len, decode(far)))
    assert (1, 0) == tuple(map(len, decode(far, source=Source(ahead=4 * 86_400_000))))
    assert (1, 0) == tuple(map(len, decode(record(CLICK, sent=TIME + 10**12))))
    assert (1, 0) == tuple(map(len, decode(record(CLICK, sent=-1))))


def test_structured_events_are_read_from_files_alike(tmp_path):
    """A file of structured events gives the clicks that the bus gives, under foreign names too."""
    values = [EVENT | {"id": str(n), "data": {"sku": "lamp", "visitor": "anna"}} for n in range(3)]
    path = tmp_path / "clicks.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    [(clicks, rejects)] = read([path], Source())
    assert ([("anna", "lamp", TIME, True)] * 3, []) == (known(clicks), rejects)
    names = Source(map={"user": "visitor", "item": "sku"})
    lines = [json.dumps(value).encode() for value in values]
    same, _ = wire.decode_clicks(lines, np.arange(3), "t/0", names)
    assert clicks.event_id.tolist() == same.event_id.tolist()
