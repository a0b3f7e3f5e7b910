"""Profiles said plainly, one interest after the other: what columns and bytes are held against."""

from pipeline.events import Interest, InterestProfile


def profiles_of(snapshots, names):
    """Return what snapshots tell, in words."""
    return [
        InterestProfile(
            user_id=user,
            time=int(taken["time"]),
            events=int(taken["events"]),
            short_term=_interests(taken["short"], names),
            long_term=_interests(taken["long"], names),
            recent_items=[names[int(item)] for item in taken["recent_item"][: taken["events"]]],
        )
        for user, taken in zip(snapshots.users, snapshots.taken, strict=True)
    ]


def _interests(heaviest, names):
    return [
        Interest(names[int(category)], round(float(share), 4))
        for category, share in heaviest
        if share > 0
    ]
