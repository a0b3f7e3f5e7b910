"""docs/topics.md says what stands on each topic: every one is there, and every example is real."""

import json
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from connectors.kafka import erasures
from connectors.kafka.checkpoints import Champion, Learned
from connectors.kafka.settings import Kafka
from connectors.kafka.topics import topics
from connectors.wire import (
    decode_alert,
    decode_clicks,
    decode_forecast,
    decode_profile,
    decode_rollup,
    encode_alert,
    encode_forecast,
    encode_rollup,
)
from pipeline.settings import Source

PAGE = (Path(__file__).parents[2] / "docs" / "topics.md").read_text()
SECTIONS = dict(zip(*[iter(re.split(r"^## (.*)$", PAGE, flags=re.MULTILINE)[1:])] * 2, strict=True))
OURS = {
    "interest-drift": [(decode_alert, encode_alert)],
    "interest-profiles": [(decode_profile, msgspec.json.encode)],
    "category-forecasts": [(decode_forecast, encode_forecast)],
    "category-rollups": [(decode_rollup, encode_rollup)],
    "erasures": [(erasures.decode, msgspec.json.encode)] * 2,
    "model-checkpoints": [
        (lambda data, kind=kind: msgspec.json.decode(data, type=kind), msgspec.json.encode)
        for kind in (Learned, Champion)
    ],
}


def examples(topic):
    return re.findall(r"```json\n(.*?)\n```", SECTIONS[topic], flags=re.DOTALL)


def test_every_topic_that_is_made_has_a_section():
    """What `driftline topics create` makes is on the page; only dead and late letters share."""
    made = {topic.name for topic in topics(Kafka(rekey=True))}
    told = {name for title in SECTIONS for name in title.split(" and ")}
    assert made == told


@pytest.mark.parametrize("topic", OURS)
def test_examples_of_ours_have_every_field_and_no_other(topic):
    """An example comes out of the project's own decoder and encoder as it stands."""
    for example, (decode, encode) in zip(examples(topic), OURS[topic], strict=True):
        assert json.loads(example) == json.loads(encode(decode(example.encode())))


def test_example_clicks_are_clicks():
    """Both layouts that the page shows are read, to the same click but for its event id."""
    records = [example.encode() for example in examples("clicks")]
    clicks, rejects = decode_clicks(records, np.arange(len(records)), "clicks/0", Source())
    assert (2, []) == (len(clicks), rejects)
    assert [["900"], ["1095275"]] == [clicks.user.values, clicks.item.values]
    assert 1 == np.count_nonzero(clicks.event_id)
    assert 1 == len(set(clicks.time.tolist()))
