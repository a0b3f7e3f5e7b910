"""Profiles put into words by column say what they say one by one."""

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from profiles import profiles_of

from connectors.profiles import PROFILES, encode_profiles, profile_table
from connectors.wire import decode_profile
from pipeline.events import Interest, InterestProfile
from pipeline.interest import RECENT
from pipeline.snapshots import SNAPSHOT, TOP, Snapshots
from pipeline.symbols import Names, symbol

texts = st.text(max_size=6)
shares = st.floats(0, 1).map(lambda share: share if share > 1e-9 else 0.0)
interests = st.lists(st.tuples(texts, shares), max_size=TOP)
profiles = st.fixed_dictionaries(
    {
        "user": texts,
        "time": st.integers(-(2**53), 2**53),
        "events": st.integers(0, 2**62),
        "short": interests,
        "long": interests,
        "items": st.lists(texts, min_size=RECENT, max_size=RECENT),
    }
)


def snapshots_of(told):
    """Return snapshots that tell what was drawn, and the names in them."""
    names = Names(lambda _: None)
    taken = np.zeros(len(told), SNAPSHOT)
    for row, profile in enumerate(told):
        taken[row]["time"], taken[row]["events"] = profile["time"], profile["events"]
        for place, text in enumerate(profile["items"]):
            taken[row]["recent_item"][place] = named(text, names)
        for field in ("short", "long"):
            for place, (text, share) in enumerate(profile[field]):
                taken[row][field][place] = named(text, names), share
    return Snapshots([profile["user"] for profile in told], taken), names


def named(text, names):
    names[symbol(text)] = text
    return symbol(text)


@given(st.lists(profiles, max_size=5))
def test_bytes_are_those_of_profiles_said_plainly(told):
    """Whatever texts, times and weights there are; and they are read back as they were."""
    snapshots, names = snapshots_of(told)
    plain = profiles_of(snapshots, names)
    encoded = encode_profiles(snapshots, names)
    assert [msgspec.json.encode(profile) for profile in plain] == encoded
    assert plain == [decode_profile(data) for data in encoded]


@given(st.lists(profiles, max_size=5))
def test_rows_are_those_of_profiles_said_plainly(told):
    """A table has the columns of profiles.parquet."""
    snapshots, names = snapshots_of(told)
    table = profile_table(snapshots, names)
    assert PROFILES == table.schema
    assert [
        (told.user_id, told.events, told.time, *map(msgspec.to_builtins, lists(told)))
        for told in profiles_of(snapshots, names)
    ] == list(
        zip(
            table["user_id"].to_pylist(),
            table["events"].to_pylist(),
            table["last_event"].cast("int64").to_pylist(),
            table["short_term"].to_pylist(),
            table["long_term"].to_pylist(),
            table["recent_items"].to_pylist(),
            strict=True,
        )
    )


def lists(profile):
    return profile.short_term, profile.long_term, profile.recent_items


def test_profile_bytes_stay_as_they_are():
    """The wire form of a profile, version 1, byte for byte."""
    told = {
        "user": "anna",
        "time": 1_714_564_800_000,
        "events": 3,
        "short": [("home/light", 0.91237), ('a "b"\n', 0.08763)],
        "long": [("home/light", 1.0)],
        "items": ["lamp", "bulb", "lamp", *["older"] * (RECENT - 3)],
    }
    snapshots, names = snapshots_of([told])
    data = (
        b'{"user_id":"anna","time":1714564800000,"events":3,'
        b'"short_term":[{"category":"home/light","weight":0.9124},'
        b'{"category":"a \\"b\\"\\n","weight":0.0876}],'
        b'"long_term":[{"category":"home/light","weight":1.0}],'
        b'"recent_items":["lamp","bulb","lamp"],"schema":1}'
    )
    assert [data] == encode_profiles(snapshots, names)
    assert InterestProfile(
        user_id="anna",
        time=1_714_564_800_000,
        events=3,
        short_term=[Interest("home/light", 0.9124), Interest('a "b"\n', 0.0876)],
        long_term=[Interest("home/light", 1.0)],
        recent_items=["lamp", "bulb", "lamp"],
    ) == decode_profile(data)
