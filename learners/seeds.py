"""Seeds that settings, window and purpose decide alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from learners.sequences import Ints


@dataclass(frozen=True, slots=True)
class Seeds:
    """The seeds of one window."""

    seed: int
    """Of the settings."""
    start: int
    """Of the window, in milliseconds."""

    def of(self, purpose: str) -> int:
        """Return the seed for a purpose."""
        text = f"{self.seed}/{self.start}/{purpose}".encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:7])

    def random(self, purpose: str) -> np.random.Generator:
        """Return a generator for a purpose."""
        return np.random.default_rng(self.of(purpose))

    def draw(self, rows: Ints, most: int, purpose: str) -> Ints:
        """Return at most so many of the rows, in random order; 0 takes all."""
        drawn = self.random(purpose).permutation(rows)
        return drawn[:most] if most > 0 else drawn
