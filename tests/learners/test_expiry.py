"""Items that expire: every row and every number of theirs goes, all others stay what they were."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_continual import EVERYTHING, reported, resumed
from test_model import batch_of, made
from test_sequences import packed, unpacked, walks
from weeks import WEEK, quick, week

from learners import checkpoint, strategies
from learners.buffer import Buffer
from learners.catalogue import Renumbering, Vocabulary
from learners.continual import Learner
from learners.counts import Counts
from learners.ewc import Consolidation
from learners.forgetting import Probes
from learners.recipe import OwnRecipe

NAMES = "abcdefghij"

masks = st.lists(st.booleans(), min_size=10, max_size=10).map(np.array)
pairs = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40)


def shifted(number, **more):
    """Return a week of which half the items are new, and half are gone with the next."""
    return week(number, first=30 * number, **more)


def names_in(window):
    return {window.clicks.item.values[code] for code in window.clicks.item.codes}


def by_user(window):
    """Return the names of each user's items, in order."""
    clicks = window.clicks
    found = {}
    for user, item in zip(clicks.user.codes, clicks.item.codes, strict=True):
        found.setdefault(clicks.user.values[user], []).append(clicks.item.values[item])
    return found


def read_off(sequences, names):
    """Return the names of each owner's items, in order."""
    walks = [[names[item] for item in walk] for walk in unpacked(sequences)]
    return dict(zip(sequences.owners, walks, strict=True))


@given(walks, masks)
def test_sequences_keep_the_events_of_items_that_stay(lists, stays):
    """What is left is what a list without the others would be, by name."""
    items = Renumbering(stays)
    left = packed(lists).renumbered(items)
    names = [name for name, stay in zip(NAMES, stays, strict=True) if stay]
    expected = [[NAMES[item] for item in walk if stays[item]] for walk in lists]

    assert [walk for walk in expected if walk] == [
        [names[item] for item in walk] for walk in unpacked(left) if walk
    ]
    assert [f"u{row}" for row, walk in enumerate(expected) if walk] == left.owners


@given(pairs, pairs, masks)
def test_pairs_keep_their_counts(settled, fresh, stays):
    """Among items that stay every count is what it was, and no other is left."""
    counts = Counts(100)
    for part in (settled, fresh):
        rows, columns = np.array(part, np.int64).T
        counts.add(rows, columns, np.ones(len(rows), np.float32))
        if part is settled:
            counts.settle(1.0)
    every, kept = np.arange(10)[:, None], np.arange(int(stays.sum()))[:, None]
    before = counts.shares(every, np.ones(every.shape, np.float32), 10).dense(10)
    counts.renumber(Renumbering(stays), Renumbering(stays))
    after = counts.shares(kept, np.ones(kept.shape, np.float32), len(kept)).dense(len(kept))

    assert before[np.ix_(stays, stays)].tolist() == after.tolist()
    assert 12 * np.count_nonzero(after) <= counts.bytes
    for table in (counts.settled, counts.fresh):
        assert sorted(set(table.keys.tolist())) == table.keys.tolist()


@given(
    st.lists(st.tuples(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)))),
    st.lists(st.tuples(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)))),
)
def test_an_earlier_vocabulary_is_told_what_became_of_its_rows(before, after):
    """Rows whose name was there all the while stay, and a name that went and came back is new."""

    def live(vocabulary, steps):
        gone = set()
        for come, go in steps:
            for name in sorted(come):
                vocabulary.row(name)
            gone |= go
            vocabulary = Vocabulary(name for name in vocabulary.names if name not in go)
        return vocabulary, gone

    former, _ = live(Vocabulary(), before)
    now, gone = live(Vocabulary(former.names), after)
    actual = now.since(former.names)

    # one that comes back to the very row it would have had anyway may be taken for the old one
    stayed = [name not in gone for name in former.names]
    assert all(actual.stays[stayed])
    for name, row in zip(former.names, actual.rows, strict=True):
        assert row in {-1, now.get(name)}
    assert list(range(int(actual.stays.sum()))) == actual.rows[actual.stays].tolist()


@pytest.mark.parametrize("kind", ["transformer", "gru"])
@given(stays=masks)
def test_a_model_says_the_same_of_items_that_stay(kind, stays):
    """States and output embeddings are what they were, to the last bit."""
    stays = stays | (np.arange(10) < 6)  # those of the inputs
    model = made(10, kind)
    batch = batch_of(packed([[0, 1, 2, 3], [4, 5, 1]]))
    rows = torch.from_numpy(np.flatnonzero(stays))
    with torch.no_grad():
        states, table = model(batch), model.table()[rows]
        model.renumber(Renumbering(stays))

        assert torch.equal(states, model(batch))
        assert torch.equal(table, model.table())
        assert torch.equal(table, model.rows(torch.arange(len(rows))))


@given(walks, masks)
def test_a_buffer_keeps_what_can_be_asked(lists, stays):
    """Sequences of two events or more stay, each with its priority."""
    buffer = Buffer(100, "recency")
    buffer.add(packed(lists), np.ones(10, np.float32), np.random.default_rng(1))
    buffer.renumber(Renumbering(stays))
    left = [(walk, stays[walk].sum()) for walk in lists]

    assert [count for _, count in left if count > 1] == buffer.sequences.lengths.tolist()
    assert [1000 * (len(walk) - 1) for walk, n in left if n > 1] == buffer.priority.tolist()


def test_targets_that_are_gone_are_not_asked():
    """A probe without any goes; the others are ranked among those of their items that stay."""
    probes = Probes(4, 50, 6)
    probes.add(packed([[1, 2, 3]]), start=0, items=5)
    probes.add(packed([[4, 5]]), start=1, items=6)
    probes.renumber(Renumbering(np.array([True, False, True, True, False, True, True])))

    assert [(0, 3, [[1, 2]])] == [
        (probe.start, probe.items, unpacked(probe.sequences)) for probe in probes.kept
    ]
    assert probes.ask(made(5)).learnt is not None


def test_what_was_important_lines_up():
    """Fisher information and anchor lose the same rows as the model, also where it is ahead."""
    model = made(8)
    consolidation = Consolidation()
    ones = {name: torch.ones_like(value) for name, value in model.named_parameters()}
    ones["items"] *= torch.arange(8)[:, None]
    consolidation.absorb(ones, model, 0.9)
    expected = model.items.detach()[[0, 2, 7]]
    stays = np.isin(np.arange(10), [0, 2, 7, 9])
    consolidation.renumber(Renumbering(stays))

    assert [0, 2, 7] == consolidation.fisher["items"][:, 0].tolist()
    assert torch.equal(expected, consolidation.anchor["items"])
    assert model.positions.shape == consolidation.anchor["positions"].shape


def test_items_that_are_not_dead_yet_change_nothing():
    """Up to the first item that goes, reports are those of a learner that keeps all."""

    def unnamed(**changes):
        found = reported(quick(**EVERYTHING, **changes), [shifted(number) for number in range(4)])
        return [report | {"checkpoint": None, "champion": None} for report in found]

    expected, actual = unnamed(), unnamed(item_windows=3)

    assert expected[:3] == actual[:3]
    assert (150, 120) == (expected[3]["items"], actual[3]["items"])
    for name in ("recall@20", "blend", "knn", "markov", "popularity", "personal", "evaluated"):
        assert expected[3][name] == actual[3][name]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        EVERYTHING,
        {"update_rank": 4, "replay_policy": "loss", "distillation": 0.5},
        {"full_softmax_up_to": 10, "negatives": 32, "replay_policy": "herding"},
        {"retrain": True},
    ],
)
def test_all_that_is_held_is_of_items_of_the_last_windows(tmp_path, changes):
    """By name: vocabulary, checkpoint, categories, histories, and which item followed which."""
    learner = Learner(quick(item_windows=2, epochs=1, **changes), checkpoints=tmp_path)
    weeks = [shifted(number) for number in range(6)]
    histories, followed = {}, set()
    for number, window in enumerate(weeks):
        report = learner.learn(window)
        items = set().union(*map(names_in, weeks[max(0, number - 1) : number + 1]))
        for user, walk in by_user(window).items():
            whole = histories.get(user, []) + walk
            followed |= set(pairwise(whole[-len(walk) - 1 :]))
            histories[user] = whole[-12:]
        left = {user: [name for name in walk if name in items] for user, walk in histories.items()}
        histories = {user: walk for user, walk in left.items() if walk}
        names = learner.catalogue.items.names
        pairs = learner.ensemble.markov.counts.settled.keys

        assert items == set(names)
        assert 90 >= report.items == len(names) == len(learner.champion.items)
        if report.checkpoint == report.champion:
            assert names == checkpoint.load(tmp_path / report.checkpoint).names().items
        assert [f"c{int(name[1:]) % 4}" for name in names] == [
            learner.catalogue.categories.names[row] for row in learner.champion.category
        ]
        assert histories == read_off(learner.histories.past, names)
        assert {pair for pair in followed if items.issuperset(pair)} == {
            (names[pair >> 32], names[pair & 0xFFFFFFFF]) for pair in pairs
        }
        held = (learner.recipe.replay, learner.anchors, *learner.probes.kept)
        assert all(part.sequences.items.max(initial=0) < len(names) for part in held)
    assert 6 > len(learner.probes.kept) > 0


@pytest.mark.parametrize("changes", [EVERYTHING, {"update_rank": 4, "replay_policy": "loss"}])
def test_a_resumed_learner_drops_the_same(tmp_path, changes):
    """Reports and checkpoint ids after a restart equal those without one."""
    settings, windows = quick(item_windows=2, **changes), [shifted(number) for number in range(5)]
    expected = reported(settings, windows)

    assert expected == resumed(settings, windows, 3, tmp_path)
    assert expected[-1]["items"] <= 90


def test_a_rolled_back_champion_lines_up(tmp_path):
    """Of the one on disk, rows stay whose items were there all the while."""
    settings = quick(item_windows=1, epochs=0, gate_tolerance=1.0, gate_forgetting=1.0)
    learner = Learner(settings, checkpoints=tmp_path)
    for number, first in enumerate((0, 30, 0, 30)):
        learner.learn(week(number, first=first))
    for _ in range(3):
        _, former = checkpoint.roll_back(tmp_path)
    report = learner.learn(week(4, first=30))
    then, now = (checkpoint.load(tmp_path / name) for name in (former, report.checkpoint))
    rows, others = (
        dict(zip(packed.names().items, packed.tensors()["items"], strict=True))
        for packed in (then, now)
    )

    assert former == now.manifest.parent
    for name in (f"i{number}" for number in range(30, 60)):
        assert torch.equal(rows[name], others[name])


def test_what_comes_back_is_new():
    """It is no target of the protocol, and nothing is counted of its past."""
    learner = Learner(quick(item_windows=1))
    for number, first in enumerate((0, 100)):
        learner.learn(week(number, first=first))
    window = week(2)
    report = learner.learn(window)

    assert 0 == report.evaluated
    assert names_in(window) == set(learner.catalogue.items.names)
    assert len(window.clicks) == learner.ensemble.popularity.counts.sum()


def test_an_old_window_is_known_again_though_its_items_went():
    """What comes word by word is refused, whatever rows its items have by now."""
    learner = Learner(quick(item_windows=1))
    old = week(0)
    learner.learn(old)
    learner.learn(week(1, first=100))
    report = learner.learn(replace(old, start=2 * WEEK, end=3 * WEEK))

    assert report.reason.startswith("repeated: 100% of the sequences")


def test_silence_drops_nothing():
    """Windows without events, as when a source fails, are none that an item is missing from."""
    learner = Learner(quick(item_windows=1))
    learner.learn(week(0))
    items = list(learner.catalogue.items.names)
    for number in range(1, 4):
        learner.learn(week(number, users=0))

    assert items == learner.catalogue.items.names


def test_avalanche_is_refused():
    """Its memories hold items by row, so its strategies do not start where items expire."""
    with pytest.raises(ValueError, match="avalanche:naive cannot drop items"):
        strategies.recipe("avalanche:naive", quick(item_windows=4).learning)


class Told(OwnRecipe):
    """Driftline's recipe, which keeps what it is told of new items."""

    def __init__(self, learning):
        super().__init__(learning, torch.device("cpu"))
        self.shares = []

    def fit(self, challenger, new, *, known, **more):
        self.shares.append((known, len(challenger.items)))
        return super().fit(challenger, new, known=known, **more)


def test_the_recipe_is_told_which_items_are_new():
    """Of the first window all are; later those behind the items that have stayed."""
    settings = quick(item_windows=1, first_epochs=1, epochs=1)
    recipe = Told(settings.learning)
    learner = Learner(settings, recipe=recipe)
    windows = [shifted(number) for number in range(3)]
    for window in windows:
        learner.learn(window)
    names = [names_in(window) for window in windows]
    both = [len(old & new) for old, new in pairwise(names)]

    expected = list(zip([0, *both], map(len, names), strict=True))
    assert expected == recipe.shares
