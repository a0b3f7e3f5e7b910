"""The decoders that are fuzzed, each with bytes that it takes, made by what writes them."""

from __future__ import annotations

import json
import tempfile
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from aiokafka import ConsumerRecord
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from bench.recovery import templates
from bench.soak.traffic import clicks
from connectors import wire
from connectors.backtest import Committed
from connectors.kafka import checkpoints, erasures
from connectors.kafka.checkpoints import Champion, Learned
from connectors.kafka.decoding import decode_records
from connectors.kafka.live_settings import decode_live
from connectors.kafka.log_format import LogBatch, unpacked
from connectors.kafka.partitions import Stamp
from connectors.kafka.records import Records
from connectors.kafka.restore import Followed
from connectors.kafka.trend_stage import TrendProgress
from connectors.prior_file import decode_prior
from connectors.profiles import encode_profiles, stored_snapshots
from connectors.store import StoreError, is_replicated, pairs, unpack
from learners import checkpoint
from learners.checkpoint import CheckpointError, Manifest, Names
from learners.metrics import Figures
from pipeline.engine import Engine, decode_progress
from pipeline.events import CategoryForecast, Clicks, DriftAlert, ForecastWindow
from pipeline.interest import StateError
from pipeline.packing import decode
from pipeline.prior import UNIFORM
from pipeline.rollups import Rollup, merged
from pipeline.settings import Model, Settings, SettingsError, Source

MAPPED = Source(map={"user": "data.user.id", "item": "data.item", "timestamp": "at"})
_TIME = 1_700_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A decoder, and what it may do with bytes."""

    name: str
    examples: Sequence[bytes]
    read: Callable[[list[bytes]], int]
    """Takes inputs, and returns how many of them it took."""
    refusals: tuple[type[Exception], ...] = ()
    weight: float = 1.0
    """Its share of the inputs, against that of others."""
    takes_batches: bool = False
    """Whether it refuses an input without raising, and so can be given many."""


def targets() -> list[Target]:
    """Return all decoders."""
    engine, effects = _engine()
    changes = engine.changes()
    state = [data for _, data in changes.states][:50] + templates()[:20]
    alerts, rollups = effects
    [profiles] = stored_snapshots(changes.states[:20])
    return [
        *_of_clicks(),
        _one("batch of the log", _log_batches(), _read_log_batch, CorruptRecordException),
        _one("interest state", state, _state, StateError, weight=2),
        _one("progress of an engine", [changes.progress], decode_progress, StateError),
        *_of_drivers(),
        _one("changelog record", _records(changes), _read_record, StoreError, StateError),
        _one("alert", [*map(wire.encode_alert, alerts)], wire.decode_alert, wire.WireError),
        _one(
            "profile", encode_profiles(profiles, engine.names), wire.decode_profile, wire.WireError
        ),
        _one("forecast", [_forecast()], wire.decode_forecast, wire.WireError),
        _one("rollup", [*map(wire.encode_rollup, rollups)], _read_rollup, wire.WireError, weight=2),
        *_of_checkpoints(),
        _one("erasure", _erasures(), erasures.decode, wire.WireError),
        _one("prior", [msgspec.json.encode(_prior())], decode_prior, SettingsError),
        _one("settings", [_settings()], _read_settings, SettingsError, weight=0.1),
    ]


def _one(
    name: str,
    examples: list[bytes],
    read: Callable[[bytes], object],
    *refusals: type[Exception],
    weight: float = 1.0,
) -> Target:
    def take(batch: list[bytes]) -> int:
        for data in batch:
            read(data)
        return len(batch)

    return Target(name=name, examples=examples, read=take, refusals=refusals, weight=weight)


def _engine() -> tuple[Engine, tuple[list[DriftAlert], list[Rollup]]]:
    """Return an engine that has seen some clicks, and what it said."""
    drift = msgspec.structs.replace(Settings().drift, events_per_false_alarm=50, minimum_events=8)
    engine = Engine(msgspec.structs.replace(Settings(), drift=drift))
    values = [value for _, value in islice(clicks(1, 20), 8000)]
    batch, _ = wire.decode_clicks(values, np.arange(len(values)), "clicks/0", Source())
    effects = engine.process(batch)
    return engine, (effects.alerts[:20], effects.rollups[:20])


def _of_clicks() -> list[Target]:
    bare = [value for _, value in islice(clicks(2, 20), 200)]
    full = {"session_id": "s", "price": 1.5, "event_type": "buy", "context": {"page": [1, 2]}}
    bare += [json.dumps(json.loads(bare[0]) | full | {"schema": 1}).encode()]
    bare += [json.dumps(json.loads(bare[0]) | {"timestamp": "2024-05-01T12:00:00Z"}).encode()]
    event = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "click"}
    events = [json.dumps(event | {"data": json.loads(bare[n])}).encode() for n in range(20)]
    events += [json.dumps(event | {"data_base64": b64encode(bare[0]).decode()}).encode()]
    nested = {"data": {"user": {"id": "anna"}, "item": "lamp"}, "at": _TIME}
    mapped = [json.dumps(nested | {"at": _TIME + n}).encode() for n in range(20)]
    headers = [b"2023-11-01T12:00:00Z", b"17", b"/shop", b"1.0"]
    return [
        Target(name=name, examples=examples, read=read, weight=weight, takes_batches=True)
        for name, examples, read, weight in (
            ("click", bare, _reader(Source()), 5.0),
            ("click in a CloudEvent", events, _reader(Source()), 2.0),
            ("click of another layout", mapped, _reader(MAPPED), 2.0),
            ("headers of a click", headers, _read_headers, 1.0),
        )
    ]


def _reader(source: Source) -> Callable[[list[bytes]], int]:
    def read(batch: list[bytes]) -> int:
        return _accounted(*wire.decode_clicks(batch, np.arange(len(batch)), "c/0", source), batch)

    return read


def _read_headers(batch: list[bytes]) -> int:
    click = b'{"user_id":"anna","item_id":"lamp"}'
    names = ("ce_time", "ce_id", "ce_source", "ce_specversion")
    known = {"ce_specversion": b"1.0", "ce_time": b"2023-11-01T12:00:00Z"}
    rows = [[*(known | {names[n % 4]: data}).items()] for n, data in enumerate(batch)]
    records = [
        ConsumerRecord("c", 0, at, _TIME, 0, b"anna", click, 0, 4, len(click), headers)
        for at, headers in enumerate(rows)
    ]
    return _accounted(*decode_records(Records.of(records), "c/0", Source()), batch)


def _accounted(found: Clicks, rejects: list[Any], batch: list[bytes]) -> int:
    places = sorted([*found.position.tolist(), *(reject.position for reject in rejects)])
    if places != list(range(len(batch))):
        raise ArithmeticError(f"{len(found)} clicks and {len(rejects)} rejects of {len(batch)}")
    return len(found)


def _log_batches() -> list[bytes]:
    """Return payloads of batches, each behind a byte that tells how many records it has."""
    rows = [
        (b"anna", b'{"item_id":"lamp"}', []),
        (None, None, [("ce_id", b"1"), ("none", None)]),
        (b"", b"x" * 300, [("", b"")]),
    ]
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    made = []
    for count, (key, value, headers) in enumerate(rows, start=1):
        builder.append(count - 1, _TIME + count, key, value, headers)
        made.append(bytes([count]) + bytes(LogBatch.of(bytes(builder.build()), 0).records))
    return made


def _read_log_batch(data: bytes) -> None:
    count = data[0] if data else 0
    unpacked([LogBatch(data[1:], count, 0, _TIME, -1, wanted=0)])


def _state(data: bytes) -> np.void:
    record: np.void = decode([data])[0]
    return record


def _records(changes: Any) -> list[bytes]:
    """Return records as key, 0xff, value: no key of ours bears that byte."""
    items = pairs(changes, {"stamp": msgspec.msgpack.encode(Stamp(next=9))})
    return [key + b"\xff" + value for key, value in items if value is not None][-60:]


def _read_record(data: bytes) -> None:
    key, _, value = data.partition(b"\xff")
    if not is_replicated(key):
        raise StoreError("not a key of ours")
    match key[:1]:
        case b"s":
            _state(value)
        case b"m" if key == b"mprogress":
            decode_progress(value)
        case b"m":
            unpack(value, Stamp, "a changelog")


def _of_drivers() -> list[Target]:
    kept: dict[type[Any], Any] = {
        Stamp: Stamp(next=7),
        Followed: Followed.now("log", 5),
        TrendProgress: TrendProgress(),
        Committed: Committed(lengths={"a": 1}),
    }
    return [
        _one(
            f"{kind.__name__} of a driver",
            [msgspec.msgpack.encode(value)],
            lambda data, kind=kind: unpack(data, kind, "a store"),
            StoreError,
            weight=0.5,
        )
        for kind, value in kept.items()
    ]


def _read_rollup(data: bytes) -> None:
    merged([wire.decode_rollup(data)])


def _forecast() -> bytes:
    window = ForecastWindow(start=0, end=7, expected=3.5, low=1, high=6, volume=10.0)
    return wire.encode_forecast(
        CategoryForecast(category="a/b", made=0, coverage=0.9, windows=[window], settings="5e77")
    )


def _erasures() -> list[bytes]:
    request = erasures.Request(user="anna", asked=_TIME, ends={0: 7, 1: 9})
    receipt = erasures.Receipt(user="anna", asked=_TIME, by="learner", checkpoints=["3f"])
    return [msgspec.json.encode(said) for said in (request, receipt)]


def _of_checkpoints() -> list[Target]:
    figures = Figures(recall=0.5, mrr=0.25, ndcg=0.3)
    manifest = Manifest(
        parent=None,
        window_start=0,
        window_end=7,
        sources={"clicks/0": 9},
        settings="5e77",
        model=Model(),
        items=2,
        metrics=figures,
        champion_metrics=None,
        decision="promoted",
        reason="the first",
    )
    names = Names(items=["a", "b"], categories=["c"], types=["view"])
    packed = checkpoint.pack(manifest, {"weights": torch.zeros(4, 2)}, names)
    told = {"manifest": packed.manifest, "content": {"weights_bytes": 9, "vocabulary_bytes": 3}}
    learned = json.loads(msgspec.json.encode({"report": _report(figures), "schema": 1, **told}))
    messages = ((Learned, msgspec.json.encode(learned)), (Champion, b'{"id":"3f","schema":1}'))
    return [
        *(
            _one(
                f"{kind.__name__} of a topic",
                [data],
                lambda data, kind=kind: checkpoints.decode(data, kind),
                CheckpointError,
            )
            for kind, data in messages
        ),
        _one(
            "chunk of a checkpoint",
            [packed.weights + packed.vocabulary],
            lambda data: checkpoint.verify(_with(packed, data), "a topic"),
            CheckpointError,
        ),
        _one(
            "manifest on disk",
            [msgspec.json.encode(packed.manifest)],
            lambda data: checkpoint.load(_written(packed, data)),
            CheckpointError,
            weight=0.1,
        ),
    ]


def _with(packed: checkpoint.Checkpoint, data: bytes) -> checkpoint.Checkpoint:
    size = len(packed.weights)
    return msgspec.structs.replace(packed, weights=data[:size], vocabulary=data[size:])


_HOME = tempfile.TemporaryDirectory(prefix="driftline-fuzz-")


def _written(packed: checkpoint.Checkpoint, manifest: bytes) -> Path:
    home = Path(_HOME.name) / packed.manifest.id
    if not home.exists():
        checkpoint.write(home.parent, packed)
    (home / "manifest.json").write_bytes(manifest)
    return home


def _report(figures: Figures) -> dict[str, Any]:
    plain: dict[Any, Any] = {int: 3, float: 0.5, str: "2024-01-01", Figures: figures}
    fields = msgspec.structs.fields(checkpoints.Report)
    required = [f for f in fields if f.required]
    return {f.encode_name: plain.get(f.type) for f in required} | {"decision": "promoted"}


def _prior() -> Any:
    shares = {"a/b": 0.4, "c": 0.1}
    return msgspec.structs.replace(UNIFORM, shares=shares, items={"lamp": 0.01}, groups={"x": "c"})


def _settings() -> bytes:
    return Path(wire.__file__).with_name("driftline.toml").read_bytes()


def _read_settings(data: bytes) -> None:
    decode_live(data, "driftline.toml")
