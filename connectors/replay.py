"""`driftline replay`: from a request to a directory of results."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from time import perf_counter
from typing import Protocol

import msgspec
import numpy as np
from xxhash import xxh3_64

from connectors.backtest import Backtest
from connectors.files import read
from connectors.interest_history import read_history
from connectors.kafka.settings import Kafka
from connectors.log import write_atomically
from connectors.prior_file import load_prior
from connectors.report import write_report
from connectors.run_error import RunError
from connectors.segment_files import write_segments
from connectors.summary import Summary, iso, write_profiles, write_summary
from connectors.validate import Reject
from pipeline.events import Clicks
from pipeline.river_drift import OURS, RiverDrift
from pipeline.settings import Settings

TOPIC = "kafka://"
BATCH = 8192
"""Events a batch."""
ENDS = 1 << 20
"""Bytes at either end of a file by which a run knows it again, beside its size."""

_BEGINNING, _END = -(2**62), 2**62

Progress = Callable[[float, str], None]
"""Takes the share of the whole that is done, and what is going on."""
_Batch = tuple[Clicks, list[Reject]]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to replay, and how. Two runs of equal requests leave equal results."""

    inputs: list[str]
    """Files, or one topic: kafka://broker:port/topic."""
    settings: Settings
    since: int | None = None
    until: int | None = None
    """Of a topic, the event times taken: milliseconds, `until` itself left out."""
    kafka: Kafka = Kafka()
    """How a topic's brokers are talked to."""
    learning: bool = True
    limit: int = 0
    sort: bool = False


class _Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What a directory holds a run of."""

    inputs: list[tuple[str, int]]
    contents: list[str] = []
    """By input a hash of its first and last bytes, `ENDS` of each."""
    settings: str
    prior: str
    learning: bool
    limit: int
    sort: bool
    since: int | None = None
    until: int | None = None


def replay(
    request: Request,
    out: Path,
    *,
    command: str,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda _fraction, _text: None,
) -> Summary:
    """Replay files into a directory, and write its report.

    A run that is there already is gone on with (`resume`), whatever else is said, or replaced
    (`overwrite`).

    Raises:
        FileError: An input cannot be read.
        RunError: The directory holds something else, or cannot be written.
        StoreError: The state store cannot be opened or written.
        SettingsError: The prior cannot be read, or there is no such detector.
    """
    started = perf_counter()
    prior = load_prior(request.settings.drift.prior)
    ours = request.settings.drift.detector == OURS
    river = None if ours else RiverDrift(request.settings, prior)
    if resume and any(name.startswith(TOPIC) for name in request.inputs):
        raise RunError("a topic may have grown since: replay it anew (--overwrite)")
    overwrite = overwrite and not resume
    reading = _open(request)
    first = list(islice(reading, 1)) if overwrite else []  # may fail: then the former run stays
    _prepare(out, _identity(request, prior.version), resume=resume, overwrite=overwrite)
    watch = _Watch(reading, first, request, progress)
    with Backtest(
        out,
        request.settings,
        prior,
        learning=request.learning,
        progress=lambda _fraction, text: progress(watch.fraction, text),
        river=river,
    ) as backtest:
        backtest.run(watch)
        progress(1.0, "writing profiles, summary and report")
        users = write_profiles(out / "profiles.parquet", backtest.store, backtest.engine.names)
        write_segments(out, read_history(out), int(request.settings.trends.window))
        summary = write_summary(
            out,
            command=command,
            settings=request.settings.version,
            counts=backtest.engine.progress.counts,
            users=users,
            late_for_windows=backtest.learning.windows.late if backtest.learning else 0,
            period=watch.period,
            elapsed=perf_counter() - started,
            speed=backtest.events / backtest.seconds if backtest.events else 0.0,
        )
    write_report(out)
    return summary


class _Input(Protocol):
    """Batches, and how far they have been read."""

    @property
    def fraction(self) -> float: ...

    def __iter__(self) -> Iterator[_Batch]: ...


class _Topic:
    """A topic as an input; how much of it is left is not known."""

    fraction = 0.0

    def __init__(self, url: str, request: Request) -> None:
        from connectors.kafka.bus_replay import bus_batches  # noqa: PLC0415  needs no Kafka else

        self._batches = bus_batches(url, kafka=request.kafka, source=request.settings.source)

    def __iter__(self) -> Iterator[_Batch]:
        return self._batches


def _open(request: Request) -> _Input:
    topics = [name for name in request.inputs if name.startswith(TOPIC)]
    if not topics:
        files = [Path(name) for name in request.inputs]
        return read(files, request.settings.source, batch_size=BATCH, sort=request.sort)
    if len(request.inputs) > 1 or request.sort:
        raise RunError("a topic is replayed alone and in its own order: without files or --sort")
    return _Topic(topics[0], request)


class _Watch:
    """Passes on what is asked for, tells how far that has come and what time it spans.

    `first` are those that were read beforehand.
    """

    def __init__(
        self, reading: _Input, first: list[_Batch], request: Request, progress: Progress
    ) -> None:
        self._reading = reading
        self._first = first
        self._limit = request.limit
        self._since = _BEGINNING if request.since is None else request.since
        self._until = _END if request.until is None else request.until
        self._progress = progress
        self._events = 0
        self.period: tuple[int, int] | None = None

    @property
    def fraction(self) -> float:
        """The share of the input that has been read, 0 to 1."""
        limited = self._events / self._limit if self._limit else 0.0
        return max(self._reading.fraction, limited)

    def __iter__(self) -> Iterator[_Batch]:
        for batch, rejects in chain(self._first, self._reading):
            within = (batch.time >= self._since) & (batch.time < self._until)
            clicks = batch if within.all() else batch.take(np.flatnonzero(within))
            clicks = clicks.take(slice(self._limit - self._events)) if self._limit else clicks
            self._events += len(clicks)
            if len(clicks):
                first, last = int(clicks.time.min()), int(clicks.time.max())
                before = self.period or (first, last)
                self.period = (min(before[0], first), max(before[1], last))
                self._progress(self.fraction, f"replaying {iso(last)[:10]}")
            yield clicks, rejects
            if self._limit and self._events >= self._limit:
                return


def _identity(request: Request, prior: str) -> _Identity:
    return _Identity(
        inputs=[_identify(name) for name in request.inputs],
        contents=[_fingerprint(name) for name in request.inputs],
        settings=request.settings.version,
        prior=prior,
        learning=request.learning,
        limit=request.limit,
        sort=request.sort,
        since=request.since,
        until=request.until,
    )


def _identify(name: str) -> tuple[str, int]:
    return (name, 0) if name.startswith(TOPIC) else (Path(name).name, Path(name).stat().st_size)


def _fingerprint(name: str) -> str:
    if name.startswith(TOPIC):
        return ""
    with Path(name).open("rb") as file:
        digest = xxh3_64(file.read(ENDS))
        size = file.seek(0, os.SEEK_END)
        file.seek(max(ENDS, size - ENDS))
        digest.update(file.read(ENDS))
    return digest.hexdigest()


def _prepare(out: Path, identity: _Identity, *, resume: bool, overwrite: bool) -> None:
    """Make the directory this run's, or see that it already is."""
    marker = out / "run.json"
    found = _found(marker)
    if overwrite and found:
        shutil.rmtree(out)
    elif found:
        if not resume:
            raise RunError(
                f"{out} holds a replay already: go on with it (--resume), "
                "replace it (--overwrite), or name another directory (--out)"
            )
        _refuse_other(out, found, identity)
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise RunError(
                f"{out} is not empty and holds no replay: name another directory (--out)"
            )
        write_atomically(marker, msgspec.json.encode(identity))
    except OSError as error:
        raise RunError(f"cannot write to {out}: {error.strerror}") from None


def _found(marker: Path) -> _Identity | None:
    """Return what a directory holds a run of; None where it holds none."""
    if not marker.exists():
        return None
    try:
        return msgspec.json.decode(marker.read_bytes(), type=_Identity)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RunError(
            f"{marker} is not of a replay of this release ({error}): name another directory "
            "(--out), or remove that one yourself"
        ) from None


def _refuse_other(out: Path, found: _Identity, wanted: _Identity) -> None:
    """Refuse to resume a run that was begun with other inputs or settings."""
    differing = [
        f"{name}: {getattr(found, name)} there, {getattr(wanted, name)} here"
        for name in _Identity.__struct_fields__
        if getattr(found, name) != getattr(wanted, name)
    ]
    if differing:
        raise RunError(
            f"{out} holds another run ({'; '.join(differing)}): resume it with the same inputs "
            "and settings, or name another directory (--out)"
        )
