import random

from clicks import clicks, shopper

from pipeline.engine import Engine
from pipeline.events import AlertState
from pipeline.settings import from_toml

QUICK = from_toml("[drift]\nevents_per_false_alarm = 1000")
CATS, DOGS = ["cats", "cats/toys", "cats/food"], ["dogs", "dogs/toys", "dogs/food"]


def phases(*likes, length=80):
    """A user who likes one set of categories after another."""
    rng = random.Random(2)
    return [rng.choice(liked) for liked in likes for _ in range(length)]


def alerts(categories):
    return Engine(QUICK).process(clicks(shopper("anna", categories))).alerts


def test_a_return_resolves_the_alert():
    """Cats, dogs, cats again: one alert, and its resolution, which bears the alert's id."""
    raised, resolved = alerts(phases(CATS, DOGS, CATS))
    assert (AlertState.RAISED, "") == (raised.state, raised.of)
    assert (AlertState.RESOLVED, raised.id) == (resolved.state, resolved.of)
    assert {i.category for i in resolved.after} <= set(CATS)


def test_a_change_that_goes_on_is_an_update():
    """Birds soon after dogs are the same move; much later they are another."""
    birds = ["birds", "birds/toys", "birds/food"]
    soon = alerts(phases(CATS) + phases(DOGS, length=40) + phases(birds))
    assert [AlertState.RAISED, AlertState.UPDATED] == [alert.state for alert in soon]
    assert soon[0].id == soon[1].of
    late = alerts(phases(CATS) + phases(DOGS, length=140) + phases(birds))
    assert [AlertState.RAISED, AlertState.RAISED] == [alert.state for alert in late]


def test_an_alert_says_how_strong_how_sure_and_what_clears_it():
    """A whole change moves all; about as many observations as it says take it back."""
    raised, resolved = alerts(phases(CATS, DOGS, CATS))
    assert 1.0 == raised.strength
    assert raised.by_chance >= QUICK.drift.events_per_false_alarm
    taken = (resolved.time - 160 * 3_600_000) // 3_600_000
    assert raised.clears_after / 2 <= taken <= 2 * raised.clears_after


def test_other_items_of_the_same_categories_are_a_change():
    """Nothing moved between categories, and an alert is raised all the same."""
    rows = shopper("anna", phases(CATS, CATS, length=100))
    for n, row in enumerate(rows[100:]):
        row["item"] = f"other-{row['category']}-{n % 7}"
    [alert] = Engine(QUICK).process(clicks(rows)).alerts
    assert alert.source.position >= 100
    assert alert.strength < 0.3
    assert all(told.item_id.startswith("other") for told in alert.evidence)


def test_one_odd_visit_is_no_change():
    """A single visit of forty new items in new categories raises nothing."""
    rows = shopper("anna", phases(CATS, length=120))
    last = rows[-1]["time"]
    odd = [
        {"user": "anna", "item": f"odd{n}", "category": f"odd{n}", "time": last + n, "session": "x"}
        for n in range(1, 41)
    ]
    after = shopper("anna", phases(CATS, length=60), start=last + 86_400_000)
    settings = from_toml("[drift]\nevents_per_false_alarm = 100000000")
    assert [] == Engine(settings).process(clicks(rows + odd + after)).alerts
