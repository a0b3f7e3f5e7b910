import random

import pytest
from clicks import clicks

from pipeline.groups import NAME, group_items
from pipeline.settings import Settings


def two_tastes(seed=6):
    """Sixty people take items of one kind, sixty of the other."""
    rng = random.Random(seed)
    return [
        {"user": f"u{user}", "item": f"{'ab'[user % 2]}{rng.randrange(40)}", "time": user}
        for user in range(120)
        for _ in range(30)
    ]


@pytest.mark.parametrize("seed", range(10))
def test_items_that_the_same_people_take_are_grouped(seed):
    """No group mixes the two kinds, and each is named after one of its own."""
    groups = group_items(clicks(two_tastes(seed)), Settings())
    assert 80 == len(groups)
    assert all(group.removeprefix(NAME)[0] == item[0] for item, group in groups.items())


def test_items_with_a_category_are_left_alone():
    """Where every event bears a category there is nothing to group."""
    rows = [row | {"category": "c"} for row in two_tastes()]
    assert {} == group_items(clicks(rows), Settings())
