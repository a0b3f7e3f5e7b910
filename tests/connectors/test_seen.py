"""Since when a learner has known whom."""

from clicks import clicks

from connectors.seen import Seen
from pipeline.windows import Window


def window(end, users):
    rows = [{"user": user, "item": "i", "time": 5} for user in users]
    return Window(start=0, end=end, clicks=clicks(rows), sources={})


def test_the_first_window_of_each_user_is_remembered(tmp_path):
    """Over a restart, whatever comes later; and no more once the user is erased."""
    users = [f"user-{number}" for number in range(50)]
    seen = Seen()
    seen.add(window(10, users[:30]))
    seen.add(window(20, []))
    seen.add(window(30, users))
    seen.save(tmp_path)
    seen = Seen.load(tmp_path)
    assert [10] * 30 + [30] * 20 == [seen.first(user) for user in users]
    seen.forget(users[0])
    assert [None, 10, None] == [seen.first(user) for user in (users[0], users[1], "nobody")]
    assert Seen.load(tmp_path / "none").first(users[1]) is None
