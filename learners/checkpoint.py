"""Checkpoints: weights, vocabulary and manifest, named by the hash of what they hold.

A checkpoint is a directory `<id>` with model.safetensors, vocabulary.json and manifest.json.
Nothing in it is ever executed on loading. Where it is signed, the signature covers all of it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import msgspec
import safetensors.torch
from torch import Tensor

from learners.catalogue import Catalogue
from learners.gate import Decision
from learners.metrics import Figures
from learners.signing import Signer, is_signed
from pipeline.settings import Model

FORMAT = 1
_ROLLED_BACK = "rolled_back.json"
_DIGITS = 16  # of a hash that make an id
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
    itself without id, key and signature, so that neither can change without the id changing. The
    signature is of the whole hash.
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
    key: str = ""
    """The Ed25519 public key of who signed it, in hexadecimal digits; empty: nobody."""
    signature: str = ""


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


def pack(
    manifest: Manifest, tensors: dict[str, Tensor], names: Names, signer: Signer | None = None
) -> Checkpoint:
    """Make a checkpoint; id, hashes and, with a signer, the signature are filled in here."""
    weights = safetensors.torch.save(
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    )
    vocabulary = msgspec.json.encode(names)
    manifest = msgspec.structs.replace(
        manifest, weights_sha256=_hash(weights), vocabulary_sha256=_hash(vocabulary)
    )
    digest = _digest(manifest, weights)
    manifest = msgspec.structs.replace(manifest, id=digest[:_DIGITS])
    if signer is not None:
        manifest = msgspec.structs.replace(manifest, key=signer.key, signature=signer.sign(digest))
    return Checkpoint(manifest=manifest, weights=weights, vocabulary=vocabulary)


def verify(checkpoint: Checkpoint, where: str, trusted: Collection[str] = ()) -> None:
    """Check all hashes of a checkpoint, and its signature.

    Args:
        checkpoint: as it was read.
        where: it was read from, for the message.
        trusted: public keys (see `signing.trusted`) one of which must have signed it; where there
            are none, it need not be signed, but a signature that is there must be right.

    Raises:
        CheckpointError: something differs from what the manifest says, or it is not signed as it
            should be.
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
    digest = _digest(manifest, checkpoint.weights)
    if digest[:_DIGITS] != manifest.id:
        raise CheckpointError(
            f"{where}: {_MANIFEST} was changed: its content has the id "
            f"{digest[:_DIGITS]}, it says {manifest.id}; fetch the checkpoint again"
        )
    if (manifest.key or manifest.signature) and not is_signed(
        digest, manifest.key, manifest.signature
    ):
        raise CheckpointError(
            f"{where}: its signature is not of the key that it names, {manifest.key}; "
            "fetch the checkpoint again"
        )
    if trusted and manifest.key not in trusted:
        raise CheckpointError(
            f"{where}: it is signed by {manifest.key or 'nobody'}, which is none of the trusted "
            "keys; if it should be trusted, name its public key in signing.trusted"
        )


def write(directory: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint below a directory, in one step that is seen whole or not at all.

    Returns where it lies. The same checkpoint written twice is one; what differs is replaced.
    """
    home = directory / checkpoint.manifest.id
    if home.exists():
        with suppress(CheckpointError):
            if load(home) == checkpoint:
                return home
    temporary = directory / f".{checkpoint.manifest.id}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    _put(temporary / _WEIGHTS, checkpoint.weights)
    _put(temporary / _VOCABULARY, checkpoint.vocabulary)
    _put(temporary / _MANIFEST, msgspec.json.encode(checkpoint.manifest))
    _sync(temporary)
    shutil.rmtree(home, ignore_errors=True)
    temporary.rename(home)
    _sync(directory)
    return home


def load(home: Path, trusted: Collection[str] = ()) -> Checkpoint:
    """Read a checkpoint and check it; see `verify`.

    Raises:
        CheckpointError: it is not there, not readable, damaged, not the one that its directory is
            named by, or not signed as it should be.
    """
    try:
        text = (home / _MANIFEST).read_bytes()
        manifest = msgspec.json.decode(text, type=Manifest)
        checkpoint = Checkpoint(
            manifest=manifest,
            weights=(home / _WEIGHTS).read_bytes(),
            vocabulary=(home / _VOCABULARY).read_bytes(),
        )
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{home} is no readable checkpoint: {error}") from None
    if msgspec.json.encode(manifest) != text:
        raise CheckpointError(
            f"{home}: {_MANIFEST} was changed: it is not as it was written; "
            "fetch the checkpoint again"
        )
    verify(checkpoint, str(home), trusted)
    if manifest.id != home.name:
        raise CheckpointError(
            f"{home} holds checkpoint {manifest.id}, not the one it is named by; fetch that again"
        )
    return checkpoint


def point(directory: Path, champion: str) -> None:
    """Name the champion among the checkpoints of a directory."""
    replace(directory / "champion", champion.encode())


def champion(directory: Path) -> str | None:
    """Return the champion's id as a directory of checkpoints names it."""
    path = directory / "champion"
    return path.read_text() if path.exists() else None


def rolled_back(directory: Path) -> dict[str, str]:
    """Return which checkpoint was put in the place of which."""
    path = directory / _ROLLED_BACK
    return msgspec.json.decode(path.read_bytes(), type=dict[str, str]) if path.exists() else {}


def roll_back(
    directory: Path,
    trusted: Collection[str] = (),
    tell: Callable[[str, str], None] | None = None,
) -> tuple[str, str]:
    """Put the champion's parent in its place, for good; a learner follows before its next window.

    Args:
        directory: of the checkpoints.
        trusted: see `verify`.
        tell: takes what is returned, before anything is changed: where it raises, nothing is, and
            who tries again goes back to the same checkpoint.

    Returns:
        The id of the former champion, and of the one that is champion now.

    Raises:
        CheckpointError: there is no champion, it has no parent, or one of them is damaged.
    """
    if champion(directory) is None:
        raise CheckpointError(f"{directory} names no champion: nothing was promoted yet")
    with alone(directory):
        now, hops = str(champion(directory)), rolled_back(directory)
        parent = load(directory / now, trusted).manifest.parent
        while parent in hops:
            parent = hops[parent]
        if parent is None:
            raise CheckpointError(f"{now} in {directory} is the first champion: it has no parent")
        load(directory / parent, trusted)
        if tell:
            tell(now, parent)
        replace(directory / _ROLLED_BACK, msgspec.json.encode({**hops, now: parent}))
        point(directory, parent)
    return now, parent


def alone(directory: Path) -> AbstractContextManager[None]:
    """Keep others from naming a champion meanwhile, by promotion or rollback."""
    directory.mkdir(parents=True, exist_ok=True)
    return locked(directory / ".lock")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's lock; wait while another process does."""
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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


def _digest(manifest: Manifest, weights: bytes) -> str:
    anonymous = msgspec.structs.replace(manifest, id="", key="", signature="")
    return _hash(weights + msgspec.json.encode(anonymous, order="sorted"))
