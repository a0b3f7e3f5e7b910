"""Stores of partitions that are elsewhere lose who was erased, and nobody who came back."""

import msgspec

from connectors.kafka.erasures import Request
from connectors.kafka.left_behind import erase_from
from connectors.kafka.partitions import Stamp
from connectors.store import Store, meta_key, state_key


def test_who_came_back_before_the_partition_left_stays(tmp_path):
    """What the store had taken on by then is done: the state there now is that of a user anew."""
    with Store(tmp_path / "clicks-0") as store:
        states = [(state_key(user), b"state") for user in ("back", "gone", "other")]
        stamp = Stamp(next=100, erased=5)
        store.write([*states, (meta_key("stamp"), msgspec.msgpack.encode(stamp))])
    requests = [
        (3, Request(user="back", asked=1, ends={0: 50})),
        (5, Request(user="gone", asked=2, ends={0: 200})),
    ]
    erase_from(tmp_path / "clicks-0", requests)
    with Store(tmp_path / "clicks-0") as store:
        assert [b"state", None, b"state"] == store.load(["back", "gone", "other"])
