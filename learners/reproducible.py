"""The same numbers every time, as far as torch can."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def reproducible(device: torch.device, threads: int) -> Iterator[None]:
    """Keep to deterministic algorithms and leave torch's own state as it was."""
    before, threads_before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(device.type == "cpu" or before)
    try:
        with torch.random.fork_rng([] if device.type == "cpu" else [device]):
            yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.set_num_threads(threads_before)
