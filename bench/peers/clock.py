"""Counts events from the first one on, and ends the program when enough of them were seen."""

from __future__ import annotations

import os
import sys
import time

BROKERS, TOPIC, EVENTS, SECONDS = (*sys.argv[1:3], int(sys.argv[3]), float(sys.argv[4]))


class Clock:
    """Prints how many events followed the first batch, and in how many seconds."""

    def __init__(self) -> None:
        self._seen = self._first = 0
        self._began = 0.0

    def tick(self, events: int = 1) -> None:
        """Note that so many more events are dealt with."""
        now = time.perf_counter()
        self._seen += events
        if not self._began:
            self._began, self._first = now, self._seen
        elif self._seen >= EVENTS or now - self._began > SECONDS:
            print(self._seen - self._first, now - self._began, flush=True)
            os._exit(0)  # frameworks take their time to stop, which is not measured
