"""The learner's complete state as one file: safetensors, with what is text as JSON inside.

The state of the detector, of random generators and of the optimiser is not in it, because it
does not outlive a window.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from learners.checkpoint import replace
from learners.counts import Counts
from learners.sequences import Sequences
from learners.state_file import FILE, StateError, seal, unseal

__all__ = ["State", "StateError", "read", "write"]

_TEXT = "json"


class State:
    """Named tensors and named texts, put in and taken out a component at a time."""

    def __init__(
        self, tensors: dict[str, Tensor] | None = None, texts: dict[str, Any] | None = None
    ) -> None:
        self.tensors = tensors or {}
        self.texts = texts or {}

    def put(self, name: str, array: np.ndarray[Any, Any]) -> None:
        """Put in an array."""
        self.tensors[name] = torch.from_numpy(np.ascontiguousarray(array))

    def array(self, name: str) -> Any:
        """Take out an array."""
        return self.tensors[name].numpy().copy()

    def put_group(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Put in tensors under a common name."""
        for key, value in tensors.items():
            self.tensors[f"{name}/{key}"] = value.detach().cpu().contiguous()

    def group(self, name: str, device: torch.device) -> dict[str, Tensor]:
        """Take out the tensors under a common name."""
        start = f"{name}/"
        return {
            key.removeprefix(start): value.to(device, copy=True)
            for key, value in self.tensors.items()
            if key.startswith(start)
        }

    def put_counts(self, name: str, counts: Counts) -> None:
        """Put in counts that are settled."""
        self.put(f"{name}.keys", counts.settled.keys)
        self.put(f"{name}.values", counts.settled.values)

    def counts(self, name: str, width: int) -> Counts:
        """Take out counts."""
        counts = Counts(width)
        counts.settled.keys = self.array(f"{name}.keys")
        counts.settled.values = self.array(f"{name}.values")
        return counts

    def put_sequences(self, name: str, sequences: Sequences) -> None:
        """Put in sequences."""
        self.texts[name] = sequences.owners
        for column in ("starts", "items", "types", "times", "fresh"):
            self.put(f"{name}.{column}", getattr(sequences, column))

    def sequences(self, name: str) -> Sequences:
        """Take out sequences."""
        return Sequences(
            owners=self.texts[name],
            starts=self.array(f"{name}.starts"),
            items=self.array(f"{name}.items"),
            types=self.array(f"{name}.types"),
            times=self.array(f"{name}.times"),
            fresh=self.array(f"{name}.fresh"),
        )


def write(directory: Path, state: State) -> None:
    """Write a state, in one step that is seen whole or not at all."""
    text = msgspec.json.encode(state.texts, order="sorted")
    tensors = {**state.tensors, _TEXT: torch.frombuffer(bytearray(text), dtype=torch.uint8)}
    replace(directory / FILE, seal(safetensors.torch.save(tensors)))


def read(directory: Path) -> State:
    """Read a state and check its hash.

    Raises:
        StateError: it is not there or damaged.
    """
    tensors = safetensors.torch.load(unseal(directory))
    text = bytes(tensors.pop(_TEXT).numpy())
    return State(tensors, msgspec.json.decode(text))
