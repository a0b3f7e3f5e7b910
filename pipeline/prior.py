"""The population prior: what is known of interests before a user has shown any.

An artefact: made from history (`driftline calibrate`), versioned, named in settings and alerts.
A user's alerts depend on it and never on who else is in the stream.
"""

from __future__ import annotations

import hashlib

import msgspec


class Prior(msgspec.Struct, frozen=True, kw_only=True):
    """A Dirichlet prior over categories.

    `shares` holds the population's share of each category known, which sum to at most 1;
    a category that is not there has the share `unseen`. `concentration` is how many observations
    the prior weighs. `novelty` says whether a category that the user has shown neither before a
    change nor since counts as evidence: only a prior that knows the categories can tell.
    """

    concentration: float
    unseen: float
    novelty: bool
    shares: dict[str, float]
    false_alarms_per_1000: float | None = None
    """As measured on the history that it was made from, visits shuffled; None: not measured."""
    schema: int = 1

    @property
    def version(self) -> str:
        """A short hash of the content."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:12]

    def share(self, category: str) -> float:
        """Return a category's share in the population."""
        return self.shares.get(category, self.unseen)


UNIFORM = Prior(concentration=80.0, unseen=1 / 1000, novelty=False, shares={})
"""What is taken where nothing was calibrated: it finds less than a prior made from history."""
