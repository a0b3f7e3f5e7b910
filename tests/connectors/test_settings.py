from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import connectors
from connectors.cli import Exit, _code_of
from connectors.kafka.live_settings import Worker, load_live
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
