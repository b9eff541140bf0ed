"""Settings: where they come from, and what is said of wrong ones."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheos.settings import ITEM_FIELDS, Settings, SettingsError, from_tree, keys, load


def written(folder: Path, text: str) -> Path:
    path = folder / "rheos.toml"
    path.write_text(text)
    return path


def refusal(tree: dict[str, Any]) -> str:
    with pytest.raises(SettingsError) as refused:
        from_tree(tree)
    return str(refused.value)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without a rheos.toml."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_file_and_environment_the_defaults_hold(elsewhere: Path) -> None:
    assert load(environment={}) == Settings()


def test_a_file_in_the_working_directory_is_read(elsewhere: Path) -> None:
    written(elsewhere, '[kafka]\nprefix = "shop"\n')

    assert load(environment={}).kafka.prefix == "shop"


def test_a_named_file_comes_before_rheos_config_and_the_working_directory(elsewhere: Path) -> None:
    written(elsewhere, '[kafka]\nprefix = "here"\n')
    (elsewhere / "configured.toml").write_text('[kafka]\nprefix = "configured"\n')
    (elsewhere / "named.toml").write_text('[kafka]\nprefix = "named"\n')
    environment = {"RHEOS_CONFIG": str(elsewhere / "configured.toml")}

    assert load(environment=environment).kafka.prefix == "configured"
    assert load(elsewhere / "named.toml", environment).kafka.prefix == "named"


def test_the_environment_wins_over_the_file(elsewhere: Path) -> None:
    written(elsewhere, "[stream]\nport = 9001\nchunk_records = 7\n")

    stream = load(environment={"RHEOS_STREAM_PORT": "9002"}).stream

    assert (stream.port, stream.chunk_records) == (9002, 7)


@pytest.mark.parametrize(
    ("name", "text", "dotted", "value"),
    [
        ("RHEOS_DATA_DIR", "/data", "data_dir", "/data"),
        ("RHEOS_CLOCK", "stream", "clock", "stream"),
        ("RHEOS_KAFKA_EVENTS_PARTITIONS", "12", "kafka.events_partitions", 12),
        ("RHEOS_RETRIEVAL_VECTOR_WEIGHT", "0.25", "retrieval.vector_weight", 0.25),
        ("RHEOS_INDEXER_IMPRESSIONS", "false", "indexer.impressions", False),
        ("RHEOS_TREND_HALF_LIVES_HOURS", "[1, 2, 24]", "trend.half_lives_hours", (1.0, 2.0, 24.0)),
        ("RHEOS_EVENTS_WEIGHTS", '{"view": 0.5}', "events.weights", {"view": 0.5}),
        ("RHEOS_TRAINER_PARAMETERS", '{"factors": 32}', "trainer.parameters", {"factors": 32}),
    ],
)
def test_a_variable_is_cast_to_its_keys_type(
    elsewhere: Path, name: str, text: str, dotted: str, value: object
) -> None:
    found: Any = load(environment={name: text})
    for word in dotted.split("."):
        found = getattr(found, word)

    assert found == value
    assert type(found) is type(value)


def test_every_key_can_be_set_by_its_variable_to_its_default(elsewhere: Path) -> None:
    for dotted, _, default in keys():
        if default is msgspec.NODEFAULT or dotted == "sources" or "[]" in dotted:
            continue
        name = "RHEOS_" + dotted.upper().replace(".", "_")
        text = default if isinstance(default, str) else msgspec.json.encode(default).decode()

        assert load(environment={name: text}) == Settings(), name


def test_variables_of_other_programs_are_left_alone(elsewhere: Path) -> None:
    assert load(environment={"RHEOSTAT": "1", "PATH": "/bin", "rheos_clock": "x"}) == Settings()


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"RHEOS_KAFKA_BOOTSTRP": "x"}, ["RHEOS_KAFKA_BOOTSTRP='x'", "docs/settings.md"]),
        ({"RHEOS_KAFKA": "x"}, ["RHEOS_KAFKA='x'"]),
        ({"RHEOS_": ""}, ["RHEOS_=''"]),
        ({"RHEOS_STREAM_PORT": "eighty"}, ["RHEOS_STREAM_PORT='eighty'", "int"]),
        ({"RHEOS_STREAM_PORT": "70000"}, ["RHEOS_STREAM_PORT='70000'", "65535"]),
        ({"RHEOS_INDEXER_IMPRESSIONS": "perhaps"}, ["RHEOS_INDEXER_IMPRESSIONS='perhaps'"]),
        ({"RHEOS_CLOCK": "sundial"}, ["RHEOS_CLOCK='sundial'"]),
        ({"RHEOS_EVENTS_WEIGHTS": "{"}, ["RHEOS_EVENTS_WEIGHTS='{'"]),
        ({"RHEOS_KAFKA_PREFIX": "a b"}, ["RHEOS_KAFKA_PREFIX='a b'"]),
    ],
)
def test_a_wrong_variable_is_named_with_its_value(
    elsewhere: Path, environment: dict[str, str], named: list[str]
) -> None:
    with pytest.raises(SettingsError) as refused:
        load(environment=environment)

    assert [text for text in named if text not in str(refused.value)] == []
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        ({"kafak": {}}, ["unknown setting kafak"]),
        ({"kafka": {"bootstrp": "x"}}, ["unknown setting kafka.bootstrp"]),
        ({"kafka": 5}, ["kafka = 5"]),
        ({"stream": {"port": "8001"}}, ["stream.port = '8001'"]),
        ({"stream": {"port": -1}}, ["stream.port = -1"]),
        ({"stream": {"port": True}}, ["stream.port = True"]),
        ({"stream": {"chunk_records": 0}}, ["stream.chunk_records = 0", "Records handed on"]),
        ({"history": {"size": 10**9}}, ["history.size = 1000000000"]),
        ({"clock": "moon"}, ["clock = 'moon'"]),
        ({"trend": {"half_lives_hours": []}}, ["trend.half_lives_hours = []"]),
        ({"trend": {"half_lives_hours": [0.0]}}, ["trend.half_lives_hours"]),
        ({"trend": {"serve_half_life": 3}}, ["trend.serve_half_life = 3"]),
        ({"events": {"weights": {}}}, ["events.weights"]),
        ({"events": {"weights": {"forget": 1.0}}}, ["events.weights.forget", "reserved"]),
        ({"events": {"weights": {"view": float("nan")}}}, ["events.weights.view"]),
        ({"events": {"rating_best": 1.0}}, ["events.rating_best = 1.0"]),
        ({"sources": {}}, ["sources"]),
        ({"sources": [{"name": "a"}]}, ["sources[0]"]),
    ],
)
def test_a_wrong_key_is_named_with_its_value(tree: dict[str, Any], named: list[str]) -> None:
    text = refusal(tree)

    assert [word for word in named if word not in text] == []
    assert "\n" not in text


SOURCE = {"name": "clicks", "topic": "clicks", "user": "u", "item": "i", "time": "t"}


@pytest.mark.parametrize(
    ("sources", "named"),
    [
        ([SOURCE], "sources.clicks"),
        ([{**SOURCE, "type": "t", "fixed_type": "view"}], "sources.clicks"),
        ([{**SOURCE, "fixed_type": "glance"}], "sources.clicks.fixed_type = 'glance'"),
        ([{**SOURCE, "type": "t"}, {**SOURCE, "type": "t"}], "sources.clicks: the name stands"),
        ([{**SOURCE, "type": "t", "name": "a.b/c"}], "sources[0].name = 'a.b/c'"),
        ([{**SOURCE, "type": "t", "time_unit": "days"}], "sources[0].time_unit = 'days'"),
    ],
)
def test_a_wrong_source_is_named(sources: list[dict[str, Any]], named: str) -> None:
    assert named in refusal({"sources": sources})


@pytest.mark.parametrize(
    ("features", "named"),
    [
        ({"items": [{"name": "brand", "kind": "colour"}]}, "items[0].kind = 'colour'"),
        ({"items": [{"name": "brand", "kind": "text", "path": "brand"}]}, "[0].path = 'brand'"),
        ({"items": [{"name": "a", "kind": "text", "path": "attributes."}]}, "'attributes.'"),
        ({"items": [{"name": "a", "kind": "bag", "vocabulary": -1}]}, "items[0].vocabulary = -1"),
        ({"items": [{"name": "a", "kind": "bag", "size": 1}]}, "features.items[0].size"),
        ({"users": [{"name": "title", "kind": "text", "path": "title"}]}, "known are attributes"),
        ({"users": [{"name": "a", "kind": "bag"}] * 2}, "features.users[1].name = 'a'"),
        ({"users": [{"name": "", "kind": "bag"}]}, "features.users[0].name = ''"),
    ],
)
def test_a_wrong_feature_is_named(features: dict[str, Any], named: str) -> None:
    assert named in refusal({"features": features})


def test_a_feature_stands_at_its_path_or_where_its_name_says() -> None:
    declared = from_tree(
        {
            "features": {
                "items": [
                    {"name": "title", "kind": "text"},
                    {"name": "brand", "kind": "categorical"},
                    {"name": "cost", "kind": "numeric", "path": "price"},
                ]
            }
        }
    ).features.items
    assert [feature.place(ITEM_FIELDS) for feature in declared] == [
        "title",
        "attributes.brand",
        "price",
    ]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"[kafka\nprefix = 1", "no valid TOML"),
        (b"clock = 'wall'\nclock = 'stream'\n", "no valid TOML"),
        (b"\xff\xfe", "no valid TOML"),
        (b"\x00", "no valid TOML"),
    ],
)
def test_a_broken_file_is_named(elsewhere: Path, content: bytes, named: str) -> None:
    path = elsewhere / "broken.toml"
    path.write_bytes(content)

    with pytest.raises(SettingsError, match=named) as refused:
        load(path, {})
    assert str(path) in str(refused.value)


def test_a_named_file_that_is_absent_or_a_folder_is_named(elsewhere: Path) -> None:
    for path in (elsewhere / "absent.toml", elsewhere):
        with pytest.raises(SettingsError, match="cannot read settings") as refused:
            load(path, {})
        assert str(path) in str(refused.value)


def test_settings_are_frozen_to_the_last_section() -> None:
    settings = Settings()

    with pytest.raises(AttributeError):
        settings.clock = "stream"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        settings.kafka.prefix = "other"  # type: ignore[misc]


def test_loading_leaves_the_environment_alone(elsewhere: Path) -> None:
    environment = {"RHEOS_STREAM_PORT": "9002", "RHEOS_EVENTS_WEIGHTS": '{"view": 1}'}
    before = copy.deepcopy(environment)

    load(environment=environment)

    assert environment == before


def test_settings_survive_a_journey_as_json() -> None:
    settings = from_tree({"sources": [{**SOURCE, "type": "kind"}], "kafka": {"prefix": "shop"}})

    assert msgspec.json.decode(msgspec.json.encode(settings), type=Settings) == settings


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
KEYS = st.sampled_from(sorted({word for dotted, _, _ in keys() for word in dotted.split(".")}))


def said_of(read: Callable[[], object]) -> str:
    """What is wrong, or "fine"; anything but SettingsError escapes."""
    try:
        read()
    except SettingsError as error:
        return str(error)
    return "fine"


@given(st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=3) | VALUES, max_size=3))
def test_any_tree_gives_settings_or_one_line(tree: dict[str, Any]) -> None:
    said = said_of(lambda: from_tree(tree))

    assert said
    assert "\n" not in said


@given(st.sampled_from([dotted for dotted, _, _ in keys()]), st.text(max_size=20))
def test_any_text_in_a_variable_gives_settings_or_a_refusal(dotted: str, text: str) -> None:
    name = "RHEOS_" + dotted.upper().replace(".", "_").replace("[]", "")

    assert said_of(lambda: load(Path("/dev/null"), {name: text}))
