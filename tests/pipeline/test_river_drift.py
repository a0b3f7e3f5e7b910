import random

import numpy as np
import pytest
from clicks import clicks, shopper

from pipeline.prior import UNIFORM
from pipeline.river_drift import RiverDrift, detector, falls
from pipeline.settings import SettingsError, from_toml

DETECTORS = (
    ("river:adwin", {}),
    ("river:kswin", {"alpha": 1e-8}),
    ("river:pagehinkley", {}),
)


@pytest.mark.parametrize(("name", "options"), DETECTORS)
def test_a_fall_is_found_and_a_rise_is_not(name, options):
    """Of a signal that falls and one that rises, each detector tells the first."""
    noise = np.random.default_rng(5).normal(size=400)
    step = np.repeat([0.0, 6.0], 200)
    fell = falls(detector(name, **options), (noise - step).tolist())
    assert fell
    assert all(200 <= place < 300 for place in fell)
    assert not [
        place for place in falls(detector(name, **options), (noise + step).tolist()) if place >= 200
    ]


def drifting():
    rng = random.Random(1)
    before = [rng.choice(["cats", "cats/toys"]) for _ in range(150)]
    after = [rng.choice(["dogs", "dogs/toys", "dogs/food"]) for _ in range(100)]
    return clicks(shopper("anna", before + after))


def test_an_alert_of_adwin_says_from_what_to_what():
    """Cats, then dogs: found after the change, with the events that came last."""
    settings = from_toml('[drift]\ndetector = "river:adwin"')
    [alert] = RiverDrift(settings, UNIFORM).process(drifting())
    assert alert.source.position >= 150
    assert "cats" in alert.before[0].category
    assert "dogs" in alert.after[0].category


def test_cuts_do_not_matter():
    """The same alerts in one batch and in single events."""
    settings = from_toml('[drift]\ndetector = "river:pagehinkley"')
    batch = drifting()
    single = RiverDrift(settings, UNIFORM)
    cut = [a for i in range(len(batch)) for a in single.process(batch.take(slice(i, i + 1)))]
    assert RiverDrift(settings, UNIFORM).process(batch) == cut


def test_an_unknown_detector_is_refused():
    """The error names those that there are."""
    with pytest.raises(SettingsError, match="river:adwin"):
        detector("river:magic")
