"""What is sent twice counts once, and who is in two partitions is known by a bounded sample."""

import random
from dataclasses import replace

import pytest
from aiokafka import ConsumerRecord
from clicks import clicks
from hypothesis import given
from hypothesis import strategies as st

from connectors.kafka.keying import Sample
from connectors.kafka.records import Records
from connectors.kafka.rekey import ORIGIN, Origins


def record(offset, origin=None, topic="clicks-by-user"):
    headers = () if origin is None else ((ORIGIN, b"%d:%d" % origin),)
    return ConsumerRecord(topic, 0, offset, 0, 1, b"u", b"", None, 1, 0, headers)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9), st.integers(0, 9)), max_size=12),
    st.lists(st.integers(0, 100), max_size=4),
)
def test_whatever_is_sent_again_every_record_counts_once(turns, cuts):
    """Partitions send on in order, each going back now and then: each record is fresh once."""
    reached = dict.fromkeys(range(3), 0)
    sent = []
    for partition, count, back in turns:
        start = max(0, reached[partition] - back)
        sent += [(partition, start + n) for n in range(count)]
        reached[partition] = max(reached[partition], start + count)
    records = [record(offset, origin) for offset, origin in enumerate(sent)]
    edges = [0, *sorted(min(cut, len(records)) for cut in cuts), len(records)]
    origins = Origins()
    spans = zip(edges, edges[1:], strict=False)
    fresh = [origins.fresh("clicks-by-user", Records.of(records[a:b])) for a, b in spans]
    told = [headers[0][1] for found in fresh for headers in found.headers.values()]
    assert sorted(b"%d:%d" % at for at in set(sent)) == sorted(told)
    assert len(sent) - len(set(sent)) == origins.repeated


@pytest.mark.parametrize("topic", ["clicks", "clicks-by-user"])
def test_without_an_origin_nothing_is_passed_over(topic):
    """Other topics and other producers' records are left alone."""
    records = [record(offset, (0, 0) if topic == "clicks" else None, topic) for offset in (3, 4)]
    assert [3, 4] == Origins().fresh(topic, Records.of(records)).offsets.tolist()


@pytest.mark.parametrize("told", [b"abc", b"1:x", b"", None, b"1:2:3", b"-1:2"])
def test_an_origin_that_is_none_stops_nobody(told):
    """A record that somebody else has put such a header on is taken as it is."""
    strange = replace(record(3), headers=((ORIGIN, told),))
    assert [3] == Origins().fresh("clicks-by-user", Records.of([strange])).offsets.tolist()


def test_samples_of_two_partitions_share_their_users():
    """Of users met in both partitions those in the sample are in both samples, and no others."""
    draw = random.Random(3)

    def met(users):
        batch = clicks([{"user": f"u{n}", "item": "i", "time": 1} for n in users])
        sample = Sample(size=64)
        for start in range(0, len(users), 100):
            sample.meet(batch.take(slice(start, start + 100)))
        assert 64 == len(sample.places)
        return sample.places.keys()

    one, other, both = range(1000), range(1000, 2000), [draw.randrange(1000) for _ in range(1000)]
    assert not met(one) & met(other)
    shared = met(one) & met([*other, *both])
    assert 10 < len(shared)
