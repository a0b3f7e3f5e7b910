"""Checkpoints: weights, vocabulary and manifest, named by the hash of what they hold.

A checkpoint is a directory `<id>` with model.safetensors, vocabulary.json and manifest.json.
Nothing in it is ever executed on loading.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import msgspec
import safetensors.torch
from torch import Tensor

from learners.gate import Decision
from learners.metrics import Figures
from learners.sequences import Catalogue
from pipeline.settings import Model

FORMAT = 1
_MANIFEST, _WEIGHTS, _VOCABULARY = "manifest.json", "model.safetensors", "vocabulary.json"


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or not what it says it is."""


class Names(msgspec.Struct, frozen=True, kw_only=True):
    """What the rows of a model's embeddings stand for."""

    items: list[str]
    categories: list[str]
    types: list[str]

    @classmethod
    def of(cls, catalogue: Catalogue) -> Names:
        """Take the names of a catalogue."""
        return cls(
            items=list(catalogue.items.names),
            categories=list(catalogue.categories.names),
            types=list(catalogue.types.names),
        )


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint is, where it comes from, and what was decided about it.

    `id` is the first 16 hexadecimal digits of the SHA-256 of the weights and of the manifest
    itself without its id, so that neither can change without the id changing.
    """

    id: str = ""
    parent: str | None
    window_start: int
    window_end: int
    sources: dict[str, int]
    """The position of the last event of each source that the model has seen."""
    settings: str
    model: Model
    items: int
    weights_sha256: str = ""
    vocabulary_sha256: str = ""
    metrics: Figures
    """Of the challenger, on the newest slice of the window."""
    champion_metrics: Figures | None
    """Of the champion, on the same slice."""
    decision: Decision
    reason: str
    format: int = FORMAT


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint in memory."""

    manifest: Manifest
    weights: bytes
    vocabulary: bytes

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights by name."""
        return safetensors.torch.load(self.weights)

    def names(self) -> Names:
        """Return what the rows of the embeddings stand for."""
        return msgspec.json.decode(self.vocabulary, type=Names)


def pack(manifest: Manifest, tensors: dict[str, Tensor], names: Names) -> Checkpoint:
    """Make a checkpoint; id and hashes of the manifest are filled in here."""
    weights = safetensors.torch.save(
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    )
    vocabulary = msgspec.json.encode(names)
    manifest = msgspec.structs.replace(
        manifest, weights_sha256=_hash(weights), vocabulary_sha256=_hash(vocabulary)
    )
    manifest = msgspec.structs.replace(manifest, id=_id(manifest, weights))
    return Checkpoint(manifest=manifest, weights=weights, vocabulary=vocabulary)


def verify(checkpoint: Checkpoint, where: str) -> None:
    """Check all hashes of a checkpoint.

    Raises:
        CheckpointError: something differs from what the manifest says.
    """
    manifest = checkpoint.manifest
    for name, content, told in (
        (_WEIGHTS, checkpoint.weights, manifest.weights_sha256),
        (_VOCABULARY, checkpoint.vocabulary, manifest.vocabulary_sha256),
    ):
        if _hash(content) != told:
            raise CheckpointError(
                f"{where}: {name} has the hash {_hash(content)}, its manifest says {told}; "
                "the file is damaged: fetch the checkpoint again"
            )
    if _id(manifest, checkpoint.weights) != manifest.id:
        raise CheckpointError(
            f"{where}: {_MANIFEST} was changed: its content has the id "
            f"{_id(manifest, checkpoint.weights)}, it says {manifest.id}; "
            "fetch the checkpoint again"
        )


def write(directory: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint below a directory, in one step that is seen whole or not at all.

    Returns where it lies. The same checkpoint written twice is one.
    """
    home = directory / checkpoint.manifest.id
    if home.exists():
        return home
    temporary = directory / f".{checkpoint.manifest.id}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    _put(temporary / _WEIGHTS, checkpoint.weights)
    _put(temporary / _VOCABULARY, checkpoint.vocabulary)
    _put(temporary / _MANIFEST, msgspec.json.encode(checkpoint.manifest))
    _sync(temporary)
    temporary.rename(home)
    _sync(directory)
    return home


def load(home: Path) -> Checkpoint:
    """Read a checkpoint and check it.

    Raises:
        CheckpointError: it is not there, not readable, or damaged.
    """
    try:
        manifest = msgspec.json.decode((home / _MANIFEST).read_bytes(), type=Manifest)
        checkpoint = Checkpoint(
            manifest=manifest,
            weights=(home / _WEIGHTS).read_bytes(),
            vocabulary=(home / _VOCABULARY).read_bytes(),
        )
    except (OSError, msgspec.DecodeError) as error:
        raise CheckpointError(f"{home} is no readable checkpoint: {error}") from None
    verify(checkpoint, str(home))
    return checkpoint


def point(directory: Path, champion: str) -> None:
    """Name the champion among the checkpoints of a directory."""
    replace(directory / "champion", champion.encode())


def replace(path: Path, content: bytes) -> None:
    """Write a file durably, in one step that is seen whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    _put(temporary, content)
    temporary.replace(path)
    _sync(path.parent)


def _put(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _id(manifest: Manifest, weights: bytes) -> str:
    anonymous = msgspec.structs.replace(manifest, id="")
    return _hash(weights + msgspec.json.encode(anonymous, order="sorted"))[:16]
