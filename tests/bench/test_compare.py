import json
import subprocess
import sys

import pytest

from bench.compare import change, direction, figures


def keep(directory, **results):
    directory.mkdir()
    for name, content in results.items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    return directory


def compare(*directories):
    command = [sys.executable, "-m", "bench.compare", *map(str, directories)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_repeats_become_their_median(tmp_path):
    """Nested figures get a name of their own, and one noisy run does not decide."""
    kept = keep(tmp_path / "a", interest={"retail": {"events_per_second": [1, 9, 8]}, "goal": 5})
    assert {"interest.retail.events_per_second": 8, "interest.goal": 5} == figures(kept)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("live.driftline.events_per_second", 1),
        ("live.latency.p99_ms", -1),
        ("interest.retail.peak_gib", -1),
        ("live.goal_ratio", 0),
        ("training.tokens", 0),
    ],
)
def test_a_name_says_which_way_is_better(name, expected):
    """Rates should rise, times and sizes fall, and a goal does neither."""
    assert expected == direction(name)


def test_worse_is_below_zero_either_way():
    """A rate that fell and a time that rose are both worse."""
    assert -0.5 == change("a.events_per_second", 10, 5)
    assert -0.5 == change("a.p99_ms", 10, 15)


@pytest.mark.parametrize(("after", "code"), [(95, 0), (120, 0), (80, 1)])
def test_the_exit_code_tells_whether_something_got_slower(tmp_path, after, code):
    """Within a tenth is noise."""
    earlier = keep(tmp_path / "a", live={"events_per_second": 100})
    later = keep(tmp_path / "b", live={"events_per_second": after})
    assert code == compare(earlier, later).returncode
