"""Segments, the flows between them, and audiences of users who moved."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import pipeline.segments
from pipeline.segments import DORMANT, NOBODY, Interests, _assign, moved_into, segments
from pipeline.snapshots import TOP
from pipeline.volume import WEEK

DAY = WEEK // 7


def over_time(rows):
    """Make interests of (day, user, {category: share})."""
    rows = sorted(rows, key=lambda row: row[0])
    users = sorted({user for _, user, _ in rows})
    categories = sorted({name for *_, shares in rows for name in shares})
    category = np.zeros((len(rows), TOP), np.int32)
    share = np.zeros((len(rows), TOP))
    for i, (*_, shares) in enumerate(rows):
        for k, (name, weight) in enumerate(shares.items()):
            category[i, k], share[i, k] = categories.index(name), weight
    return Interests(
        users=users,
        categories=categories,
        user=np.array([users.index(user) for _, user, _ in rows], np.int32),
        time=np.array([int(day * DAY) for day, *_ in rows], np.int64),
        category=category,
        share=share,
    )


def named(names, flows):
    def name(place):
        return {NOBODY: "new", DORMANT: "dormant"}.get(place) or names[place]

    return [{(name(a), name(b)): n for (a, b), n in flow.users.items()} for flow in flows]


EVERYBODY = {"food/bread": 0.6, "food/milk": 0.2}


def test_a_segment_is_what_sets_a_user_apart():
    """All want food most; the one who alone wants dogs' things is with the dogs."""
    rows = [(1, f"u{n}", EVERYBODY | {"home/pans": 0.2}) for n in range(9)]
    names, members, [flow] = segments(
        over_time([*rows, (1, "dog", EVERYBODY | {"dogs/toys": 0.1, "dogs/food": 0.1})]), WEEK
    )
    assert "dogs" == names[members.segment[0]]
    assert {("new", "dogs"): 1, ("new", "food"): 9} == named(names, [flow])[0]


def test_moves_stays_and_silence_are_counted():
    """One moves in the second week, one is silent from then on and dormant four weeks later."""
    rows = [(1, "ann", {"a": 0.9, "b": 0.1}), (1, "ben", {"b": 0.9, "a": 0.1})]
    rows += [(week * 7 + 2, "ann", {"b": 0.9, "a": 0.1}) for week in range(1, 6)]
    rows += [(week * 7 + 1, "carl", {"a": 0.9, "b": 0.1}) for week in range(6)]
    names, members, flows = segments(over_time(rows), WEEK)
    told = named(names, flows)
    assert {("new", "a"): 2, ("new", "b"): 1} == told[0]
    assert {("a", "b"): 1, ("b", "b"): 1, ("a", "a"): 1} == told[1]
    assert 1 == told[4]["b", "dormant"]
    assert {("dormant", "dormant"): 1, ("b", "b"): 1, ("a", "a"): 1} == told[5]
    assert [9 * DAY, DAY, DAY] == members.since.tolist()
    assert ["b", "b", "a"] == [names[place] for place in members.known]
    assert "a" == names[members.former[0]]


def test_windows_in_which_nothing_happens_cost_nothing(monkeypatch):
    """Of many short windows only those are looked into where somebody comes or falls asleep."""
    looked_into = []

    def counting(interests, segment, rows, members):
        looked_into.append(rows.tolist())
        _assign(interests, segment, rows, members)

    monkeypatch.setattr(pipeline.segments, "_assign", counting)
    rows = [(0, "ann", {"a": 1.0}), (2, "ben", {"b": 1.0}), (100, "ann", {"b": 1.0})]
    names, members, flows = segments(over_time(rows), DAY)
    told = named(names, flows)
    assert [[0], [1], [], [], [2]] == looked_into
    assert list(range(101)) == [flow.start // DAY for flow in flows]
    assert [{("new", "a"): 1}, {("a", "a"): 1}, {("a", "a"): 1, ("new", "b"): 1}] == told[:3]
    assert {("a", "a"): 1, ("b", "b"): 1} == told[3]
    assert {("a", "dormant"): 1, ("b", "b"): 1} == told[4]
    assert {("dormant", "dormant"): 1, ("b", "b"): 1} == told[5]
    assert {("dormant", "dormant"): 1, ("b", "dormant"): 1} == told[6]
    assert [{("dormant", "dormant"): 2}] * 93 == told[7:100]
    assert {("dormant", "b"): 1, ("dormant", "dormant"): 1} == told[100]
    assert [100, 2] == members.seen.tolist()


def test_a_small_change_does_not_move_a_user():
    """A user goes where a quarter more draws than holds."""
    others = [(day, "zoe", {"c": 1.0}) for day in (1, 8)]
    close = [(1, "ann", {"a": 0.52, "b": 0.48}), (8, "ann", {"a": 0.49, "b": 0.51})]
    far = [(1, "ann", {"a": 0.52, "b": 0.48}), (8, "ann", {"a": 0.2, "b": 0.8})]
    for rows, expected in ((close, "a"), (far, "b")):
        names, members, _ = segments(over_time(rows + others), WEEK)
        assert expected == names[members.segment[0]]


shares = st.dictionaries(st.sampled_from("abc"), st.floats(0.05, 0.3), min_size=1, max_size=3)
histories = st.lists(
    st.tuples(st.integers(0, 70), st.sampled_from(["ann", "ben", "carl"]), shares),
    min_size=1,
    max_size=25,
)


@given(histories)
def test_nobody_is_lost_between_windows(rows):
    """Who was in a place is in one in the next window; newcomers only add to them."""
    names, _, flows = segments(over_time(rows), WEEK)
    told = named(names, flows)
    for before, after in zip(told, told[1:], strict=False):
        was, came_from = {}, {}
        for (_, place), n in before.items():
            was[place] = was.get(place, 0) + n
        for (place, _), n in after.items():
            came_from[place] = came_from.get(place, 0) + n
        came_from.pop("new", None)
        assert was == came_from
    assert len({user for _, user, _ in rows}) == sum(told[-1].values())


def test_an_audience_is_of_those_who_moved_in_time():
    """Grown twofold and by five points in the span; new users and those who went back are not."""
    rows = [
        *[(1, "mover", {"a": 0.9, "Baby/prams": 0.02}), (20, "mover", {"Baby/prams": 0.4})],
        *[(1, "two", {"Baby/prams": 0.05}), (20, "two", {"Baby/food": 0.1, "Baby/prams": 0.05})],
        *[(1, "always", {"Baby/food": 0.5}), (20, "always", {"Baby/food": 0.6})],
        *[(1, "early", {"a": 0.9}), (5, "early", {"Baby/food": 0.5})],
        *[(1, "back", {"a": 0.9}), (16, "back", {"Baby/food": 0.5}), (20, "back", {"a": 0.9})],
        *[(1, "late", {"a": 0.9}), (25, "late", {"Baby/food": 0.5})],
        (20, "new", {"Baby/food": 0.5}),
    ]
    meant, found = moved_into(over_time(rows), "baby", within=14 * DAY, at=21 * DAY)
    assert ["Baby/food", "Baby/prams"] == meant
    assert ["mover", "two"] == [moved.user for moved in found]
    assert (0.02, 0.4, 20 * DAY, "Baby/prams") == (
        *(found[0].before, found[0].after),
        *(found[0].since, found[0].category),
    )
    assert ([], []) == moved_into(over_time(rows), "cars", within=14 * DAY, at=21 * DAY)
