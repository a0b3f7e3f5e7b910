"""What goes wrong, and when: drawn from a seed before anything runs, so that it can be repeated."""

from __future__ import annotations

import random
from enum import StrEnum

import msgspec


class Kind(StrEnum):
    """What is done to a process, or asked of all."""

    WORKER_KILLED = "worker killed"
    WORKER_WIPED = "worker killed, its disk wiped"
    WORKER_STOPPED = "worker stopped"
    WORKER_FROZEN = "worker frozen beyond its session"
    WORKERS_ROLLED = "workers restarted one by one"
    LEARNER_KILLED = "learner killed"
    BROKER_KILLED = "broker killed"
    BROKER_STOPPED = "broker stopped"
    BROKER_FROZEN = "broker frozen"
    USER_ERASED = "user to be erased"


KILLS = {Kind.WORKER_KILLED, Kind.WORKER_WIPED, Kind.LEARNER_KILLED, Kind.BROKER_KILLED}
"""What counts as a kill: SIGKILL."""

_WEIGHTS = {
    Kind.WORKER_KILLED: 10,
    Kind.WORKER_WIPED: 2,
    Kind.WORKER_STOPPED: 2,
    Kind.WORKER_FROZEN: 2,
    Kind.WORKERS_ROLLED: 1,
    Kind.LEARNER_KILLED: 3,
    Kind.BROKER_KILLED: 4,
    Kind.BROKER_STOPPED: 1,
    Kind.BROKER_FROZEN: 1,
    Kind.USER_ERASED: 3,
}


class Step(msgspec.Struct, frozen=True):
    """A pause, then something that goes wrong."""

    pause: float
    """Seconds."""
    kind: Kind
    target: int
    """Which of the processes of that kind, or of the users."""


def draw(
    seed: int, kills: int, *, brokers: int, workers: int, users: int, learner: bool
) -> list[Step]:
    """Return steps with so many kills among them.

    >>> [step.kind.value for step in draw(3, 2, brokers=3, workers=3, users=9, learner=True)]
    ['worker killed', 'user to be erased', 'learner killed']
    """
    chance = random.Random(seed)  # noqa: S311  no secret
    possible = [
        kind
        for kind in _WEIGHTS
        if (learner or kind is not Kind.LEARNER_KILLED)
        and (brokers > 1 or not kind.value.startswith("broker"))
    ]
    steps: list[Step] = []
    while sum(step.kind in KILLS for step in steps) < kills:
        [kind] = chance.choices(possible, [_WEIGHTS[kind] for kind in possible])
        targets = {"worker": workers, "learner": 1, "broker": brokers, "user": users}
        step = Step(
            pause=round(chance.expovariate(1 / 2.0), 2),
            kind=kind,
            target=chance.randrange(targets.get(kind.value.split()[0], 1)),
        )
        steps.append(step)
    return steps
