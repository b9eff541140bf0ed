"""The deployment files, parsed and held against the code. No container engine runs here."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from rheos import settings as settings_file
from rheos.cli import COMMANDS
from rheos.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
WORKERS = ("stream", "indexer", "trainer")
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def stages() -> dict[str, list[tuple[str, str]]]:
    """Each stage of the Dockerfile with its instructions."""
    text = re.sub(r"\\\n\s*", "", (DEPLOY / "Dockerfile").read_text())
    stages: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            _, name = rest.split(" AS ")
        stages.setdefault(name, []).append((instruction, rest))
    return stages


def environment(instructions: list[tuple[str, str]]) -> dict[str, str]:
    pairs = [word for what, rest in instructions if what == "ENV" for word in shlex.split(rest)]
    return dict(pair.split("=", 1) for pair in pairs)


def settings_of(worker: str, compose: dict[str, Any], stages: Any) -> Settings:
    """What the worker reads in its container."""
    variables = {
        **environment(stages["base"]),
        **environment(stages[worker]),
        **compose["services"][worker]["environment"],
    }
    return settings_file.load(
        environment={name: text for name, text in variables.items() if name.startswith("RHEOS_")}
    )


@pytest.mark.parametrize("worker", WORKERS)
def test_every_variable_of_a_container_is_a_setting(
    worker: str, compose: dict[str, Any], stages: Any
) -> None:
    settings = settings_of(worker, compose, stages)

    assert settings.kafka.bootstrap == "kafka:19092"
    assert getattr(settings, worker).host == "0.0.0.0", "nobody outside of the container reaches it"


@pytest.mark.parametrize("worker", WORKERS)
def test_every_worker_has_a_target_that_runs_its_command(
    worker: str, compose: dict[str, Any], stages: Any
) -> None:
    build = compose["services"][worker]["build"]
    instructions = dict(stages[worker])

    assert build["target"] == worker
    assert (DEPLOY / build["context"] / build["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    assert instructions["CMD"] == f'["rheos", "{worker}"]'
    assert worker in COMMANDS
    assert instructions["USER"] == "rheos"


@pytest.mark.parametrize("worker", WORKERS)
def test_a_target_installs_extras_that_exist(
    worker: str, compose: dict[str, Any], stages: Any
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (installed,) = (rest for what, rest in stages[worker] if what == "RUN")
    extras = re.search(r"\.\[(.*)\]", installed)
    assert extras
    more = "${EXTRAS:+,$EXTRAS}"  # a list of one's own, with its comma, where there is one
    assert more in extras.group(1)
    assert ("ARG", "EXTRAS=") in stages[worker]
    assert compose["services"][worker]["build"]["args"] == {"EXTRAS": "${EXTRAS:-}"}
    named = extras.group(1).replace("${FAISS}", "cpu").replace(more, ",text").split(",")

    assert worker in named
    assert set(named) <= set(project["optional-dependencies"])


@pytest.mark.parametrize("worker", WORKERS)
def test_ports_agree_between_settings_image_and_prometheus(
    worker: str, compose: dict[str, Any], stages: Any
) -> None:
    port = getattr(settings_of(worker, compose, stages), worker).port
    scrapes = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    (scrape,) = (scrape for scrape in scrapes if scrape["job_name"] == worker)
    if "dns_sd_configs" in scrape:
        (found,) = scrape["dns_sd_configs"]
        assert (found["names"], found["port"]) == ([worker], port)
    else:
        assert scrape["static_configs"] == [{"targets": [f"{worker}:{port}"]}]
    instructions = dict(stages[worker])

    assert instructions["EXPOSE"] == str(port)
    assert f"127.0.0.1:{port}/healthz" in instructions["HEALTHCHECK"]
    for published in compose["services"][worker].get("ports", []):
        assert published == f"127.0.0.1:{port}:{port}"


def test_what_the_image_copies_is_there_and_not_ignored(stages: Any) -> None:
    allowed = {
        line.removeprefix("!")
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source for what, rest in stages["base"] if what == "COPY" for source in rest.split()[:-1]
    }

    assert copied == allowed
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_services_use_volumes_and_files_that_exist(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            known = source in compose["volumes"] or (DEPLOY / source).is_file()
            assert known, f"{name} mounts {source}"
        for needed in service.get("depends_on", {}):
            assert "healthcheck" in compose["services"][needed]


def test_workers_share_the_snapshots_and_only_the_trainer_writes_them(
    compose: dict[str, Any], stages: Any
) -> None:
    for worker in WORKERS:
        store = settings_of(worker, compose, stages).store_dir
        (mount,) = (
            volume
            for volume in compose["services"][worker]["volumes"]
            if volume.startswith("snapshots:")
        )
        suffix = "" if worker == "trainer" else ":ro"
        assert mount == f"snapshots:{store}{suffix}"


def test_the_broker_is_reached_where_the_workers_look(compose: dict[str, Any]) -> None:
    kafka = compose["services"]["kafka"]
    variables = kafka["environment"]
    listeners = {listener.split("://")[0] for listener in variables["KAFKA_LISTENERS"].split(",")}

    assert kafka["image"].startswith("apache/kafka:")
    assert "PLAINTEXT://kafka:19092" in variables["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert variables["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert listeners == {"PLAINTEXT", "HOST", "CONTROLLER"}
    assert f"kafka:{variables['KAFKA_CONTROLLER_QUORUM_VOTERS'].rpartition(':')[2]}" == "kafka:9093"


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_systemd_unit_runs_a_command_with_real_settings(unit: Path) -> None:
    lines = [line for line in unit.read_text().splitlines() if "=" in line and line[0] != "#"]
    pairs = [line.split("=", 1) for line in lines]
    variables = dict(value.split("=", 1) for key, value in pairs if key == "Environment")
    variables = {name: value.replace("%i", "1") for name, value in variables.items()}
    del variables["RHEOS_CONFIG"]  # the site's own file
    (command,) = (value for key, value in pairs if key == "ExecStart")

    settings_file.load(environment=variables)
    assert command.split()[-1] in WORKERS
    assert unit.name.startswith(f"rheos-{command.split()[-1]}")


def test_nine_stream_workers_of_a_machine_have_ports_of_their_own() -> None:
    text = (DEPLOY / "systemd" / "rheos-stream@.service").read_text()
    (port,) = re.findall(r"^Environment=RHEOS_STREAM_PORT=(.*)$", text, re.MULTILINE)
    ports = [
        settings_file.load(
            environment={"RHEOS_STREAM_PORT": port.replace("%i", str(number))}
        ).stream.port
        for number in range(1, 10)
    ]
    assert ports == list(range(8101, 8110))
