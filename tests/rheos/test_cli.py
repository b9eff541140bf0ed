"""The command line: help, exit statuses, one-line errors, and a quick start."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from rheos.cli import COMMANDS, build, demo, main
from rheos.cli.error import _EXPECTED, CommandError, explained
from rheos.cli.port import Port, require_free
from rheos.settings import load
from tests.broker import free_ports
from trainer.models import model_of

HEAVY = {"numpy", "kafka", "msgspec", "httpx", "faust", "faiss", "torch", "starlette", "pyarrow"}
SUB_COMMANDS = {
    "generations": ("list", "show", "promote", "rollback", "report"),
    "evaluate": ("prequential", "time-split", "cross-validate", "split"),
}


class Ran(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("RHEOS_")]:
        monkeypatch.delenv(name)
    # What main puts into the environment for its children goes with the test.
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def rheos(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str, **variables: str) -> Ran:
        os.environ.update(variables)
        try:
            status = main(words)
        except SystemExit as ended:  # cyclopts ends so on wrong usage
            status = int(ended.code or 0)
        out, err = capsys.readouterr()
        return Ran(status, out, err)

    return run


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    return f"127.0.0.1:{free_ports(1)[0]}"


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        yield server.getsockname()[1]


def every_command() -> list[tuple[str, ...]]:
    return [(name,) for name in COMMANDS] + [
        (name, inner) for name, inners in SUB_COMMANDS.items() for inner in inners
    ]


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_every_command_has_help_and_an_example(rheos: Any, words: tuple[str, ...]) -> None:
    ran = rheos(*words, "--help")

    assert ran.status == 0
    assert "Usage: rheos" in ran.out
    if len(words) > 1 or words[0] not in SUB_COMMANDS:  # a group leaves it to its members
        assert re.search(r"Example: (.+=\S+ )?rheos", ran.out.replace("`", ""))


def test_the_list_of_commands_has_a_line_for_each(rheos: Any) -> None:
    ran = rheos("--help")

    assert ran.status == 0
    for name in COMMANDS:
        assert re.search(rf"│ {name} +\w", ran.out), name


def test_groups_of_commands_are_all_known_to_these_tests() -> None:
    apps = {name for name, where in COMMANDS.items() if where.endswith(":app")}

    assert apps == set(SUB_COMMANDS)
    for name in apps:
        module, _, attribute = COMMANDS[name].partition(":")
        app = getattr(import_module(module), attribute)
        assert {word for word in app if not word.startswith("-")} == set(SUB_COMMANDS[name])


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys; from rheos.cli import main\n"
        "try: main(['--help'])\n"
        "finally: print('LOADED', *sorted(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.partition("LOADED")[2].split())

    assert loaded & HEAVY == set()


def test_help_takes_less_than_a_third_of_a_second_of_processor_time() -> None:
    def seconds() -> float:
        before = os.times()
        subprocess.run(
            [sys.executable, "-m", "rheos.cli", "up", "--help"], capture_output=True, check=True
        )
        after = os.times()
        return after.children_user - before.children_user

    assert min(seconds() for _ in range(3)) < 0.33


def test_the_version_is_told(rheos: Any) -> None:
    ran = rheos("--version")

    assert (ran.status, ran.err) == (0, "")
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", ran.out)


@pytest.mark.parametrize(
    "words",
    [
        ("nope",),
        ("recommend",),
        ("recommend", "1", "--k", "many"),
        ("topics", "destroy"),
        ("up", "--prot", "1"),
        ("up", "--fresh"),
        ("status", "extra"),
        ("replay", "file.csv", "--rate", "-1"),
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_names_the_fault(rheos: Any, words: tuple[str, ...]) -> None:
    ran = rheos(*words)

    assert ran.status == 2
    assert ran.err
    assert ran.out == ""
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("command", ["up", "stream", "indexer", "trainer", "status", "doctor"])
def test_wrong_settings_end_with_2_and_one_line(rheos: Any, command: str) -> None:
    ran = rheos(command, RHEOS_STREAM_PORT="eighty")

    assert ran.status == 2
    assert ran.err.startswith("rheos: RHEOS_STREAM_PORT='eighty'")
    assert ran.err.count("\n") == 1


def test_a_settings_file_is_taken_from_config_anywhere_on_the_line(
    rheos: Any, tmp_path: Path
) -> None:
    (tmp_path / "shop.toml").write_text("[indexer]\nprot = 1\n")

    for words in (("--config", "shop.toml", "doctor"), ("doctor", "--config", "shop.toml")):
        ran = rheos(*words)
        assert ran.status == 2
        assert "unknown setting indexer.prot" in ran.err


def test_an_absent_settings_file_is_named(rheos: Any) -> None:
    ran = rheos("status", "--config", "absent.toml")

    assert ran.status == 2
    assert "absent.toml" in ran.err


@pytest.mark.parametrize(
    "words",
    [("topics",), ("topics", "check"), ("dead-letters",), ("up", "--kafka", "")],
    ids=" ".join,
)
def test_without_a_broker_there_is_one_line_with_the_fix(
    rheos: Any, words: tuple[str, ...], nobody: str, tmp_path: Path
) -> None:
    words = tuple(word or nobody for word in words)
    ports = free_ports(3)
    ran = rheos(
        *words,
        RHEOS_KAFKA_BOOTSTRAP=nobody,
        RHEOS_DATA_DIR=str(tmp_path / "data"),
        RHEOS_INDEXER_PORT=str(ports[0]),
        RHEOS_STREAM_PORT=str(ports[1]),
        RHEOS_TRAINER_PORT=str(ports[2]),
    )

    assert ran.status == 1
    assert ran.err.startswith(f"rheos: no Kafka at {nobody}")
    assert "RHEOS_KAFKA_BOOTSTRAP" in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("words", [("recommend", "17850"), ("similar", "85123A")], ids=" ".join)
def test_without_an_api_there_is_one_line_with_the_fix(
    rheos: Any, words: tuple[str, ...], nobody: str
) -> None:
    ran = rheos(*words, RHEOS_INDEXER_PORT=nobody.partition(":")[2])

    assert ran.status == 1
    assert ran.err.startswith(f"rheos: the API at http://{nobody} does not answer")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("bootstrap", ["", "kafka", "kafka:port", "kafka:99999", "a:1,,b:2"])
def test_a_broker_address_that_is_none_is_a_wrong_setting(rheos: Any, bootstrap: str) -> None:
    ran = rheos("topics", RHEOS_KAFKA_BOOTSTRAP=bootstrap)

    assert ran.status == 2
    assert "kafka.bootstrap" in ran.err


def test_a_broker_elsewhere_is_never_taken_for_the_private_one(rheos: Any, tmp_path: Path) -> None:
    ran = rheos("up", RHEOS_KAFKA_BOOTSTRAP="kafka.example:9092", RHEOS_DATA_DIR=str(tmp_path))

    assert ran.status == 2
    assert "rheos up --kafka kafka.example:9092" in ran.err


@pytest.mark.parametrize("worker", ["stream", "indexer", "trainer"])
def test_a_workers_busy_port_is_named_with_its_setting(
    rheos: Any, worker: str, busy_port: int
) -> None:
    ran = rheos(worker, **{f"RHEOS_{worker.upper()}_PORT": str(busy_port)})

    assert ran.status == 1
    assert f"port {busy_port} on 127.0.0.1 for the {worker} is busy" in ran.err
    assert f"{worker}.port (RHEOS_{worker.upper()}_PORT)" in ran.err


@pytest.mark.parametrize("owner", ["indexer", "stream", "trainer", "kafka"])
def test_up_names_a_busy_port_before_it_starts_anything(
    rheos: Any, owner: str, busy_port: int, tmp_path: Path
) -> None:
    ports = dict(zip(["indexer", "stream", "trainer", "kafka"], free_ports(4), strict=True))
    ports[owner] = busy_port
    ran = rheos(
        "up",
        RHEOS_DATA_DIR=str(tmp_path / "data"),
        RHEOS_KAFKA_BOOTSTRAP=f"127.0.0.1:{ports['kafka']}",
        RHEOS_INDEXER_PORT=str(ports["indexer"]),
        RHEOS_STREAM_PORT=str(ports["stream"]),
        RHEOS_TRAINER_PORT=str(ports["trainer"]),
    )

    assert ran.status == 1
    assert f"port {busy_port} on 127.0.0.1" in ran.err
    assert "RHEOS_KAFKA_BOOTSTRAP" if owner == "kafka" else f"{owner}.port" in ran.err
    assert not (tmp_path / "data" / "kafka").exists()


def test_port_0_is_always_free() -> None:
    require_free(Port("stream", "127.0.0.1", 0, "stream.port"))


def test_a_host_that_is_not_ours_is_named() -> None:
    with pytest.raises(CommandError, match=r"port 8001 on 192\.0\.2\.1 for the stream"):
        require_free(Port("stream", "192.0.2.1", 8001, "stream.port"))


def test_status_tells_what_is_away_and_ends_with_1(rheos: Any, nobody: str) -> None:
    port = nobody.partition(":")[2]
    variables = {f"RHEOS_{name}_PORT": port for name in ("INDEXER", "STREAM", "TRAINER")}

    ran = rheos("status", "--json", RHEOS_KAFKA_BOOTSTRAP=nobody, **variables)
    told = json.loads(ran.out)

    assert ran.status == 1
    assert told["kafka"]["problem"] == "Connection refused"
    assert [worker["state"] for worker in told["workers"]] == ["away"] * 3
    assert rheos("status").status == 1


def test_a_stranger_on_a_workers_port_is_not_taken_for_the_worker(
    rheos: Any, busy_port: int, nobody: str
) -> None:
    ran = rheos(
        "doctor",
        "--json",
        RHEOS_STREAM_PORT=str(busy_port),
        RHEOS_KAFKA_BOOTSTRAP=nobody,
    )
    (found,) = (
        finding
        for finding in json.loads(ran.out)
        if finding["text"].startswith(f"port {busy_port}")
    )

    assert ran.status == 1
    assert found["state"] == "fail"
    assert "stream.port (RHEOS_STREAM_PORT)" in found["fix"]


@pytest.mark.parametrize("model", demo.PARAMETERS)
def test_the_demo_s_parameters_are_the_model_s(model: str) -> None:
    """And each differs from the default, or it would say nothing."""
    chosen = model_of(model, demo.PARAMETERS[model])
    assert msgspec.to_builtins(chosen) != msgspec.to_builtins(model_of(model, {}))


def test_the_demo_s_parameters_give_way_to_one_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(environment=demo.environment()).trainer.parameters == {}
    monkeypatch.setenv("RHEOS_TRAINER_MODEL", "bpr")
    assert load(environment=demo.environment()).trainer.parameters == demo.PARAMETERS["bpr"]
    monkeypatch.setenv("RHEOS_TRAINER_PARAMETERS", '{"epochs": 7}')
    assert load(environment=demo.environment()).trainer.parameters == {"epochs": 7}


def test_the_demo_has_settings_of_its_own(rheos: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # The user's own data folder and prefix must not become the demo's.
    ran = rheos(
        "status", "--demo", "--json", RHEOS_KAFKA_PREFIX="shop", RHEOS_DATA_DIR="/srv/production"
    )

    assert json.loads(ran.out)["kafka"]["prefix"] == "demo"
    assert os.environ["RHEOS_DATA_DIR"].endswith("/rheos/demo")
    assert os.environ["RHEOS_CLOCK"] == "stream"


def test_only_a_busy_folder_stops_a_second_up(rheos: Any, tmp_path: Path) -> None:
    from rheos.supervisor import folder_lock

    with folder_lock(tmp_path):
        ran = rheos("up", RHEOS_DATA_DIR=str(tmp_path))

    assert ran.status == 1
    assert f"in use by process {os.getpid()}" in ran.err


@pytest.mark.parametrize(
    ("error", "line", "status"),
    [
        (OSError(13, "Permission denied", "/srv"), "[Errno 13] Permission denied: '/srv'", 1),
        (CommandError("what and fix"), None, 1),
        (ValueError("ours to repair"), None, 1),
        (ModuleNotFoundError("No module named 'rheos.nope'", name="rheos.nope"), None, 1),
    ],
)
def test_expected_errors_have_a_line_and_others_none(
    error: Exception, line: str | None, status: int
) -> None:
    assert explained(error) == (line, status)


@pytest.mark.parametrize(("module", "name"), _EXPECTED)
def test_each_expected_error_exists_and_is_told_in_its_own_words(module: str, name: str) -> None:
    kind = getattr(import_module(module), name)
    error = kind.__new__(kind, "cause and fix")
    assert explained(error) == (str(error), _EXPECTED[module, name])


def test_a_part_that_is_not_installed_is_named() -> None:
    line, status = explained(ModuleNotFoundError("No module named 'faust'", name="faust"))

    assert line
    assert line.startswith("faust is not installed here: pip install")
    assert status == 1


def test_an_unexpected_error_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, rheos: Any
) -> None:
    def broken(*_: object, **__: object) -> Mapping[str, Any]:
        raise RuntimeError("ours to repair")

    monkeypatch.setattr("rheos.settings.load", broken)

    with pytest.raises(RuntimeError, match="ours to repair"):
        rheos("status")


def test_ctrl_c_ends_quietly_with_130(monkeypatch: pytest.MonkeyPatch, rheos: Any) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rheos.settings.load", interrupted)

    assert rheos("status") == Ran(130, "", "")


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    program = subprocess.Popen(
        [sys.executable, "-m", "rheos.cli", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert program.stdout is not None
    program.stdout.close()
    _, errors = program.communicate(timeout=120)

    assert errors == b""


def test_every_command_can_be_built_without_the_others() -> None:
    for name in COMMANDS:
        assert build(name) is not None


def test_waiting_for_a_broker_ends_in_time(nobody: str) -> None:
    from rheos.cli.broker import wait_for_topics
    from rheos.settings import from_tree

    began = time.monotonic()
    with pytest.raises(CommandError, match=f"no Kafka at {nobody}"):
        wait_for_topics(from_tree({"kafka": {"bootstrap": nobody}}), timeout_s=0.5)

    assert time.monotonic() - began < 20
