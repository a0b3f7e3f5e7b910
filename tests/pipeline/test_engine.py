import random

import msgspec
from clicks import DAY, clicks, shopper
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from profiles import profiles_of

from pipeline.engine import Counts, Engine, Progress
from pipeline.events import AlertKind
from pipeline.packing import decode
from pipeline.settings import from_toml
from pipeline.trends import Trends

QUICK = from_toml(
    """
    [drift]
    events_per_false_alarm = 100
    minimum_events = 5
    [interests]
    profile_interval = "6h"
    lateness = "2h"
    [trends]
    window = "1d"
    """
)
FORGETFUL = replace(QUICK, interests=replace(QUICK.interests, retention=DAY))

events = st.lists(
    st.fixed_dictionaries(
        {
            "user": st.sampled_from(["anna", "ben", "session:9"]),
            "item": st.sampled_from(["i1", "i2", "i3"]),
            "category": st.sampled_from(["a", "b", "c/d/e", None]),
            "time": st.integers(0, 5 * DAY),
            "type": st.sampled_from(["click", "buy", "mystery"]),
            "session": st.sampled_from([None, "s1", "s2"]),
            "event_id": st.sampled_from([None, "e1", "e2", "e3"]),
        }
    ),
    max_size=60,
)


class Recorder:
    """An engine with a store beside it, and all that it said."""

    def __init__(self, *, capacity=100_000, progress=None, states=None, names=None, settings=QUICK):
        self.states = states if states is not None else {}
        self.names = names if names is not None else {}
        self.engine = Engine(
            settings,
            load=lambda users: [self.states.get(user) for user in users],
            name=self.names.get,
            progress=progress,
            capacity=capacity,
        )
        self.alerts, self.profiles, self.rollups, self.late = [], [], [], []

    def process(self, batch):
        effects = self.engine.process(batch)
        self.alerts += effects.alerts
        self.profiles += profiles_of(effects.profiles, self.engine.names)
        self.rollups += effects.rollups
        self.late += effects.late

    def commit(self):
        changes = self.engine.changes()
        self.states |= dict(changes.states)
        self.names |= changes.names
        return changes.progress

    def forget(self, *, first=0, most=100):
        """Let the engine look at some of what is stored."""
        stored = sorted(self.states.items())[first : first + most]
        changes = self.engine.changes(stored)
        self.states |= dict(changes.states)
        self.names |= changes.names
        for user in changes.gone:
            del self.states[user]
        return changes.gone

    def outcome(self):
        progress = self.commit()
        progress = msgspec.msgpack.decode(progress, type=Progress)
        return self.alerts, self.profiles, self.rollups, self.states, progress


def drifting():
    """A user who reads about cats, then about dogs."""
    rng = random.Random(1)
    before = [rng.choice(["cats", "cats/toys", "cats/food"]) for _ in range(60)]
    after = [rng.choice(["dogs", "dogs/toys", "dogs/food"]) for _ in range(60)]
    return shopper("anna", before + after)


@given(events)
def test_before_1970_events_do_what_they_do_after(rows):
    """Zero is a time like any other: what comes out is moved by as much as the events are."""
    past, present = Recorder(), Recorder()
    for recorder, moved in ((past, -100 * DAY), (present, 100 * DAY)):
        recorder.process(clicks([row | {"time": row["time"] + moved} for row in rows]))
    assert present.late == past.late
    assert present.engine.progress.counts == past.engine.progress.counts
    assert present.profiles == [
        replace(profile, time=profile.time + 200 * DAY) for profile in past.profiles
    ]


def test_a_change_before_1970_is_found_when_it_is_found_after():
    """The alert differs in its times alone."""
    found = []
    for moved in (-100 * DAY, 100 * DAY):
        recorder = Recorder()
        recorder.process(clicks([row | {"time": row["time"] + moved} for row in drifting()]))
        found.append([(a.kind, a.score, a.time - moved, a.since - moved) for a in recorder.alerts])
    assert found[0]
    assert found[0] == found[1]


def test_an_event_that_was_sent_twice_counts_once():
    """A producer that tries again makes no trend; that more was sent shows in the types alone."""
    rows = [row | {"event_id": str(row["time"])} for row in shopper("anna", "aaaab")]
    recorder = Recorder()
    recorder.process(clicks([row for row in rows for _ in range(2)]))
    [rollup] = recorder.engine.drain()
    assert Counts(applied=5, duplicates=5) == recorder.engine.progress.counts
    assert {"a": 4, "b": 1} == rollup.counts
    assert 5 == sum(rollup.items.values())
    assert {"click": 10} == rollup.types


def test_an_event_too_late_for_its_user_counts_in_its_window():
    """It happened in the window, which was still open: of the state alone it came too late."""
    rows = [*shopper("anna", "aaaaa"), *shopper("anna", "b")]
    recorder = Recorder()
    recorder.process(clicks(rows))
    [rollup] = recorder.engine.drain()
    assert Counts(applied=5, late=1) == recorder.engine.progress.counts
    assert {"a": 5, "b": 1} == rollup.counts


@given(events, st.lists(st.integers(0, 60), max_size=5))
def test_cuts_do_not_matter(rows, cuts):
    """The effects of a log are the same however it is cut into batches."""
    whole, cut = Recorder(), Recorder()
    batch = clicks(rows)
    whole.process(batch)
    edges = [0, *sorted(min(c, len(rows)) for c in cuts), len(rows)]
    for start, end in zip(edges, edges[1:], strict=False):
        cut.process(batch.take(slice(start, end)))
    assert whole.late == cut.late
    assert whole.outcome() == cut.outcome()


@given(events, st.integers(0, 60))
def test_a_resumed_engine_ends_where_one_that_ran_through_ends(rows, crash):
    """States reloaded from the store, in a cache too small to hold them, change nothing."""
    whole = Recorder()
    batch = clicks(rows)
    whole.process(batch)
    first = Recorder(capacity=1)
    first.process(batch.take(slice(0, crash)))
    second = Recorder(capacity=1, progress=first.commit(), states=first.states, names=first.names)
    second.process(batch)
    together = [a + b for a, b in zip(first.outcome()[:3], second.outcome()[:3], strict=True)]
    assert [*whole.outcome()[:3]] == together
    assert whole.outcome()[3:] == second.outcome()[3:]


@given(events, st.integers(0, 60))
def test_an_event_met_again_after_its_state_was_stored_is_not_applied_twice(rows, crash):
    """States that are ahead of the progress, as after a lost commit, pass over what they had."""
    whole, ahead = Recorder(), Recorder()
    batch = clicks(rows)
    whole.process(batch)
    ahead.process(batch.take(slice(0, crash)))
    ahead.commit()
    behind = Recorder(states=ahead.states, names=ahead.names)
    behind.process(batch)
    assert whole.outcome()[3] == behind.outcome()[3]


@given(events)
def test_every_event_is_accounted_for(rows):
    """In = applied + late + duplicate, and every late event is named."""
    recorder = Recorder()
    recorder.process(clicks(rows))
    counts = recorder.engine.progress.counts
    assert counts.late == len(recorder.late)
    assert len(rows) == counts.applied + counts.late + counts.duplicates


@given(events)
def test_a_users_alerts_do_not_depend_on_who_else_is_there(rows):
    """Anna alone, and Anna among others, have the same alerts."""
    rows += drifting()
    among, alone = Recorder(), Recorder()
    among.process(clicks(rows))
    alone.process(clicks([row for row in rows if row["user"] == "anna"]))
    assert [a.id for a in alone.alerts] == [a.id for a in among.alerts if a.subject == "anna"]


@given(events, st.lists(st.tuples(st.integers(0, 60), st.integers(0, 2)), max_size=6))
def test_when_a_forgotten_user_is_deleted_does_not_matter(rows, sweeps):
    """A state that is too old counts as absent, stored or not, and after a restart."""
    never, swept = (Recorder(settings=FORGETFUL) for _ in range(2))
    batch = clicks(rows)
    never.process(batch)
    never.commit()
    at = 0
    for until, first in [*sorted(sweeps), (len(rows), 0)]:
        swept.process(batch.take(slice(at, until)))
        at = max(at, until)
        swept.forget(first=first, most=1)
        told = swept.alerts, swept.profiles, swept.rollups, swept.late
        progress = swept.commit()
        swept = Recorder(
            settings=FORGETFUL, progress=progress, states=swept.states, names=swept.names
        )
        swept.alerts, swept.profiles, swept.rollups, swept.late = told
    assert never.late == swept.late
    never.forget()
    swept.forget()
    assert never.outcome() == swept.outcome()


def test_a_user_who_was_silent_for_too_long_begins_anew():
    """Up to the retention the history goes on; beyond, it is another one, with other alert ids."""
    rows = drifting()
    whole = 120 * 3600_000
    assert max(row["time"] for row in rows) - min(row["time"] for row in rows) < whole
    for pause, events in ((DAY, 240), (DAY + 1, 120)):
        start = rows[-1]["time"] + pause - rows[0]["time"]
        recorder = Recorder(settings=FORGETFUL)
        recorder.process(clicks(rows + [row | {"time": row["time"] + start} for row in rows]))
        recorder.commit()
        assert events == decode([recorder.states["anna"]])["events"][0]
        ids = [alert.id for alert in recorder.alerts]
        assert len(ids) == len(set(ids)) > 1
    first, second = recorder.alerts[:1], recorder.alerts[len(recorder.alerts) // 2 :][:1]
    assert [a.score for a in first] == [a.score for a in second]


def test_silent_users_are_deleted_whoever_is_at_hand():
    """Whom others outlive by retention and lateness is deleted, in memory or not; others stay."""
    gap = DAY + 2 * 3600_000
    rows = [
        {"user": "anna", "item": "i", "category": "a", "time": 0},
        {"user": "ben", "item": "i", "category": "a", "time": 1},
        {"user": "carl", "item": "i", "category": "a", "time": gap + 1},
    ]
    recorder = Recorder(settings=FORGETFUL)
    recorder.process(clicks(rows))
    recorder.commit()
    assert ["anna"] == recorder.forget()
    assert ["ben", "carl"] == sorted(recorder.states)
    kept = Recorder()
    kept.process(clicks(rows))
    kept.commit()
    assert [] == kept.forget()


def test_a_jump_is_raised_once_and_explained():
    """Cats, then dogs: one alert, from cats to dogs, dated near the change, with evidence."""
    rows = drifting()
    recorder = Recorder()
    recorder.process(clicks(rows))
    [alert] = recorder.alerts
    assert alert.kind == AlertKind.USER_JUMP
    assert {i.category for i in alert.before} == {"cats", "cats/toys", "cats/food"}
    assert {i.category for i in alert.after} <= {"dogs", "dogs/toys", "dogs/food"}
    assert abs(alert.since - rows[60]["time"]) <= 8 * 3_600_000
    assert alert.time > rows[60]["time"]
    assert all(e.category.startswith("dogs") for e in alert.evidence)
    assert alert.evidence[-1].time == alert.time
    assert alert.score >= alert.threshold


def test_a_steady_user_raises_nothing():
    """The same interests in another order are no change."""
    rng = random.Random(3)
    rows = shopper("anna", [rng.choice("abcd") for _ in range(400)])
    recorder = Recorder()
    recorder.process(clicks(rows))
    assert [] == recorder.alerts


def test_a_basket_of_one_category_is_one_observation():
    """Many events of a category within a visit weigh as one for the detector."""
    baskets = [
        {"user": "anna", "item": f"i{n}", "category": c, "time": day * DAY, "session": str(day)}
        for day in range(6)
        for c in "ab"
        for n in range(30)
    ]
    recorder = Recorder()
    recorder.process(clicks(baskets))
    assert [] == recorder.alerts


def test_late_and_duplicate_events_are_counted_and_not_applied():
    """An event three hours behind its user is late; an id met before is a duplicate."""
    hour = DAY // 24
    rows = [
        {"user": "anna", "item": "i1", "time": 5 * hour, "event_id": "e1"},
        {"user": "anna", "item": "i1", "time": 5 * hour, "event_id": "e1"},
        {"user": "anna", "item": "i1", "time": 2 * hour},
        {"user": "ben", "item": "i1", "time": 2 * hour},
    ]
    recorder = Recorder()
    recorder.process(clicks(rows))
    assert Counts(applied=2, late=1, duplicates=1) == recorder.engine.progress.counts
    assert [2] == recorder.late


def test_profile_shows_both_time_scales_and_newest_items_first():
    """Half a year of books and a week of toys: toys now, books in the long run."""
    rows = shopper("anna", ["books"] * 180, gap=DAY)
    rows += shopper("anna", ["toys"] * 30, start=181 * DAY, gap=DAY)
    recorder = Recorder()
    recorder.process(clicks(rows))
    profile = recorder.profiles[-1]
    assert "toys" == profile.short_term[0].category
    assert "books" == profile.long_term[0].category
    assert ["toys-1", "toys-0", "toys-6"] == profile.recent_items[:3]
    assert 210 == profile.events


def test_more_categories_than_slots_keep_the_heaviest():
    """A user of 200 categories is remembered by those that weigh most."""
    rows = shopper("anna", ["often"] * 50 + [f"c{i}" for i in range(200)] + ["often"])
    recorder = Recorder()
    recorder.process(clicks(rows))
    assert "often" == recorder.profiles[-1].long_term[0].category


def test_a_rollup_holds_a_day_once_the_lateness_is_over():
    """The first event two hours into the next day closes the day before."""
    rows = [
        {"user": "anna", "item": "i", "category": "a/b/c", "time": 0},
        {"user": "ben", "item": "i", "category": "a/b/d", "time": 5},
        {"user": "ben", "item": "i", "time": DAY},
        {"user": "ben", "item": "i", "category": "z", "time": DAY + 2 * DAY // 24},
        {"user": "carl", "item": "i", "category": "z", "time": 7},
    ]
    recorder = Recorder()
    recorder.process(clicks(rows))
    [rollup] = recorder.rollups
    assert {"a/b": 2} == rollup.counts
    assert (0, DAY, 3) == (rollup.start, rollup.end, rollup.position)
    assert 1 == recorder.engine.progress.rollups.late
    assert [{"i": 1, "z": 1}] == [r.counts for r in recorder.engine.drain()]


def test_trends_survive_their_own_state():
    """A resumed Trends judges as one that ran through."""
    rng = random.Random(5)
    rows = [
        {
            "user": f"u{rng.randrange(50)}",
            "item": "i",
            "category": "new" if day > 15 and rng.random() < 0.4 else rng.choice("abc"),
            "time": day * DAY + k * 1000,
        }
        for day in range(25)
        for k in range(400)
    ]
    recorder = Recorder()
    recorder.process(clicks(rows))
    through = Trends(QUICK)
    expected = [through.add(rollup) for rollup in recorder.rollups]
    resumed = Trends(QUICK)
    found = []
    for rollup in recorder.rollups:
        found.append(resumed.add(rollup))
        state = msgspec.msgpack.decode(
            msgspec.msgpack.encode(resumed.state), type=type(resumed.state)
        )
        resumed = Trends(QUICK, state)
    assert expected == found
    alerts = {(alert.subject, alert.kind) for outlook in found for alert in outlook.alerts}
    assert ("users", AlertKind.POPULATION_SHIFT) in alerts
