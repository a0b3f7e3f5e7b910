"""What is read of plain records at once is what the complete decoder reads of each alone."""

import json
from copy import copy
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.envelope import Context
from connectors.flat_json import FlatReader
from connectors.layout import FIELDS, full_names
from connectors.packed import Packed
from connectors.timestamps import Span
from connectors.validate import validate
from connectors.wire import click_decoder
from pipeline.events import NO_CODE
from pipeline.settings import Source

LAYOUTS = [
    Source(),
    Source(map={"user": "who", "item": "käufe", "timestamp": "at", "price": "paid"}),
    Source(map={"user": "who", "session": "who", "item": "at", "timestamp": "at"}),
    Source(map={"timestamp": "at", "price": "at", "type": "schema"}),
    Source(map={"item": "data", "category": "specversion", "price": "user_id"}),
]
PLAIN = b'{"user_id":"anna","item_id":"lamp","timestamp":1714564800}'
LONGEST = 100
READER = FlatReader(
    ["user_id", "item_id", "price"],
    {"specversion": None, "schema": "1"},
    fractions=["price"],
    longest=LONGEST,
)


def told(decoder, records, contexts, source):
    """Return by row what validation makes of it: the click's values, or the fault."""
    raw = decoder.columns(records, contexts)
    place = np.arange(len(records))
    clicks, faults = validate(raw, source="s", position=place, span=Span.of(source))
    columns = clicks.user, clicks.item, clicks.category, clicks.event_type, clicks.session
    texts = [
        [column.values[code] if code != NO_CODE else None for code in column.codes.tolist()]
        for column in columns
    ]
    events = zip(clicks.time.tolist(), clicks.event_id.tolist(), *texts, strict=True)
    rows = faults | dict(zip(clicks.position.tolist(), events, strict=True))
    assert len(records) == len(faults) + len(clicks)
    return [rows[row] for row in range(len(records))]


def told_closely(records, contexts, source):
    """Return the same of each record alone, as the complete decoder has it."""
    decoder = copy(click_decoder(source))
    decoder._flat = None  # noqa: SLF001
    known = [{0: contexts[row]} if row in contexts else {} for row in range(len(records))]
    return [
        told(decoder, [record], beside, source)[0]
        for record, beside in zip(records, known, strict=True)
    ]


def amid(records):
    """Pack records so that others stand before and behind them."""
    return Packed.of([b'{"user_id":"', None, *records, PLAIN, None, b'"}'])[2:-3]


def quoted(text):
    return json.dumps(text, ensure_ascii=False).encode(errors="surrogatepass")


def any_of(*tokens):
    return st.sampled_from(tokens)


texts = any_of("", "a", "1", "1.0", "Möbel", "1714564800", "\0", "\ud800", "a" * 600) | st.text()
plain = any_of(b'"anna"', b'"bob"', quoted("zoë"), b"7", b'"7"', b"1714564800")
values = st.one_of(
    plain,
    st.just(b"null"),
    texts.map(quoted),
    texts.map(json.dumps).map(str.encode),
    st.binary(max_size=2).map(lambda data: b'"%s"' % data),
    any_of(b'"\xff"', b'"\xfe"', b'"M\xc3"', b'"\\/"', b'"\\q"', b'"\\"', b'"', b'"\t"', b'"\x7f"'),
    st.integers().map(lambda number: b"%d" % number),
    any_of(b"0", b"1", b"-1", b"-0", b"00", b"-01", b"-", b"+1"),
    any_of(*(sign + b"9" * digits for sign in (b"", b"-") for digits in (18, 19, 20))),
    any_of(b"1714564800123999", b"1714564800123999.0", b"1714564800.25", b"1.", b".5", b"1.5x"),
    any_of(b"1.0", b"1.50", b"-0.5", b"0.0", b"1" * 16 + b".5", b"1" * 17 + b".5"),
    any_of(b"1e0", b"1E+3", b"15e-1", b"1e999", b"1e", b"1.7145648e9"),
    any_of(b"true", b"false", b"nul", b"nulls", b"NULL", b"NaN", b"", b"x"),
    any_of(b"{}", b"[]", b'{"user_id":"b"}', b'[1,"a"]', b"[[["),
)
times = any_of(b"1714564800", b"1714564800123", b'"2024-05-01T12:00:00Z"')
special = st.one_of(
    st.tuples(st.just(b'"specversion"'), any_of(b'"1.0"', b"null", b'""', b'"0.3"', b"1", b"{}")),
    st.tuples(st.just(b'"schema"'), any_of(b"1", b"2", b'"1"', b"null", b"1.0", b"true", b'""')),
    st.tuples(st.just(b'"data"'), any_of(PLAIN, b"null", b'"lamp"', b"[1]", b"7")),
    st.tuples(st.just(b'"time"'), any_of(b'"2024-05-01T12:00:00Z"', b"null", b"5")),
)
unheard_of = any_of(b'"x"', b'""', b'"user_idx"', quoted("ключ"), b'"id"', b'"\xff"', b'"\\u0078"')
seldom = st.integers(0, 9).map(lambda number: number == 9)
gaps = any_of(*[b""] * 20, b" ", b"\t", b"\n", b"\r\n", b"   ", b"\x0b", b"\xc2\xa0")
commas = any_of(*[b","] * 20, b"", b",,", b";")
ends = any_of(*[b"}"] * 20, b"", b",}", b"}}", b"}x", b"]", b"}\0")


@st.composite
def objects(draw, keys, more):
    """Draw a click with more or less of what it should not have."""
    pairs = [*zip(keys, map(draw, (plain, plain, times)), strict=True), *draw(more)]
    turn = draw(st.integers(0, len(pairs) - 1))
    pairs = pairs[turn:] + pairs[:turn]
    if not draw(seldom):
        pairs = dict(pairs).items()
    before, after, end = draw(gaps), draw(gaps), draw(ends)
    written = (key + before + b":" + after + value + before for key, value in pairs)
    return before + b"{" + after + (draw(commas) + after).join(written) + end + after


@st.composite
def spoilt(draw, clicks):
    """Draw one or two records: a click as it is, or something made of it."""
    record = draw(clicks)
    if not draw(seldom):
        return [record]
    place = draw(st.integers(0, len(record)))
    start, end, other = record[:place], record[place:], draw(st.binary(max_size=2))
    event = b'{"specversion":"1.0","id":"1","source":"s","time":"2024-05-01","data":%s}' % record
    changed = [
        start + other + end,
        start + other + end[1:],
        None,
        b"",
        b"{}",
        b"[]",
        b"\0" + record,
    ]
    return draw(any_of([start, end], [event], [event, record], *([made] for made in changed)))


@st.composite
def batches(draw, clicks):
    """Draw records, and by row what is known beside some of them."""
    records = list(chain.from_iterable(draw(st.lists(spoilt(clicks), min_size=1, max_size=5))))
    known = st.builds(Context, event_id=any_of(None, "s#1"), time=any_of(None, "2024-05-02"))
    return records, draw(st.dictionaries(st.integers(0, len(records) - 1), known, max_size=1))


def clicks_of(source):
    """Return clicks of a layout."""
    paths = full_names(source.map)
    keys = [quoted(paths.get(field, field)) for field in FIELDS.values()]
    more = special | st.tuples(any_of(*keys) | unheard_of, values)
    return objects(keys[:3], st.lists(more, max_size=3))


def read(records):
    """Return what the reader takes of plain columns: by row a value a key, and the rows left."""
    flat = READER.read(Packed.of(records))
    columns = [
        [column.values[code] if code != NO_CODE else None for code in column.codes.tolist()]
        for column in flat.columns.values()
    ]
    return list(zip(*columns, strict=True)), flat.left


@pytest.mark.parametrize(("source", "clicks"), [(layout, clicks_of(layout)) for layout in LAYOUTS])
@settings(max_examples=80)
@given(data=st.data())
def test_plain_records_are_read_as_any_others(source, clicks, data):
    """Whatever records hold, and whatever stands around them, clicks and faults are the same."""
    records, contexts = data.draw(batches(clicks))
    expected = told_closely(records, contexts, source)
    assert expected == told(click_decoder(source), amid(records), contexts, source)


@pytest.mark.parametrize(
    "records",
    [
        [b'{"specversion":"",' + PLAIN[1:]],
        [PLAIN.replace(b"anna", user) for user in (b"\xff", b"\xfe", b"bob", b"eve")],
        [PLAIN.replace(b"lamp", item) for item in (b"\xff", "Möbel".encode(), b"\xff", b"lamp")],
        [
            PLAIN.replace(b"anna", b"\\u0061").replace(b"1714564800", time)
            for time in (b"1714564800123999.0", b"1714564800123999")
        ],
        [PLAIN.replace(b'"anna"', user) for user in (b"7", b'"7"', b"7.0", b"true", b"7.5")],
        [PLAIN[:20], PLAIN[20:], PLAIN],
        [None, None],
        [],
    ],
)
def test_records_are_read_alike_in_any_company(records):
    """What is left, or broken, changes nothing of the records around it."""
    expected = told_closely(records, {}, LAYOUTS[0])
    assert expected == told(click_decoder(LAYOUTS[0]), records, {}, LAYOUTS[0])


PLAINLY_READ = [
    (("anna", "lamp", "9.50"), b'{"user_id":"anna","item_id":"lamp","price":9.50}'),
    (("zoë", "Möbel", "1"), quoted({"price": 1, "item_id": "Möbel", "user_id": "zoë"})),
    (("7", "-12", None), b'{"user_id":7,"item_id":-12,"price":null}'),
    (("9" * 19, "0", "0.5"), b'{"user_id":%s,"item_id":0,"price":0.5}' % (b"9" * 19)),
    ((None, "lamp", None), b'\t{ "user_id" :\r\nnull , "item_id" : "lamp" }\n'),
    (("anna", None, None), b'{"x":true,"y":1.5,"":"z","user_id":"anna","user_idx":"b","z":false}'),
    (("", "\x7f", ""), b'{"user_id":"","item_id":"\x7f","price":""}'),
    (("a", "1", "b"), b'{"schema":1,"specversion":null,"user_id":"a","item_id":"1","price":"b"}'),
    (("a", "a", "a"), b'{"schema":"1","user_id":"a","item_id":"a","price":"a"}'),
    ((None, None, None), b'{"x":"\xff","schema":null}'),
]


def test_plain_records_leave_nothing():
    """Texts of any script, numbers, null, blanks and unknown keys are read at once."""
    rows, records = zip(*PLAINLY_READ, strict=True)
    assert (list(rows), []) == read(records)
    assert (list(rows), []) == read(amid(records))


@pytest.mark.parametrize(
    "record",
    [
        None,
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"user_id":"a"',
        b'{"user_id":"a"}}',
        b'{"user_id":"a",}',
        b'{"user_id" "a"}',
        b'{"user_id":"a" "item_id":"b"}',
        b'\xef\xbb\xbf{"user_id":"a"}',
        b'{"user_id":"a","specversion":"1.0"}',
        b'{"user_id":"a","specversion":""}',
        b'{"user_id":"a","schema":2}',
        b'{"user_id":"a","schema":"2"}',
        b'{"user_id":"a","schema":1.0}',
        b'{"user_id":"\\u0061"}',
        b'{"user_id":"a","x":"\\n"}',
        b'{"user_id":"a","\\u0078":1}',
        b'{"user_id":"a\tb"}',
        b'{"user_id":"\xff"}',
        b'{"user_id":"\xed\xa0\x80"}',
        b'{"user_id":"a","x":{}}',
        b'{"user_id":["a"]}',
        b'{"user_id":"a","user_id":"b"}',
        b'{"user_id":null,"user_id":"b"}',
        b'{"user_id":true}',
        b'{"user_id":1.5}',
        b'{"user_id":1e5}',
        b'{"user_id":-0}',
        b'{"user_id":01}',
        b'{"user_id":%s}' % (b"9" * 20),
        b'{"user_id":"a","price":1.}',
        b'{"user_id":"a","price":1e5}',
        b'{"user_id":"a","price":NaN}',
        b'{"user_id":"a","x":-}',
        b'{"user_id":"a","x":nul}',
        b'{"user_id":"%s"}' % (b"a" * LONGEST),
    ],
)
def test_what_is_not_plain_is_left(record):
    """It has no values then, and those around it have theirs."""
    expected = [("anna", "lamp", None), (None, None, None), ("anna", "lamp", None)]
    assert (expected, [1]) == read([PLAIN, record, PLAIN])


def test_a_record_as_long_as_may_be_is_read():
    """One byte more, and it is left."""
    record = PLAIN.ljust(LONGEST)
    assert [1] == READER.read(Packed.of([record, record + b" "])).left


@pytest.mark.parametrize("texts", [[f"u{number}" for number in range(5000)], ["ä", "a"] * 9, []])
def test_a_value_is_held_once(texts):
    """The rows that have it bear its code, however many values there are."""
    users = READER.read(Packed.of([quoted({"user_id": text}) for text in texts])).columns["user_id"]
    assert list(dict.fromkeys(texts)) == users.values
    assert texts == [users.values[code] for code in users.codes.tolist()]
