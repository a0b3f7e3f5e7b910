"""Windows to sequences to batches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from clicks import clicks
from hypothesis import given
from hypothesis import strategies as st

from learners.catalogue import Catalogue
from learners.sequences import (
    Histories,
    Sequences,
    concatenate,
    group,
    join,
    lessons,
    questions,
)

walks = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=30), min_size=1, max_size=6)


def packed(lists, *, fresh=True):
    lengths = [len(items) for items in lists]
    return Sequences(
        owners=[f"u{number}" for number in range(len(lists))],
        starts=np.cumsum([0, *lengths]),
        items=np.array([item for items in lists for item in items], np.int64),
        types=np.zeros(sum(lengths), np.int64),
        times=np.concatenate([np.arange(length) * 1000 for length in lengths]).astype(np.int64),
        fresh=np.full(sum(lengths), fresh),
    )


def unpacked(sequences):
    return [part.tolist() for part in np.split(sequences.items, sequences.starts[1:-1])]


def read(catalogue, rows, by="auto"):
    batch = clicks(rows)
    return group(batch, *catalogue.read(batch), by)


def rows_of(user, items, start=0, **more):
    return [
        {"user": user, "item": item, "time": start + nth, **more} for nth, item in enumerate(items)
    ]


def test_rows_are_given_by_first_sight():
    """The first item ever seen has row 0, and keeps it."""
    catalogue = Catalogue()
    catalogue.read(clicks(rows_of("a", ["x", "y", "x"])))
    items, _ = catalogue.read(clicks(rows_of("a", ["z", "y"])))

    assert ["x", "y", "z"] == catalogue.items.names
    assert [2, 1] == items.tolist()


def test_an_item_keeps_its_newest_category():
    """A later category replaces an earlier one; none told leaves it as it was."""
    catalogue = Catalogue()
    catalogue.read(clicks(rows_of("a", ["x"], category="old")))
    catalogue.read(clicks(rows_of("a", ["x"], category="new")))
    catalogue.read(clicks(rows_of("a", ["x", "y"])))

    assert ["new", ""] == [catalogue.categories.names[row] for row in catalogue.category]


def test_users_that_stand_for_sessions_do_not_last():
    """Under "auto" only real users are carried over."""
    rows = rows_of("a", ["x", "y"]) + rows_of("session:1", ["y", "z"])
    sequences, lasting = read(Catalogue(), rows)

    assert [[0, 1], [1, 2]] == unpacked(sequences)
    assert [True, False] == lasting.tolist()


def test_sessions_of_one_user_are_taken_apart_on_request():
    """Under "session" a sequence is a user's session, owned by the user."""
    rows = rows_of("a", ["x", "y"], session="1") + rows_of("a", ["z"], session="2")
    sequences, lasting = read(Catalogue(), rows, "session")

    assert [[0, 1], [2]] == unpacked(sequences)
    assert ["a", "a"] == sequences.owners
    assert [False, False] == lasting.tolist()


@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=9), min_size=1, max_size=5))
def test_histories_are_the_newest_events_of_each_user(windows):
    """What is carried over is what the whole past ends on."""
    catalogue, histories, past = Catalogue(), Histories(3), {}
    for number, users in enumerate(windows):
        rows = [
            {"user": user, "item": f"{number}-{nth}", "time": number * 100 + nth}
            for nth, user in enumerate(users)
        ]
        for row in rows:
            past.setdefault(row["user"], []).append(row["item"])
        histories.extend(*read(catalogue, rows))
    names = catalogue.items.names
    held = [[names[item] for item in items] for items in unpacked(histories.past) if items]

    assert {user: items[-3:] for user, items in past.items()} == dict(
        zip(histories.past.owners, held, strict=True)
    )


def test_history_stands_before_the_window_and_is_no_target():
    """Only events of the window are asked for; the first of them has history before it."""
    catalogue, histories = Catalogue(), Histories(2)
    histories.extend(*read(catalogue, rows_of("a", ["x", "y", "z"])))
    whole, _ = histories.extend(*read(catalogue, rows_of("a", ["x", "z"], start=10)))

    assert [[1, 2, 0, 2]] == unpacked(whole)
    assert [2, 3] == whole.targets().tolist()


def test_silent_users_are_dropped():
    """A user whose newest event is too old leaves the memory."""
    histories = Histories(2)
    histories.extend(*read(Catalogue(), rows_of("a", ["x"]) + rows_of("b", ["x"], start=50)))
    histories.drop(40)

    assert ["b"] == histories.past.owners


@given(walks, st.integers(1, 12))
def test_each_target_is_taught_once_after_the_event_before_it(lists, length):
    """Cutting long sequences into inputs loses no target and repeats none."""
    sequences = packed(lists)
    batch = lessons(sequences, length)
    expected = sorted(
        (owner, before, after)
        for owner, items in zip(sequences.owners, lists, strict=True)
        for before, after in pairwise(items)
    )
    row, place = np.nonzero(batch.targets >= 0)
    actual = sorted(
        (batch.owners[i], int(batch.items[i, j]), int(batch.targets[i, j]))
        for i, j in zip(row, place, strict=True)
    )

    assert expected == actual
    assert batch.items.shape[1] <= length


@given(st.integers(2, 60), st.integers(1, 12))
def test_a_taught_target_sees_at_least_half_a_length(events, length):
    """However a sequence is cut, no target loses more than half of what it could see."""
    batch = lessons(packed([list(range(events))]), length)
    row, place = np.nonzero(batch.targets >= 0)
    available = batch.items[row, place] + 1  # an item is its own place in the sequence

    assert (place + 1 >= np.minimum(available, length - length // 2)).all()


@given(walks, st.integers(1, 12))
def test_a_question_is_what_came_before_its_target(lists, length):
    """The input is the newest `length` events of the same sequence."""
    sequences = packed(lists)
    targets = sequences.targets()
    batch = questions(sequences, targets, length)
    expected = [
        (items[max(0, place - length) : place], items[place])
        for items in lists
        for place in range(1, len(items))
    ]
    actual = [
        (batch.items[row, :size].tolist(), int(batch.targets[row, size - 1]))
        for row, size in enumerate(batch.lengths)
    ]

    assert expected == actual
    assert len(targets) == np.count_nonzero(batch.targets >= 0)


@given(walks, st.data())
def test_select_keeps_events_and_drops_empty_sequences(lists, data):
    """Selecting events is filtering each list."""
    keep = [[data.draw(st.booleans()) for _ in items] for items in lists]
    actual = packed(lists).select(np.concatenate([np.array(k, np.bool_) for k in keep]))
    expected = [
        [item for item, kept in zip(items, k, strict=True) if kept]
        for items, k in zip(lists, keep, strict=True)
    ]

    assert [items for items in expected if items] == [items for items in unpacked(actual) if items]


@given(walks, walks)
def test_joined_packs_hold_the_same_lists(one, two):
    """Joining is concatenating."""
    assert one + two == unpacked(join([packed(one), packed(two)]))


def test_gaps_are_bucketed_by_powers_of_two():
    """No event before, then 0 s, 1 s, 3 s and 1000 s later."""
    sequences = packed([[0, 1, 2, 3, 4]])
    sequences.times[:] = [5_000, 5_000, 6_000, 9_000, 1_009_000]

    assert [0, 1, 2, 3, 10] == sequences.gaps.tolist()


def test_batches_of_different_width_are_stacked():
    """The narrower one is padded without adding targets."""
    one, two = lessons(packed([[1, 2]]), 9), lessons(packed([[3, 4, 5]]), 9)

    assert [[2, -1], [4, 5]] == concatenate([one, two]).targets.tolist()
