"""What was learnt, over the bus: manifests with reports, weights in chunks, the champion.

On the topic `model-checkpoints`, which is compacted:

| key | value |
|---|---|
| `next-item/<id>` | `Learned`: the manifest of a checkpoint, and the report of its window |
| `next-item/window-<end>` | `Learned`: the report of a window that gave no checkpoint |
| `<id>/chunk/<n>` | a piece of the checkpoint's weights and vocabulary, one after the other |
| `next-item/champion` | `Champion`: which checkpoint to serve |

All chunks are acknowledged before the manifest is sent, and the manifest before the champion, so
that whoever sees one finds what it names. The ids are hashes of the content: a window that is
learnt twice is published under the same keys.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import fsspec  # type: ignore[import-untyped]  # ships no types
import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from msgspec.structs import replace

from connectors.kafka.cloudevents import cloud_event
from connectors.kafka.consumer import Consumer
from connectors.kafka.messages import Message, alert_message
from connectors.kafka.metadata import partitions
from connectors.kafka.publisher import Publisher
from connectors.kafka.security import client_config
from connectors.kafka.settings import BusError, Kafka
from connectors.learning import MODEL_NAME, Lesson
from connectors.wire import WireError, decode_versioned
from learners import checkpoint
from learners.checkpoint import Checkpoint, CheckpointError, Manifest
from learners.report import Report
from pipeline.events import SCHEMA_VERSION

TOPIC = "model-checkpoints"

CHUNK = 1 << 19
"""Bytes of a chunk at most: brokers take records of 1 MiB unless told otherwise."""

PATIENCE = 30
"""Seconds without a record after which reading a topic to its end is given up."""

_SOURCE = "learner"
_BINARY = "application/octet-stream"
_CHAMPION = f"{MODEL_NAME}/champion".encode()


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """Where weights and vocabulary are, and what they must be.

    `chunks` are SHA-256 hashes, in order, of the pieces on this topic; where there are none,
    `address` is an fsspec address of a file that holds the same bytes.
    """

    weights_bytes: int
    vocabulary_bytes: int
    chunks: list[str] = []
    address: str = ""


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """What a window gave rise to."""

    model: str = MODEL_NAME
    report: Report
    manifest: Manifest | None
    content: Content | None
    schema: int = SCHEMA_VERSION


class Champion(msgspec.Struct, frozen=True, kw_only=True):
    """Which checkpoint of a model to serve."""

    model: str = MODEL_NAME
    id: str
    instead_of: str | None = None
    """The champion that was rolled back."""
    schema: int = SCHEMA_VERSION


_Ours = TypeVar("_Ours", Learned, Champion)


def topic(kafka: Kafka) -> str:
    """Return the full name of the topic that checkpoints travel on."""
    return kafka.topic_prefix + TOPIC


async def publish(
    publisher: Publisher,
    lesson: Lesson,
    packed: Checkpoint | None,
    *,
    end: int,
    checkpoints: Path,
    weights: str = "",
) -> None:
    """Send what a window gave rise to; return when the brokers have all of it.

    1. The weights: chunks on the topic, or a file below the address `weights`.
    2. Alerts and the manifest with the report.
    3. If the checkpoint was promoted, and not rolled back meanwhile, the champion.

    Args:
        publisher: sends it.
        lesson: what was learnt.
        packed: the checkpoint, if there is one.
        end: of the window, in milliseconds.
        checkpoints: the directory that names the champion; nobody can roll back while it is sent.
        weights: an fsspec address; empty sends chunks.

    Raises:
        BusError: a topic is not there, or the brokers did not take a message in time.
        KafkaError: no broker answers.
        OSError: the address cannot be written.
    """
    content = None
    if packed is not None:
        content = _content(packed, weights)
        if content.chunks:
            await publisher.publish(_chunk_messages(packed, end))
    learned = Learned(
        report=lesson.report, manifest=packed.manifest if packed else None, content=content
    )
    messages = [*map(alert_message, lesson.alerts), _learned_message(learned, end)]
    await publisher.publish(messages)
    if packed is not None and packed.manifest.decision == "promoted":
        number = packed.manifest.id
        with checkpoint.alone(checkpoints):
            gone = number in checkpoint.rolled_back(checkpoints)  # written before the champion is
            if checkpoint.champion(checkpoints) == number and not gone:
                await publisher.publish([_champion_message(packed.manifest)])


async def published(kafka: Kafka) -> tuple[list[Learned], str | None]:
    """Read what was learnt so far, in the order of the topic, and the champion's id.

    Raises:
        BusError: no broker answers, the topic is not there, or it cannot be read to its end.
        CheckpointError: a message is not one of ours, or of a newer release.
    """
    start = f"{MODEL_NAME}/".encode()
    found = await _read(kafka, lambda key: key.startswith(start))
    champion = found.pop(_CHAMPION, None)
    named = decode(champion, Champion).id if champion else None
    return [decode(value, Learned) for value in found.values()], named


def decode(data: bytes, kind: type[_Ours]) -> _Ours:
    """Read what the topic bears beside chunks.

    Raises:
        CheckpointError: the bytes are no such message, or one of a newer release.
    """
    try:
        return decode_versioned(data, kind)
    except WireError as error:
        raise CheckpointError(str(error)) from None


def tell_rollback(kafka: Kafka, former: str, now: str) -> None:
    """Tell the topic that a checkpoint is champion again in place of another.

    Raises:
        BusError: no broker answers, the topic is not there, or the brokers did not take the
            message in time.
    """
    headers = cloud_event("champion", now, int(time.time() * 1000), source=_SOURCE)
    value = msgspec.json.encode(Champion(id=now, instead_of=former))

    async def send() -> None:
        publisher = Publisher(kafka)
        try:
            await publisher.publish([Message(TOPIC, _CHAMPION, value, headers)])
        finally:
            await publisher.close()

    asyncio.run(send())


async def pull(
    kafka: Kafka, to: Path, wanted: str | None = None, trusted: Collection[str] = ()
) -> tuple[Path, bool]:
    """Fetch a checkpoint from the bus, check every hash, and write it below a directory.

    Args:
        kafka: where from.
        to: the directory; a champion is also named in its file `champion`.
        wanted: the checkpoint's id; None takes the champion.
        trusted: see `checkpoint.verify`.

    Returns:
        Where the checkpoint lies, and whether it is the champion.

    Raises:
        BusError: no broker answers, the topic is not there, or it cannot be read to its end.
        CheckpointError: there is no such checkpoint, or it is incomplete, damaged or not
            trusted. Nothing was written.
    """
    everything, champion = await published(kafka)
    number = wanted or champion
    where = f"topic {topic(kafka)}"
    if number is None:
        raise CheckpointError(f"{where} names no champion: has `driftline learner` run yet?")
    known = {learned.manifest.id: learned for learned in everything if learned.manifest}
    if number not in known:
        raise CheckpointError(
            f"{where} holds no checkpoint {number}; it holds {', '.join(known) or 'none'}"
        )
    manifest, content = known[number].manifest, known[number].content
    if manifest is None or content is None:
        raise CheckpointError(
            f"{where}: the manifest of {number} does not say where its weights are"
        )
    if content.chunks:
        data = await _join(kafka, number, content, where)
    else:
        data = fetch(content.address)
    packed = Checkpoint(
        manifest=manifest,
        weights=data[: content.weights_bytes],
        vocabulary=data[content.weights_bytes :],
    )
    checkpoint.verify(packed, f"{where}, checkpoint {number}", trusted)
    home = checkpoint.write(to, packed)
    if number == champion:
        checkpoint.point(to, number)
    return home, number == champion


async def _join(kafka: Kafka, number: str, content: Content, where: str) -> bytes:
    keys = [_chunk_key(number, place) for place in range(len(content.chunks))]
    wanted = set(keys)
    found = await _read(kafka, lambda key: key in wanted)
    for key, told in zip(keys, content.chunks, strict=True):
        if key not in found:
            raise CheckpointError(
                f"{where}: {key.decode()} of {len(keys)} chunks is missing: take another checkpoint"
            )
        if _hash(found[key]) != told:
            raise CheckpointError(
                f"{where}: {key.decode()} has the hash {_hash(found[key])}, the manifest says "
                f"{told}; the chunk is damaged: take another checkpoint"
            )
    return b"".join(found[key] for key in keys)


def _content(packed: Checkpoint, weights: str) -> Content:
    content = Content(weights_bytes=len(packed.weights), vocabulary_bytes=len(packed.vocabulary))
    if not weights:
        return replace(content, chunks=[_hash(piece) for piece in _pieces(packed)])
    address = f"{weights.rstrip('/')}/{packed.manifest.id}"
    try:
        with fsspec.open(address, "wb") as file:
            file.write(packed.weights + packed.vocabulary)
    except Exception as error:  # file systems raise what they like, such as of wrong credentials
        raise OSError(f"cannot write the weights to {address}: {error}") from error
    return replace(content, address=address)


def fetch(address: str) -> bytes:
    """Read the weights and vocabulary at an fsspec address.

    Raises:
        CheckpointError: they cannot be read, or what the address needs is not installed.
    """
    try:
        with fsspec.open(address, "rb") as file:
            return bytes(file.read())
    except (OSError, ImportError, ValueError) as error:  # the latter two: of no file system here
        raise CheckpointError(f"cannot read the weights at {address}: {error}") from None


def _pieces(packed: Checkpoint) -> Iterator[bytes]:
    content = packed.weights + packed.vocabulary
    return (content[at : at + CHUNK] for at in range(0, len(content), CHUNK))


def _chunk_messages(packed: Checkpoint, end: int) -> Iterator[Message]:
    for place, piece in enumerate(_pieces(packed)):
        key = _chunk_key(packed.manifest.id, place)
        yield Message(
            TOPIC,
            key,
            piece,
            cloud_event("chunk", key.decode(), end, source=_SOURCE, content=_BINARY),
        )


def _learned_message(learned: Learned, end: int) -> Message:
    name = learned.manifest.id if learned.manifest else f"window-{end}"
    key = f"{MODEL_NAME}/{name}"
    headers = cloud_event("learned", key, end, source=_SOURCE)
    return Message(TOPIC, key.encode(), msgspec.json.encode(learned), headers)


def _champion_message(manifest: Manifest) -> Message:
    headers = cloud_event("champion", manifest.id, manifest.window_end, source=_SOURCE)
    return Message(TOPIC, _CHAMPION, msgspec.json.encode(Champion(id=manifest.id)), headers)


def _chunk_key(number: str, place: int) -> bytes:
    return f"{number}/chunk/{place}".encode()


async def _read(kafka: Kafka, wanted: Callable[[bytes], bool]) -> dict[bytes, bytes]:
    """Read the topic to its present end: by key the newest value, in order of the newest."""
    found: dict[bytes, bytes] = {}
    async with _reader(kafka) as (consumer, ends):
        while any([await consumer.position(at) < end for at, end in ends.items()]):
            fetched = await consumer.getmany(timeout_ms=PATIENCE * 1000)
            if not fetched:
                raise BusError(f"{topic(kafka)} could not be read to its end: are all brokers up?")
            for record in (record for records in fetched.values() for record in records):
                if record.key is not None and wanted(record.key):
                    found.pop(record.key, None)
                    if record.value is not None:
                        found[record.key] = record.value
    return found


@asynccontextmanager
async def _reader(kafka: Kafka) -> AsyncIterator[tuple[Any, dict[TopicPartition, int]]]:
    name = topic(kafka)
    consumer = Consumer(auto_offset_reset="earliest", **client_config(kafka))
    try:
        await consumer.start()
        everywhere = await partitions(kafka, name)
        consumer.assign(everywhere)
        yield consumer, await consumer.end_offsets(everywhere)
    except KafkaError as error:
        raise kafka.failure(f"read {name}", error) from error
    finally:
        await consumer.stop()


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
