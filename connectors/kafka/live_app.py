"""The Faust app of a worker: which agent reads which topic, and what happens around them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import faust
from aiokafka.errors import KafkaError

from connectors.kafka.erasures import erase_when_asked
from connectors.kafka.interest_stage import InterestStage
from connectors.kafka.keying import EVERY_SECONDS, KeyWatch
from connectors.kafka.live_settings import Worker
from connectors.kafka.metrics import serve
from connectors.kafka.records import RecordBatch
from connectors.kafka.rekey import Rekeying
from connectors.kafka.settings import BusError, Kafka
from connectors.kafka.standby import Standby, hold
from connectors.kafka.topics import ROLLUPS
from connectors.kafka.transport import batch_agent, batch_app
from connectors.kafka.trend_stage import TrendStage
from pipeline.settings import Settings

log = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 3.0
"""Between two looks whether a partition that windows wait for has fallen silent."""


def live_app(settings: Settings, kafka: Kafka, worker: Worker) -> faust.App:
    """Make the app of a worker; nothing is connected or opened before it is started.

    Raises:
        SettingsError: see `security.client_config` and `prior_file.load_prior`.
    """
    data = Path(worker.data)
    app = batch_app(
        kafka,
        datadir=data / "faust",
        broker_max_poll_records=worker.batch,
        broker_commit_interval=worker.commit_interval / 1000,
        broker_session_timeout=worker.session_timeout / 1000,
        broker_heartbeat_interval=worker.session_timeout / 5000,
        consumer_group_instance_id=worker.instance or None,
    )
    app.boot_strategy.enable_web = False  # Faust's command line would switch it on, to all
    interest = InterestStage(settings, kafka, worker)
    trends = TrendStage(settings, kafka, data)
    interest.further_troubles = trends.troubles
    rekeying = Rekeying(settings.source, kafka)

    if kafka.rekey:

        @batch_agent(app, kafka.received)
        async def received(batch: RecordBatch) -> None:
            await rekeying.handle(batch)

    @batch_agent(app, kafka.clicks, interest)
    async def clicks(batch: RecordBatch) -> None:
        await interest.handle(batch)

    @batch_agent(app, kafka.topic_prefix + ROLLUPS, trends)
    async def rollups(batch: RecordBatch) -> None:
        await trends.handle(batch)

    @app.task  # type: ignore[untyped-decorator]  # Faust ships no types
    async def erase() -> None:
        await erase_when_asked(app, interest.erase)

    _attend(app, interest, trends, worker, rekeying)
    _keep_looking(app, trends)
    if worker.standby:
        _keep_copies(app, interest.standby)
    if not kafka.rekey:
        _watch_keys(app, interest, trends, KeyWatch(settings.source, kafka))
    return app


def _watch_keys(
    app: faust.App, interest: InterestStage, trends: TrendStage, keys: KeyWatch
) -> None:
    """Look now and then whether the topic is keyed by user; one worker does so for all."""
    interest.metrics.split_users = lambda: keys.split_users if trends.here else 0

    @app.task  # type: ignore[untyped-decorator]  # Faust ships no types
    async def watch() -> None:
        while not app.should_stop:
            if trends.here:
                try:
                    await keys.look()
                except (BusError, KafkaError) as error:
                    log.warning("cannot look at the keys of %s now: %s", keys.topic, error)
            await app.sleep(EVERY_SECONDS if trends.here else 1.0)


def _keep_copies(app: faust.App, standby: Standby) -> None:
    @app.task  # type: ignore[untyped-decorator]  # Faust ships no types
    async def follow() -> None:
        while not app.should_stop:
            await app.sleep(await standby.follow())


def _keep_looking(app: faust.App, trends: TrendStage) -> None:
    @app.task  # type: ignore[untyped-decorator]  # Faust ships no types
    async def look_again() -> None:
        while not app.should_stop:
            await app.sleep(LOOK_AGAIN_SECONDS)
            await trends.look_again()


def _attend(
    app: faust.App,
    interest: InterestStage,
    trends: TrendStage,
    worker: Worker,
    rekeying: Rekeying,
) -> None:
    """Open and close along with the app and its assignments."""

    def prepare(*_: Any, **__: Any) -> None:
        hold(Path(worker.data), alone=worker.standby)

    @app.task  # type: ignore[untyped-decorator]  # Faust ships no types
    async def tell() -> None:
        if worker.metrics_port:
            told = {"/healthz": interest.sickness, "/readyz": interest.troubles}
            serve(worker.metrics_port, interest.metrics, told)
        while not app.should_stop:
            interest.pulse.beat()
            await app.sleep(1.0)

    @app.task  # type: ignore[untyped-decorator]
    async def flush() -> None:
        while not app.should_stop:
            await app.sleep(worker.flush_interval / 4000)
            if not app.should_stop:
                await interest.flush()

    async def shut_down(*_: Any, **__: Any) -> None:
        await interest.close()
        await trends.close()
        await rekeying.close()

    listeners: dict[Any, Any] = {
        app.on_worker_init: prepare,
        app.on_before_shutdown: shut_down,
    }
    for signal, listener in listeners.items():
        signal.connect(listener)
