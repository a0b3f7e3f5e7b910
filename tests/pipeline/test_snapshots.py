"""Of a user's snapshots the newest is kept until it is written."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.snapshots import SNAPSHOT, NewestSnapshots, Snapshots

users = st.sampled_from(["anna", "ben", "eve", "ida"])


def batch(told):
    """Return snapshots of some users; the number of each stands in all of its bytes."""
    data = b"".join(bytes([number]) * SNAPSHOT.itemsize for _, number in told)
    return Snapshots([user for user, _ in told], np.frombuffer(data, SNAPSHOT))


batches = st.lists(st.lists(st.tuples(users, st.integers(0, 255)), max_size=9), max_size=4)


@given(batches, st.lists(users), batches)
def test_the_newest_of_each_user_stays(first, erased, second):
    """However they come, and whoever is forgotten meanwhile."""
    newest, expected = NewestSnapshots(), {}
    for told in first:
        newest.put(batch(told))
        expected |= dict(told)
    for user in erased:
        newest.forget(user)
        expected.pop(user, None)
    for told in second:
        newest.put(batch(told))
        expected |= dict(told)
    kept = newest.all()
    assert expected == dict(zip(kept.users, map(number, kept.taken), strict=True))
    assert sorted(expected) == sorted(kept.users)


def number(taken):
    """Return the byte that all of a snapshot bears."""
    [found] = set(taken.tobytes())
    return found


@given(batches, st.integers(1, 5))
def test_parts_are_the_whole(told, size):
    """No part is longer than it may be, and none is lost."""
    whole = batch([one for some in told for one in some])
    parts = list(whole.parts(size))
    assert whole.users == [user for part in parts for user in part.users]
    assert whole.taken.tobytes() == b"".join(part.taken.tobytes() for part in parts)
    assert all(0 < len(part) <= size for part in parts)
