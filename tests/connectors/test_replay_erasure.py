"""Whose lines go when a user is erased from a replay."""

import json
import random

import pytest

from connectors.replay import Request, replay
from connectors.replay_erasure import erase_replay, replay_traces
from connectors.terminal import show_user
from pipeline.settings import Settings, from_toml

WEEK = 604_800


def replayed(directory, name, lines, settings):
    path, out = directory / name, directory / "out"
    path.write_text("\n".join(lines) + "\n")
    replay(Request(inputs=[str(path)], settings=settings, learning=False), out, command="test")
    return out


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def sale(directory, share):
    """Replay users who all turn to the item 22423, as which a user is named, too."""
    rng = random.Random(2)
    rows = ["user_id,item_id,timestamp"]
    for week in range(14):
        for i in range(1500):
            user = rng.choice([22423, "users", *range(100, 160)])
            wish = 0.4 if user in range(100, 160) else 1.0
            bought = week >= 10 and rng.random() < wish
            item = 22423 if bought else rng.randint(20000, 20030)
            rows.append(f"{user},{item},{1_577_836_800 + week * WEEK + i * 300}")
    settings = from_toml(
        f"[drift]\nevents_per_false_alarm = 100\n[trends]\npopulation_share = {share}"
    )
    return replayed(directory, "clicks.csv", rows, settings)


@pytest.mark.parametrize(("user", "share"), [("users", 0.1), ("22423", 1.0)])
def test_an_alert_that_bears_a_users_name_is_not_the_users(tmp_path, capsys, user, share):
    """A category's alert, and the population's, is neither shown nor erased with a user."""
    out = sale(tmp_path, share)
    alerts = lines_of(out / "alerts.jsonl")
    own = [a for a in alerts if a["kind"].startswith("user_") and a["subject"] == user]
    others = [alert for alert in alerts if alert not in own]
    assert user in {alert["subject"] for alert in others}
    assert own
    assert show_user(user, out)
    assert f"drift history: {len(own)} alerts" in capsys.readouterr().out
    erase_replay(out, user)
    assert others == lines_of(out / "alerts.jsonl")


def test_rejects_of_the_user_go_and_those_of_others_stay(tmp_path):
    """By whole values, as the record writes them."""
    rows = [{"user_id": "bob", "item_id": "i", "timestamp": 1_700_000_000 + i} for i in range(5)]
    rows += [
        {"user_id": "éva", "item_id": "i", "timestamp": "x"},
        {"session_id": "s77", "item_id": "i", "timestamp": "x"},
        {"user_id": "17", "item_id": "i", "timestamp": "x"},
    ]
    out = replayed(tmp_path, "clicks.jsonl", map(json.dumps, rows), Settings())
    for user, left in (("7", 3), ("éva", 2), ("session:s77", 1)):
        erase_replay(out, user)
        assert left == len(lines_of(out / "rejects.jsonl"))
        assert 0 == sum(count for _, count in replay_traces(out, user))
    assert ['{"user_id": "17", "item_id": "i", "timestamp": "x"}'] == [
        line["record"] for line in lines_of(out / "rejects.jsonl")
    ]
