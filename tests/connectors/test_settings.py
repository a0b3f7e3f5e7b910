from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import connectors
from connectors.cli import Exit, _code_of
from connectors.kafka.live_settings import Worker, decode_live, load_live
from connectors.kafka.settings import Kafka
from pipeline.settings import Duration, Settings, SettingsError, from_toml

TEMPLATE = Path(connectors.__file__).with_name("driftline.toml")


def test_the_template_holds_the_defaults():
    """What `driftline init` writes changes nothing."""
    assert (Settings(), Kafka(), Worker()) == load_live(TEMPLATE, {})


def test_the_template_names_every_setting():
    """No setting is kept from the user."""
    text = TEMPLATE.read_text()
    sections = [Settings(), Kafka(), Worker()]
    names = set()
    while sections:
        section = sections.pop()
        for name in section.__struct_fields__:
            value = getattr(section, name)
            if hasattr(value, "__struct_fields__"):
                sections.append(value)
            names.add(name)
    assert set() == {name for name in names if name not in text}


@given(st.integers(1, 500), st.sampled_from(["ms", "s", "m", "h", "d", "w"]))
def test_a_duration_reads_what_it_writes(number, unit):
    """str and parse are inverse."""
    duration = Duration.parse(f"{number}{unit}")
    assert duration == Duration.parse(str(duration))


def test_one_value_changes_the_version():
    """Alerts made under other settings can be told apart."""
    assert Settings().version == from_toml("").version
    assert Settings().version != from_toml("seed = 8").version


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[windows]\nsize = "3x"', "'3x' is not a duration"),
        ("[windows]\nsize = 3", "write it in quotes"),
        ("[window]\n", "unknown field `window`"),
        ("[drift]\nminimum_events = 'a'", "Expected `int`, got `str` - at `$.drift"),
        ("=", "Invalid"),
        ('[learning]\nstale_detector = "ADWINN"', "'ADWINN' - at `$.learning.stale_detector`"),
        ("[learning.model]\ndim = 10\nheads = 4", "dim is 10 and heads is 4"),
        ("[learning.model]\nheads = 0", "heads is 0"),
    ],
)
def test_a_wrong_setting_is_named_with_the_way_out(text, message):
    """The error says what, where, and how to mend it."""
    with pytest.raises(SettingsError) as error:
        from_toml(text, "mine.toml")
    assert Exit.SETTINGS == _code_of(error.value)
    assert message in str(error.value)
    assert "mine.toml: " in str(error.value)
    assert "driftline init" in str(error.value)


NOTHING = [
    "interests.short_half_life",
    "interests.long_half_life",
    "trends.window",
    "windows.size",
    "learning.half_life",
    "learning.forget_after",
    "kafka.retention",
    "worker.flush_interval",
    "worker.commit_interval",
    "worker.session_timeout",
]
OUTSIDE = [
    ("seed", -1),
    ("interests.category_depth", -1),
    ("interests.default_type_weight", -1),
    ("interests.default_type_weight", "inf"),
    ("interests.type_weights.view", -1),
    ("drift.events_per_false_alarm", 0),
    ("drift.false_discovery_rate", 0),
    ("drift.false_discovery_rate", 1.5),
    ("drift.minimum_events", -1),
    ("drift.minimum_events", 10**18),
    ("trends.false_discovery_rate", "nan"),
    ("trends.warm_up", -1),
    ("trends.minimum_events", 0),
    ("trends.population_share", 0),
    ("trends.population_share", 1.5),
    ("trends.horizons", -1),
    ("trends.coverage", 1.5),
    ("learning.model.dim", 0),
    ("learning.model.blocks", -1),
    ("learning.model.max_length", 0),
    ("learning.model.dropout", 1),
    ("learning.model.item_dropout", 1),
    ("learning.knn.span", 0),
    ("learning.knn.focus", 0),
    ("learning.threads", 0),
    ("learning.batch", 0),
    ("learning.learning_rate", 0),
    ("learning.negatives", 0),
    ("learning.replay", -1),
    ("learning.neighbours", 0),
    ("learning.held_out", 0),
    ("learning.held_out", 1),
    ("learning.gate_tolerance", -0.1),
    ("learning.stale_memory", 0),
    ("kafka.partitions", 0),
    ("kafka.replication", 0),
    ("kafka.replication", -2),
    ("kafka.bootstrap_servers", []),
    ("worker.metrics_port", -1),
    ("worker.metrics_port", 65536),
    ("worker.hot_users", 0),
    ("worker.batch", 0),
    ("worker.flush_records", 0),
]


@pytest.mark.parametrize(("name", "value"), [*((name, '"0s"') for name in NOTHING), *OUTSIDE])
def test_a_value_that_makes_no_sense_is_refused_by_name(name, value):
    """It neither ends in a traceback later nor is taken silently."""
    with pytest.raises(SettingsError, match=r"`\$\.\w+|replication is 0|Expected `\w+`"):
        decode_live(f"{name} = {value}".encode(), "mine.toml")


@pytest.mark.parametrize("text", ["99999999999999w", f"{10**400}w", "365001d"])
def test_a_duration_beyond_all_reckoning_is_refused(text):
    """Times and durations add up within 64 bits."""
    with pytest.raises(SettingsError, match="365000d or less"):
        Duration.parse(text)


def test_bounds_leave_the_version_as_it_was():
    """Alerts made under the defaults bear one version, whatever is refused beside them."""
    assert "0f89550c102e" == Settings().version
