"""The recipe as a whole: evaluate, train, gate, checkpoint."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from clicks import clicks as clicks_of
from weeks import WEEK, quick, week

from learners import checkpoint, persistence, state
from learners.continual import Learner
from learners.state import StateError
from pipeline.events import concatenate
from pipeline.settings import Duration, Model, SettingsError

GRU = Model(kind="gru", dim=16, blocks=1, max_length=12, dropout=0.1)
EVERYTHING = {"ewc": 10.0, "distillation": 0.5, "replay": 0.5, "ewc_samples": 32}


def told(report):
    """Return a report without the one figure that a clock decides."""
    return msgspec.to_builtins(msgspec.structs.replace(report, training_seconds=0.0))


def reported(settings, windows):
    """Return what a learner tells of windows."""
    learner = Learner(settings)
    return [told(learner.learn(window)) for window in windows]


def resumed(settings, windows, count, directory):
    """Return what is told of windows by a learner, and from `count` on by one made of its state."""
    first = Learner(settings)
    found = [told(first.learn(window)) for window in windows[:count]]
    first.save(directory)
    second = Learner.load(directory, settings)
    return found + [told(second.learn(window)) for window in windows[count:]]


def test_a_window_is_evaluated_before_it_is_trained_on():
    """A pattern that is new in a window is missed there, and found in the next."""
    learner = Learner(quick(gate_forgetting=1.0))
    for number in range(3):
        learner.learn(week(number))
    known = learner.learn(week(3))
    changed = learner.learn(week(4, pattern=1))
    after = learner.learn(week(5, pattern=1))

    assert known.mrr > 0.4
    assert changed.mrr < 0.25 * known.mrr
    assert changed.blend.mrr < 0.5 * known.blend.mrr
    assert changed.markov.mrr < 0.5 * known.markov.mrr
    assert after.mrr > 2 * changed.mrr


@pytest.mark.parametrize(
    "changes",
    [
        {},
        EVERYTHING,
        {"full_softmax_up_to": 10, "negatives": 256, "replay_policy": "loss"},
        {"replay_policy": "herding"},
        {"model": GRU, "ewc": 10.0, "ewc_samples": 16},
    ],
)
def test_a_resumed_learner_goes_on_as_if_it_had_never_stopped(tmp_path, changes):
    """Reports and checkpoint ids after a restart equal those without one."""
    settings, weeks = quick(**changes), [week(number) for number in range(4)]

    assert reported(settings, weeks) == resumed(settings, weeks, 2, tmp_path)


def test_saving_does_not_change_the_state(tmp_path):
    """A state that is loaded and saved again is the same, byte for byte."""
    learner = Learner(quick(**EVERYTHING))
    for number in range(2):
        learner.learn(week(number))
    learner.save(tmp_path / "one")
    Learner.load(tmp_path / "one", learner.settings).save(tmp_path / "two")

    expected = (tmp_path / "one" / "learner.state").read_bytes()
    assert expected == (tmp_path / "two" / "learner.state").read_bytes()


def test_a_recurrent_model_learns_too():
    """`model.kind = "gru"` finds the pattern, and its checkpoint is of that kind."""
    learner = Learner(quick(model=GRU))
    reports = [learner.learn(week(number)) for number in range(4)]

    assert reports[3].mrr > 0.4
    assert learner.champion.recurrent


def test_a_poisoned_window_is_rejected():
    """Shuffled labels make no champion, and the reason gives both figures."""
    learner = Learner(quick())
    for number in range(3):
        learner.learn(week(number))
    champion = learner.champion_id
    report = learner.learn(week(3, shuffled=True))

    assert "rejected" == report.decision
    assert champion == report.champion == learner.champion_id
    assert champion != report.checkpoint
    assert "of the champion" in report.reason


def flooded(number, clicks=1_000_000, item="i0", category="c0"):
    """Return a week into which one user pours clicks on one item."""
    window = week(number)
    rows = [{"user": "bot", "item": item, "time": window.start, "category": category}]
    bot = concatenate([clicks_of(rows)]).take(np.zeros(clicks, np.int64))
    times = np.linspace(window.start, window.end - 1, clicks).astype(np.int64)
    return replace(window, clicks=concatenate([window.clicks, replace(bot, time=times)]))


@pytest.mark.parametrize("clicked", [("i0", "c0"), ("i0", "no such category"), ("junk", "c0")])
def test_a_bot_that_clicks_one_item_a_million_times_is_refused(tmp_path, clicked):
    """The flooded window leaves nothing behind but its report, which says why."""
    learner = Learner(quick())
    for number in range(2):
        learner.learn(week(number))
    learner.save(tmp_path / "before")
    report = learner.learn(flooded(2, item=clicked[0], category=clicked[1]))
    learner.save(tmp_path / "after")

    assert ("rejected", None) == (report.decision, report.checkpoint)
    assert "1,000,000 of 1,000,480 events are one user's of one item" in report.reason
    expected = (tmp_path / "before" / "learner.state").read_bytes()
    assert expected == (tmp_path / "after" / "learner.state").read_bytes()


def test_a_busy_user_is_learnt_from_within_bounds():
    """Clicks below the limit of a flood are learnt from, the newest `most_events` of them."""
    learner = Learner(quick(most_events=20, gate_flood=1.0, epochs=1, first_epochs=1))
    learner.learn(flooded(0, clicks=2000))

    assert 20 + 480 == learner.ensemble.popularity.counts.sum()


def test_a_period_replayed_twice_is_refused():
    """The same sessions at a later time are no new week."""
    learner = Learner(quick())
    for number in range(2):
        learner.learn(week(number))
    champion = learner.champion_id
    again = week(1)
    later = replace(again.clicks, time=again.clicks.time + WEEK)
    report = learner.learn(
        replace(again, start=again.start + WEEK, end=again.end + WEEK, clicks=later)
    )

    assert "rejected" == report.decision
    assert report.reason.startswith("repeated: 100% of the sequences")
    assert champion == report.champion


def test_a_rolled_back_champion_is_followed(tmp_path):
    """The learner goes on from the parent, and what the bad window left for replay is gone."""
    settings = quick(gate_tolerance=1.0, gate_forgetting=1.0)
    learner = Learner(settings, checkpoints=tmp_path)
    first, second = (learner.learn(week(number)) for number in range(2))
    assert (second.checkpoint, first.checkpoint) == checkpoint.roll_back(tmp_path)
    assert first.checkpoint == checkpoint.champion(tmp_path)
    third = learner.learn(week(2))

    assert first.checkpoint == checkpoint.load(tmp_path / third.checkpoint).manifest.parent
    assert third.checkpoint == checkpoint.champion(tmp_path)
    kept = learner.recipe.replay.sequences
    last = kept.times[kept.starts[1:] - 1] // WEEK
    assert {0, 2} == set(last.tolist())


def test_a_resumed_learner_follows_a_rollback_too(tmp_path):
    """Rolled back while the learner was down, it goes on the same."""
    settings = quick(gate_tolerance=1.0, gate_forgetting=1.0)
    learner = Learner(settings, checkpoints=tmp_path / "checkpoints")
    for number in range(2):
        learner.learn(week(number))
    learner.save(tmp_path)
    checkpoint.roll_back(tmp_path / "checkpoints")
    resumed = Learner.load(tmp_path, settings, checkpoints=tmp_path / "checkpoints")

    assert told(learner.learn(week(2))) == told(resumed.learn(week(2)))


def test_a_rollback_while_a_challenger_is_trained_holds(tmp_path):
    """What was trained from a champion that is none any more does not become it."""
    rolled, interrupted = [], False

    def interrupt(_fraction, text):
        if text == "training" and interrupted and not rolled:
            rolled.append(checkpoint.roll_back(tmp_path))

    settings = quick(gate_tolerance=1.0, gate_forgetting=1.0)
    learner = Learner(settings, checkpoints=tmp_path, progress=interrupt)
    windows = iter(map(week, range(4)))
    first, second = learner.learn(next(windows)), learner.learn(next(windows))
    interrupted = True
    third, fourth = learner.learn(next(windows)), learner.learn(next(windows))

    assert [(second.checkpoint, first.checkpoint)] == rolled
    assert "rejected" == third.decision
    assert "was rolled back meanwhile" in third.reason
    assert first.checkpoint == checkpoint.load(tmp_path / fourth.checkpoint).manifest.parent
    assert fourth.checkpoint == checkpoint.champion(tmp_path)


def test_a_champion_rolled_back_before_its_window_is_learnt_again_stays_away(tmp_path):
    """Learnt again after a crash, the window gives the same checkpoint, and no champion."""
    settings = quick(gate_tolerance=1.0, gate_forgetting=1.0)
    learner = Learner(settings, checkpoints=tmp_path / "checkpoints")
    first = learner.learn(week(0))
    learner.save(tmp_path)
    second = learner.learn(week(1))
    checkpoint.roll_back(tmp_path / "checkpoints")
    resumed = Learner.load(tmp_path, settings, checkpoints=tmp_path / "checkpoints")
    again, third = resumed.learn(week(1)), resumed.learn(week(2))

    assert (second.checkpoint, first.checkpoint) == (again.checkpoint, again.champion)
    assert ("rejected", f"{second.checkpoint} was rolled back") == (again.decision, again.reason)
    made = checkpoint.load(tmp_path / "checkpoints" / third.checkpoint).manifest
    assert first.checkpoint == made.parent
    kept = resumed.recipe.replay.sequences
    last = kept.times[kept.starts[1:] - 1] // WEEK
    assert {0, 2} == set(last.tolist())


def test_after_a_rollback_weights_are_held_where_the_champion_has_them(tmp_path):
    """Consolidation pulls towards the champion of before, not the one that was rolled back."""
    settings = quick(ewc=10.0, ewc_samples=16, gate_tolerance=1.0, gate_forgetting=1.0)
    learner = Learner(settings, checkpoints=tmp_path)
    for number in range(2):
        learner.learn(week(number))
    checkpoint.roll_back(tmp_path)
    learner.follow_rollback()
    weights = dict(learner.champion.named_parameters())

    assert all(
        torch.equal(weights[name][: len(old)], old)
        for name, old in learner.recipe.consolidation.anchor.items()
    )


def test_what_an_item_is_called_in_a_window_is_not_known_before(tmp_path):
    """A known item's category counts from the next window on; the evaluation has the former."""
    settings = quick()
    learner = Learner(settings)
    for number in range(2):
        learner.learn(week(number))
    with torch.no_grad():
        learner.champion.categories.mul_(50)
    learner.save(tmp_path)
    window = week(2)
    category = window.clicks.category
    late = np.arange(len(window.clicks)) >= len(window.clicks) - 40
    codes = np.where(late, (category.codes + 1) % len(category.values), category.codes)
    moved = replace(window.clicks, category=replace(category, codes=codes.astype(np.int32)))
    other = Learner.load(tmp_path, settings)
    plain, renamed = learner.learn(window), other.learn(replace(window, clicks=moved))

    assert learner.catalogue.category.tolist() != other.catalogue.category.tolist()
    assert plain.recall == renamed.recall
    assert plain.blend == renamed.blend
    assert plain.cold_inclusive == renamed.cold_inclusive


def lessons_of(learner, number):
    """Return by owner how many events of a week may be lessons again, and how many there are."""
    past = learner.histories.past
    own = np.repeat(np.arange(len(past)), past.lengths)
    inside = past.times // WEEK == number
    taught = np.bincount(own[inside & past.fresh], minlength=len(past)).tolist()
    there = np.bincount(own[inside], minlength=len(past)).tolist()
    return dict(zip(past.owners, zip(taught, there, strict=True), strict=True))


def test_what_no_training_is_to_see_is_no_lesson_later(tmp_path):
    """Held, rejected and rolled-back events stay in users' histories as inputs alone."""
    settings = quick(gate_tolerance=1.0, gate_forgetting=1.0)
    learner = Learner(settings, checkpoints=tmp_path)
    for number in range(2):
        learner.learn(week(number, events=4))
        held = {
            owner
            for probe in learner.probes.kept
            if probe.start == number * WEEK
            for owner in probe.sequences.owners
        }
        told = lessons_of(learner, number)
        assert {owner: (0 if owner in held else 4, 4) for owner in told} == told
    assert {(0, 4), (4, 4)} == set(lessons_of(learner, 0).values())
    checkpoint.roll_back(tmp_path)
    learner.follow_rollback()
    assert {(0, 4)} == set(lessons_of(learner, 1).values())
    assert {(0, 4), (4, 4)} == set(lessons_of(learner, 0).values())
    strict = Learner(quick())
    for number in range(3):
        strict.learn(week(number))
    assert "rejected" == strict.learn(week(3, shuffled=True)).decision
    assert {(0, 12)} == set(lessons_of(strict, 3).values())


def test_a_change_that_lasts_is_let_through():
    """The gate holds a changed pattern back at first, not for ever."""
    learner = Learner(quick(half_life=Duration.parse("7d")))
    for number in range(3):
        learner.learn(week(number))
    decisions = [learner.learn(week(number, pattern=1)).decision for number in range(3, 8)]

    assert "rejected" == decisions[0]
    assert "promoted" in decisions


def test_checkpoints_and_the_champion_lie_on_disk(tmp_path):
    """Each window leaves a checkpoint that can be verified; `champion` names the promoted one."""
    learner = Learner(quick(), checkpoints=tmp_path)
    reports = [learner.learn(week(number)) for number in range(2)]
    manifests = [checkpoint.load(tmp_path / report.checkpoint).manifest for report in reports]

    assert [None, manifests[0].id] == [manifest.parent for manifest in manifests]
    assert reports[1].champion == (tmp_path / "champion").read_text()
    assert {"test": 2 * 40 * 12 - 1} == manifests[1].sources
    assert reports[1].decision == manifests[1].decision


def test_the_first_window_evaluates_nothing_and_says_it_is_first():
    """There is no model before the first window."""
    report = Learner(quick()).learn(week(0))

    assert (0, 0.0, "promoted") == (report.evaluated, report.recall, report.decision)
    assert report.reason.startswith("first model")


def test_an_empty_window_changes_nothing():
    """A window without clicks trains nothing and decides nothing."""
    learner = Learner(quick())
    learner.learn(week(0))
    champion = learner.champion_id
    report = learner.learn(week(1, users=0))

    assert ("none", None, 0) == (report.decision, report.checkpoint, report.events)
    assert champion == report.champion


def test_what_is_known_of_a_user_can_be_erased(tmp_path):
    """After `forget` the saved state does not name the user."""
    learner = Learner(quick())
    learner.learn(week(0))
    learner.forget("u7")
    learner.save(tmp_path)
    content = (tmp_path / "learner.state").read_bytes()

    assert b'"u6"' in content
    assert b'"u7"' not in content


def test_a_state_of_other_settings_is_refused(tmp_path):
    """Going on under other settings would belie the settings version in every report."""
    Learner(quick()).save(tmp_path)

    with pytest.raises(StateError, match="saved under settings"):
        Learner.load(tmp_path, quick(epochs=1))


def test_a_state_tells_the_settings_it_was_saved_under(tmp_path):
    """So it can be looked at by whoever has no settings file; one that does not is refused."""
    learner = Learner(quick(epochs=3))
    learner.save(tmp_path)

    assert learner.settings == Learner.load(tmp_path).settings

    saved = persistence.collect(learner)
    del saved.texts["learnt under"]
    state.write(tmp_path, saved)
    with pytest.raises(StateError, match="another release"):
        Learner.load(tmp_path)


def test_a_state_of_layout_1_is_read(tmp_path):
    """What it says of repeats and of the blend starts anew, the rest goes on."""
    learner = Learner(quick())
    for number in range(2):
        learner.learn(week(number))
    saved = persistence.collect(learner)
    del saved.texts["layout"]
    saved.put("ensemble.neighbours.again", np.ones((2, 20)))
    saved.put("ensemble.blend.weights", np.full(5, 9.0))
    state.write(tmp_path, saved)
    actual = Learner.load(tmp_path, learner.settings)
    anew = Learner(learner.settings).ensemble

    assert anew.neighbours.again.tolist() == actual.ensemble.neighbours.again.tolist()
    assert anew.blend.weights.tolist() == actual.ensemble.blend.weights.tolist()
    assert learner.learn(week(2)).recall == actual.learn(week(2)).recall


def test_a_state_of_layout_2_is_read(tmp_path):
    """Its prints are of rows, so they start anew; its items are taken for just seen."""
    learner = Learner(quick())
    for number in range(2):
        learner.learn(week(number, first=30 * number))
    saved = persistence.collect(learner)
    saved.texts["layout"] = 2
    del saved.tensors["catalogue.unseen"]
    state.write(tmp_path, saved)
    actual = Learner.load(tmp_path, learner.settings)

    assert {0, 1} == set(learner.catalogue.unseen.tolist())
    assert [0] * len(learner.catalogue.items) == actual.catalogue.unseen.tolist()
    assert 0 == len(actual.prints) < len(learner.prints)
    assert learner.learn(week(2)).recall == actual.learn(week(2)).recall


def test_a_damaged_state_is_refused(tmp_path):
    """One flipped bit is noticed."""
    Learner(quick()).save(tmp_path)
    path = tmp_path / "learner.state"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    with pytest.raises(StateError, match="damaged"):
        Learner.load(tmp_path, quick())


def test_sessions_are_learnt_from_without_being_carried_over():
    """Users that stand for sessions leave no history behind."""
    window = week(0)
    users = window.clicks.user
    users.values[:] = [f"session:{name}" for name in users.values]
    learner = Learner(quick())
    report = learner.learn(window)

    assert "promoted" == report.decision
    assert 0 == len(learner.histories.past)
    assert [] == learner.ensemble.personal.users.names


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_a_device_that_is_not_here_is_told(device):
    """The error names the setting, whether nobody has such a device or only this machine not."""
    with pytest.raises(SettingsError, match=f'learning.device = "{device}" cannot be used here'):
        Learner(quick(device=device))
