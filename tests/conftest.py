"""What every test may ask for: a real Kafka, a topic prefix of its own, data, a browser."""

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from rheos.local_kafka import KafkaProcess
from tests.broker import delete_topics, new_broker

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
NO_CHROMIUM = "no Chromium on PATH"
MARKERS = (
    "kafka: needs the run's real Kafka broker",
    "browser: drives the page in a real Chromium",
    "slow: takes more than ten seconds",
)


def pytest_configure(config: pytest.Config) -> None:
    # An example takes as long as the machine needs. On build servers Hypothesis sees to it itself.
    hypothesis.settings.register_profile(
        "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("patient")
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    # kafka-python 3.0 loads its schemas by a call that Python 3.11 and 3.12 deprecate.
    config.addinivalue_line("filterwarnings", r"ignore:(read_text|open_text) is deprecated")
    # It also leaves the socket of a refused connection to the garbage collector.
    config.addinivalue_line(
        "filterwarnings", r"ignore:unclosed <socket.*laddr=\('0.0.0.0', :ResourceWarning"
    )


@pytest.fixture(scope="session")
def run_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaProcess]:
    """The run's broker, started when the first test asks; tests ask for `broker`."""
    process = new_broker(tmp_path_factory.mktemp("kafka"))
    process.start()
    yield process
    process.stop()


@pytest.fixture
def broker(run_broker: KafkaProcess) -> KafkaProcess:
    """A real Kafka that serves: `.bootstrap`, `.kill()`, `.start()`.

    One for the whole run, so keep to topics under `prefix`. A test that crashes it starts it
    again; should that test fail in between, the next one gets a started broker all the same.
    """
    run_broker.start()
    return run_broker


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> Iterator[str]:
    """A topic prefix that no other test uses. Its topics go with the test: a broker that is crashed
    recovers every partition that it has, minutes of work for those of a whole run."""
    name = f"t{uuid.uuid4().hex[:12]}"
    kafka = None
    if "run_broker" in request.fixturenames:
        kafka = request.getfixturevalue("run_broker")
    yield name
    if kafka is not None and kafka.running:
        delete_topics(kafka.bootstrap, name)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the public data sets; skips the test where it is not laid beside the repo."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the data sets are not at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium for Playwright's `executable_path`; skips where there is none."""
    for name in CHROMIUM_NAMES:
        if path := shutil.which(name):
            return path
    pytest.skip(f"{NO_CHROMIUM} (looked for {', '.join(CHROMIUM_NAMES)})")


def _skipped_browser_tests(terminal: pytest.TerminalReporter) -> int:
    return sum(NO_CHROMIUM in str(report.longrepr) for report in terminal.stats.get("skipped", []))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    passed = session.exitstatus == pytest.ExitCode.OK
    if passed and "CI" in os.environ and terminal and _skipped_browser_tests(terminal):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    # After pytest's own last line, so that it is the last one that a person sees.
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal and (count := _skipped_browser_tests(terminal)):
        verdict = "a failure in CI" if "CI" in os.environ else "install chromium to run them"
        terminal.write_line(f"browser tests skipped for want of a Chromium: {count} ({verdict})")
