"""The Faust app: short agents over our topics, and what starts and stops with them.

``rheos stream`` runs it; ``faust -A stream.app worker`` does too, with the settings of
``rheos.toml`` and the environment.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import faust
from faust.types import TP, StreamT
from kafka.errors import KafkaError

from rheos import topics
from rheos.bootstrap import is_reachable
from rheos.metrics import MetricsServer
from rheos.settings import Settings, load
from stream.agents import all_agents
from stream.assigned import AssignedPartitions
from stream.chunk import Chunk
from stream.generation_in_service import GenerationInService
from stream.micro_batch import ChunkSchema, install

_BUFFERED_CHUNKS = 1024  # with few, Faust's back-pressure sleeps for a second at a time
_LAG_EVERY_S = 1.0
_BROKER_EVERY_S = 2.0
_FETCH_BYTES = 4 * 1024 * 1024


class Unfit(Exception):
    """The worker cannot start so. ``problems`` has a line for each, with key, value and fix."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class StreamApp(faust.App):  # type: ignore[misc]
    """Faust with our partitions in it. They are stopped before Faust stops."""

    def __init__(self, settings: Settings) -> None:
        self.rheos_settings = settings
        self.generation = GenerationInService(settings)
        self.our_agents = all_agents(settings, lambda: self.generation.current)
        self.partitions = AssignedPartitions(
            settings, self.our_agents, lambda: self.consumer, self._crash_soon
        )
        self.metrics_server: MetricsServer | None = None
        stream = settings.stream
        super().__init__(
            f"{settings.kafka.prefix}-stream",
            broker=[f"kafka://{address}" for address in settings.kafka.bootstrap.split(",")],
            store="memory://",
            datadir=Path(settings.data_dir) / "faust",
            web_enabled=False,
            topic_disable_leader=True,
            topic_allow_declare=False,
            # What is gone from the log is never skipped over silently.
            consumer_auto_offset_reset="none",
            consumer_max_fetch_size=_FETCH_BYTES,
            broker_session_timeout=stream.session_timeout_s,
            broker_heartbeat_interval=stream.session_timeout_s / 3,
            broker_max_poll_records=4000,
            broker_max_poll_interval=24 * 3600,  # a worker whose partitions all wait stays
            broker_commit_interval=1.0,
            # A rebalance must not wait for chunks that wait for their broker or their turn.
            stream_wait_empty=False,
        )
        install(self, stream.chunk_records, self.partitions.cut)
        self.on_partitions_assigned.connect(self._assigned)
        self.on_partitions_revoked.connect(self._revoked)

    async def on_first_start(self) -> None:
        self.conf.datadir.mkdir(parents=True, exist_ok=True)  # Faust would not make its parents
        await super().on_first_start()

    async def on_start(self) -> None:
        await self._ensure_topics()
        stream = self.rheos_settings.stream
        try:
            self.metrics_server = MetricsServer(
                stream.host, stream.port, self.partitions.not_ready, self.generation.unhealthy
            )
        except OSError as error:
            raise Unfit(
                [f"stream.host = {stream.host!r}, stream.port = {stream.port}: {error.strerror}"]
            ) from error
        self.generation.start()
        await super().on_start()

    async def _ensure_topics(self) -> None:
        settings = self.rheos_settings
        bootstrap = settings.kafka.bootstrap
        while not self.should_stop:
            cause: object = "nothing listens there"
            if await asyncio.to_thread(is_reachable, bootstrap):
                try:
                    problems = await asyncio.to_thread(topics.ensure, settings)
                except KafkaError as error:
                    cause = error
                else:
                    if problems:
                        raise Unfit(problems)
                    return
            self.log.warning("waiting for Kafka at %s: %s", bootstrap, cause)
            await self.sleep(_BROKER_EVERY_S)

    async def on_stop(self) -> None:
        await self.partitions.close()
        await super().on_stop()
        self.generation.close()
        if self.metrics_server is not None:
            self.metrics_server.close()

    async def _assigned(self, app: StreamApp, assigned: set[TP], **_: Any) -> None:
        self.partitions.assign(assigned)

    async def _revoked(self, app: StreamApp, revoked: set[TP], **_: Any) -> None:
        await self.partitions.revoke(revoked)

    def _crash_soon(self, error: BaseException) -> None:
        asyncio.get_running_loop().create_task(self.crash(error))


def create_app(settings: Settings) -> StreamApp:
    """The app of one worker: an agent for events, one for transitions, one for each source."""
    app = StreamApp(settings)

    async def hand_on(chunks: StreamT[Chunk]) -> None:
        async for event in chunks.noack().events():
            app.partitions.deliver(event)

    for ours in app.our_agents:
        topic = app.topic(ours.input_topic, schema=ChunkSchema(), maxsize=_BUFFERED_CHUNKS)
        app.agent(topic, name=ours.name)(hand_on)

    @app.timer(interval=_LAG_EVERY_S)  # type: ignore[untyped-decorator]
    async def measure_lag() -> None:
        app.partitions.measure_lag()

    return app


def __getattr__(name: str) -> StreamApp:
    """``app``, made when Faust's command line asks for it."""
    if name != "app":
        raise AttributeError(name)
    app = create_app(load())
    globals()["app"] = app
    return app
