"""What stores, changelogs and topics bear, byte for byte: earlier builds have written it."""

import json

import msgspec
import pytest

from connectors import wire
from connectors.backtest import _RejectLine
from connectors.kafka.checkpoints import Champion, decode
from connectors.kafka.messages import gone_message
from connectors.kafka.partitions import Stamp
from connectors.kafka.rekey import Origins
from connectors.kafka.restore import Followed
from connectors.kafka.trend_stage import TrendProgress
from connectors.prior_file import decode_prior
from connectors.store import StoreError, is_replicated, local_key, pairs, unpack
from connectors.validate import Reject
from pipeline.engine import Changes, Counts, Progress, decode_progress
from pipeline.prior import UNIFORM
from pipeline.rollups import Open, Rollup, RollupsState
from pipeline.settings import SettingsError

PROGRESS = Progress(
    position=41,
    counts=Counts(applied=3, late=1, duplicates=2),
    rollups=RollupsState(
        source="clicks/0",
        newest=1_700_000_000_000,
        open={7: Open(counts={5: 2}, types={"view": 2}, users={9: {5}}, items={6: 2})},
        size=7,
    ),
)
PROGRESS_BYTES = (
    b"\x83\xa8position)\xa6counts\x83\xa7applied\x03\xa4late\x01\xaaduplicates\x02\xa7rollups\x85"
    b"\xa6source\xa8clicks/0\xa6newest\xcf\x00\x00\x01\x8b\xcf\xe5h\x00\xa4open\x81\x07\x85\xa6counts"
    b"\x81\x05\x02\xa5types\x81\xa4view\x02\xaduncategorised\x00\xa5users\x81\t\x91\x05\xa5items\x81"
    b"\x06\x02\xa4late\x00\xa4size\x07"
)
ROLLUP = Rollup(
    start=0,
    end=7,
    counts={"a": 2, "b/c": 1},
    types={"view": 3},
    uncategorised=1,
    users={9: [0, 1]},
    items={6: 2},
    source="clicks/0",
    position=41,
)
ROLLUP_BYTES = (
    b'{"rollup":{"start":0,"end":7,"counts":{"a":2,"b/c":1},"types":{"view":3},"uncategorised":1,'
    b'"users":{"9":[0,1]},"items":{"6":2},"source":"clicks/0","position":41,"cut":false},"schema":1}'
)


def test_the_records_of_a_changelog_are_what_they_were():
    """Keys tell states, names and the driver's own apart; a tombstone ends a user."""
    changes = Changes(
        states=[("anna", b"1")],
        names={2743226023163425386: "books/comics"},
        progress=b"p",
        gone=["ben"],
    )
    assert [
        (b"sanna", b"1"),
        (b"sben", None),
        (b"n&\x11\xe5\x88\xa9Crj", b"books/comics"),
        (b"mprogress", b"p"),
        (b"m/log", b"ab"),
        (b"m/stamp", b"s"),
    ] == pairs(changes, {"log": b"ab", "stamp": b"s"})


def test_what_is_this_disks_own_is_in_no_changelog():
    """A record with such a key, or with none, is somebody else's."""
    keys = [b"sanna", b"n", b"mprogress", b"", None, b"l", local_key("followed"), b"x"]
    assert [True, True, True, *[False] * 5] == [is_replicated(key) for key in keys]


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (PROGRESS, PROGRESS_BYTES),
        (
            Stamp(
                next=42,
                dead_letters=1,
                origins=Origins(newest={3: 9}, repeated=2),
                erased=7,
                passed_over=2,
            ),
            (
                b"\x85\xa4next*\xacdead_letters\x01\xa7origins\x82\xa6newest\x81\x03\t\xa8repeated"
                b"\x02\xa6erased\x07\xabpassed_over\x02"
            ),
        ),
        (
            Followed(log="ab", next=7, seconds=1.5),
            b"\x83\xa3log\xa2ab\xa4next\x07\xa7seconds\xcb?\xf8\x00\x00\x00\x00\x00\x00",
        ),
    ],
)
def test_what_is_kept_beside_states_is_what_it_was(value, data):
    """In MessagePack, by the names of the fields, so that a later build may add some."""
    assert data == msgspec.msgpack.encode(value)
    assert value == msgspec.msgpack.decode(data, type=type(value))
    later = msgspec.msgpack.decode(data) | {"new": 1}
    assert value == unpack(msgspec.msgpack.encode(later), type(value), "a store")


def test_progress_without_the_windows_length_is_read():
    """As builds before wrote it: their windows have the length that the settings have."""
    before = PROGRESS_BYTES.replace(b"rollups\x85", b"rollups\x84").removesuffix(b"\xa4size\x07")
    progress = decode_progress(before)
    assert 0 == progress.rollups.size
    assert PROGRESS.rollups.open == progress.rollups.open


def test_rejects_are_what_they_were():
    """A line of a rejects file; a file's record is cut, and readable whatever its bytes."""
    record = wire.excerpt(b"\xff" + b"x" * 600)
    reject = Reject(source="a.csv", position=7, reason="why", record=record)
    assert (
        b'{"source":"a.csv","line":7,"reason":"why","record":"\\\\xff' + b"x" * 499 + b'"}'
    ) == msgspec.json.encode(_RejectLine.of(reject))


def test_rollups_and_champions_are_what_they_were():
    """In JSON, with their schema."""
    assert ROLLUP_BYTES == wire.encode_rollup(ROLLUP)
    assert ROLLUP == wire.decode_rollup(ROLLUP_BYTES)
    champion = b'{"model":"next-item","id":"3f","instead_of":"2e","schema":1}'
    assert Champion(id="3f", instead_of="2e") == decode(champion, Champion)
    assert champion == msgspec.json.encode(Champion(id="3f", instead_of="2e"))


def test_who_is_gone_has_a_tombstone_among_the_profiles():
    """Compaction takes the profiles before it, and then itself."""
    message = gone_message("anna")
    assert ("interest-profiles", b"anna", None) == (message.topic, message.key, message.value)


def test_a_rollup_that_does_not_fit_together_is_refused():
    """A user's categories are among those counted."""
    with pytest.raises(wire.WireError, match="does not count"):
        wire.decode_rollup(ROLLUP_BYTES.replace(b"[0,1]", b"[0,2]"))


def test_bytes_that_were_not_kept_by_a_driver_are_refused():
    """With where they stand, and how to mend it."""
    with pytest.raises(StoreError, match=r"here holds a TrendProgress .* delete it"):
        unpack(b"\xc1", TrendProgress, "here")
    with pytest.raises(ValueError, match="not an engine's progress"):
        decode_progress(b"\xc1")
    assert Stamp() == unpack(None, Stamp, "here")


@pytest.mark.parametrize(
    ("change", "told"),
    [({"schema": 1}, "schema 1"), ({"unseen": 0}, "unseen"), ({"shares": {"a": 1.5}}, "shares")],
)
def test_a_prior_that_would_mislead_is_refused(change, told):
    """One of another schema, and one whose shares are none."""
    given = json.loads(msgspec.json.encode(UNIFORM)) | change
    with pytest.raises(SettingsError, match=told):
        decode_prior(json.dumps(given).encode())
