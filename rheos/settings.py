"""Settings: ``rheos.toml`` plus ``RHEOS_SECTION_KEY`` environment, read once, checked, frozen.

Each key's doc line is its ``Meta(description=…)``; docs/settings.md is held against it by a test.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import platformdirs
from msgspec import Meta, Struct, field

from rheos.events import EventRules

Positive = Annotated[int, Meta(gt=0)]
Port = Annotated[int, Meta(ge=0, le=65535)]


class SettingsError(ValueError):
    """A wrong setting: the text names key, value and fix. It stops the start."""


class KafkaSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where Kafka is and how our topics are laid out there."""

    bootstrap: Annotated[str, Meta(description="Broker addresses, host:port, comma separated.")] = (
        "127.0.0.1:9092"
    )
    prefix: Annotated[
        str,
        Meta(
            description="Leads topic names, group ids and transactional ids.",
            pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_-]{0,99}$",
        ),
    ] = "rheos"
    events_partitions: Annotated[
        Positive, Meta(description="Partitions of events and user-state; bounds the workers.")
    ] = 4
    items_partitions: Annotated[
        Positive, Meta(description="Partitions of transitions and item-state.")
    ] = 4
    replication: Annotated[
        Positive, Meta(description="Replication factor of the topics that we create.")
    ] = 1
    retention_days: Annotated[
        Positive,
        Meta(description="Days that events, dead letters and impressions stay, from arrival."),
    ] = 30


class EventSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What counts as an event and how much."""

    weights: Annotated[
        dict[str, float],
        Meta(description="Each known event type and its weight; negative means disinterest."),
    ] = field(
        default_factory=lambda: {
            "view": 0.4,
            "click": 0.6,
            "cart": 0.8,
            "purchase": 1.0,
            "rating": 1.0,
            "dislike": -1.0,
        }
    )
    future_tolerance_s: Annotated[
        int, Meta(ge=0, description="Seconds that an event time may lie past its arrival.")
    ] = 3600
    rating_neutral: Annotated[
        float, Meta(description="The rating that says nothing; below it the weight is negative.")
    ] = 2.5
    rating_best: Annotated[float, Meta(description="The rating with the type's full weight.")] = 5.0


class HistorySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of a user."""

    size: Annotated[
        int, Meta(ge=1, le=2000, description="Interactions kept per user, the newest by time.")
    ] = 100
    session_gap_s: Annotated[
        Positive, Meta(description="Seconds without an event after which a new session begins.")
    ] = 1800


class TransitionSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of items taken near each other."""

    near_window: Annotated[
        int, Meta(ge=1, le=100, description="Steps that the near counts look back, 1/distance.")
    ] = 5
    far_window: Annotated[
        int, Meta(ge=1, le=100, description="Steps that the far counts look back.")
    ] = 20
    far_half_steps: Annotated[
        float, Meta(gt=0, description="Steps after which a far count halves.")
    ] = 8.0
    half_life_days: Annotated[
        float, Meta(gt=0, description="Days after which a neighbour count halves.")
    ] = 180.0
    neighbours: Annotated[
        int,
        Meta(ge=8, le=2000, description="Neighbours kept per item; a table may grow to twice it."),
    ] = 100


class TrendSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How popularity decays."""

    half_lives_hours: Annotated[
        tuple[float, ...],
        Meta(min_length=1, max_length=8, description="Half-lives of popularity, hours each."),
    ] = (6.0, 48.0, 168.0)
    serve_half_life: Annotated[
        int, Meta(ge=0, description="Which of the half-lives (from 0) the trend source uses.")
    ] = 2


class StreamSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The stream worker."""

    host: Annotated[
        str, Meta(description="Address of /metrics, /healthz and /readyz; all: 0.0.0.0.")
    ] = "127.0.0.1"
    port: Annotated[Port, Meta(description="Port of /metrics, /healthz, /readyz; 0: any.")] = 8001
    chunk_records: Annotated[Positive, Meta(description="Records handed on at once.")] = 500
    users_interval_ms: Annotated[
        int, Meta(ge=0, description="Least milliseconds between commits of a user partition.")
    ] = 20
    items_interval_ms: Annotated[
        int, Meta(ge=0, description="Least milliseconds between commits of an item partition.")
    ] = 500
    queue_records: Annotated[
        Positive, Meta(description="Records queued per partition before fetching pauses.")
    ] = 20_000
    queue_bytes: Annotated[
        Positive, Meta(description="Bytes queued per partition before fetching pauses.")
    ] = 32 * 1024 * 1024
    batch_records: Annotated[Positive, Meta(description="Records in one transaction at most.")] = (
        5_000
    )
    session_timeout_s: Annotated[
        int, Meta(ge=6, le=300, description="Seconds until a silent worker loses its partitions.")
    ] = 10
    transaction_timeout_s: Annotated[
        Positive, Meta(description="Seconds until the broker aborts a dead worker's transaction.")
    ] = 10
    accept_loss: Annotated[
        bool,
        Meta(
            description="Open a partition whose input log was cut or replaced; its events are lost."
        ),
    ] = False


class IndexerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The index and its HTTP API."""

    host: Annotated[str, Meta(description="Address that the API listens on.")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="Port of the API, the page and /metrics.")] = 8000
    index: Annotated[
        Literal["auto", "flat", "hnsw"],
        Meta(description="FAISS index; auto is flat up to 100,000 items, then HNSW."),
    ] = "auto"
    max_k: Annotated[Positive, Meta(description="Largest k of a query.")] = 500
    max_concurrent: Annotated[
        Positive, Meta(description="Requests in work before 503 with Retry-After.")
    ] = 256
    impressions: Annotated[
        bool, Meta(description="Write each answer to the impressions topic.")
    ] = True


class RetrievalSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How a query gathers and fuses candidates."""

    vector_depth: Annotated[Positive, Meta(description="Candidates from the user vector.")] = 200
    item_weights_depth: Annotated[
        Positive, Meta(description="Candidates from the generation's item weights.")
    ] = 200
    next_depth: Annotated[Positive, Meta(description="Candidates from the next-lists.")] = 200
    trend_depth: Annotated[Positive, Meta(description="Candidates from the trend.")] = 100
    vector_weight: Annotated[float, Meta(ge=0, description="Share of the user vector.")] = 0.4
    item_weights_weight: Annotated[
        float, Meta(ge=0, description="Share of the generation's item weights, if it has some.")
    ] = 2.0
    near_weight: Annotated[float, Meta(ge=0, description="Share of the near next-lists.")] = 0.0
    far_weight: Annotated[float, Meta(ge=0, description="Share of the far next-lists.")] = 0.6
    far_damping: Annotated[
        float,
        Meta(ge=0, le=1, description="Power of an item's own count that divides its far score."),
    ] = 0.6
    own_weight: Annotated[
        float,
        Meta(ge=0, description="Share of the history's own items, unless they are left out."),
    ] = 0.5
    trend_weight: Annotated[float, Meta(ge=0, description="Share of the trend.")] = 0.01
    leave_out_seen: Annotated[
        bool, Meta(description="Leave items of the user's history out of the answer.")
    ] = True

    def weights(self) -> dict[str, float]:
        """By layer, what ranks without a blend; a ranker's scores stand for the vector's."""
        return {
            "vector": self.vector_weight,
            "ranker": self.vector_weight,
            "item_weights": self.item_weights_weight,
            "near": self.near_weight,
            "far": self.far_weight,
            "own": self.own_weight,
            "trend": self.trend_weight,
        }


class TrainerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """When and what the trainer fits."""

    host: Annotated[
        str, Meta(description="Address of /metrics, /healthz and /readyz; all: 0.0.0.0.")
    ] = "127.0.0.1"
    port: Annotated[Port, Meta(description="Port of /metrics, /healthz, /readyz; 0: any.")] = 8002
    model: Annotated[str, Meta(description="Model to fit; `rheos models` lists them.")] = "als"
    parameters: Annotated[
        dict[str, float | int | str | bool],
        Meta(description="The model's own parameters; see docs/models.md."),
    ] = field(default_factory=dict)
    item_weights: Annotated[
        Literal["none", "ease"],
        Meta(description="Model whose item weights join the vectors of one that has none."),
    ] = "none"
    item_weights_parameters: Annotated[
        dict[str, float | int | str | bool],
        Meta(description="That model's own parameters."),
    ] = field(default_factory=dict)
    blend: Annotated[
        Literal["none", "linear", "trees"],
        Meta(description="What is learned to order candidates; none: weights of [retrieval]."),
    ] = "none"
    every_minutes: Annotated[
        float, Meta(gt=0, description="Minutes between fits, if there are new events.")
    ] = 60.0
    new_events: Annotated[
        Positive, Meta(description="New events after which a fit starts before its time.")
    ] = 500_000
    min_events: Annotated[
        Positive, Meta(description="Interactions needed before the first fit.")
    ] = 1_000
    max_interactions: Annotated[
        int, Meta(ge=0, description="Newest interactions that a fit reads; 0: all archived.")
    ] = 0
    gate_min_events: Annotated[
        Positive, Meta(description="Newer events needed to judge a model; fewer: wait.")
    ] = 500
    gate_tolerance: Annotated[
        float,
        Meta(ge=0, lt=1, description="Share of NDCG that a new model may surely fall short by."),
    ] = 0.0
    gate_confidence: Annotated[
        float,
        Meta(ge=0.5, lt=1, description="How sure the gate must be that a model is worse than so."),
    ] = 0.95
    drift_minutes: Annotated[
        float, Meta(ge=0, description="Minutes between looks for drift; 0: none.")
    ] = 20.0
    drift_margin: Annotated[
        float,
        Meta(ge=0, lt=1, description="Share of its NDCG that a model may lose before a new fit."),
    ] = 0.2
    auto_rollback: Annotated[
        bool, Meta(description="Roll back where too few answers of a generation are clicked.")
    ] = True
    live_minutes: Annotated[
        float, Meta(gt=0, description="Minutes in which an answer may be clicked.")
    ] = 30.0
    live_min_answers: Annotated[
        Positive, Meta(description="Answers of each generation needed to compare their clicks.")
    ] = 1_000
    live_margin: Annotated[
        float,
        Meta(ge=0, lt=1, description="Share of its predecessor's click rate that one may lack."),
    ] = 0.1
    live_confidence: Annotated[
        float, Meta(ge=0.5, lt=1, description="How sure a roll back must be that clicks fell so.")
    ] = 0.99
    warm_start: Annotated[
        bool, Meta(description="Begin a fit where the serving generation's ended, if it can.")
    ] = True
    keep: Annotated[
        int, Meta(ge=2, description="Promoted generations kept in the snapshot store.")
    ] = 5
    seed: Annotated[int, Meta(ge=0, description="Seed of every random draw.")] = 0
    threads: Annotated[int, Meta(ge=0, description="CPU threads of a fit; 0: all.")] = 0
    device: Annotated[
        str, Meta(description="Where torch models are fitted: cpu, cuda; auto: a GPU if there is.")
    ] = "auto"


class FeatureDeclaration(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A feature of items or users: where it stands in their records, and what it is."""

    name: Annotated[
        str,
        Meta(
            description="Names the feature; without a path it is its place, too.",
            pattern=r"^[^\x00-\x1f]{1,100}$",
        ),
    ]
    kind: Annotated[
        Literal["numeric", "categorical", "bag", "text"],
        Meta(description="A number, one of several values, a list of such, or free text."),
    ]
    path: Annotated[
        str, Meta(description="title, category or price of an item, else attributes.NAME.")
    ] = ""
    scale: Annotated[
        Literal["quantiles", "standard"],
        Meta(description="numeric: by sixteen equal shares, or clipped and standardised."),
    ] = "quantiles"
    vocabulary: Annotated[
        int,
        Meta(ge=0, le=1_000_000, description="categorical, bag: values told apart at most."),
    ] = 1000
    buckets: Annotated[
        int,
        Meta(ge=1, le=1_000_000, description="Hash buckets: of rarer values, of a text's n-grams."),
    ] = 512
    vectors: Annotated[
        Literal["ngrams", "wordllama"],
        Meta(description="text: hashed n-grams of characters, or a language model's vectors."),
    ] = "ngrams"

    def place(self, fields: tuple[str, ...]) -> str:
        """Where it stands in a record that has ``fields`` of its own: path, or derived."""
        return self.path or (self.name if self.name in fields else f"attributes.{self.name}")


ITEM_FIELDS = ("title", "category", "price")
USER_FIELDS: tuple[str, ...] = ()
"""What features may read of an item's and a user's record besides its attributes."""


class FeatureSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What models may read of the records of items and users."""

    items: Annotated[
        tuple[FeatureDeclaration, ...],
        Meta(max_length=64, description="Features of items, from their catalogue records."),
    ] = (
        FeatureDeclaration(name="category", kind="categorical"),
        FeatureDeclaration(name="price", kind="numeric"),
        FeatureDeclaration(name="title", kind="text", buckets=4096),
    )
    users: Annotated[
        tuple[FeatureDeclaration, ...],
        Meta(max_length=64, description="Features of users, from their attributes."),
    ] = ()


class SourceSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """A topic of yours with foreign shapes. Paths are dotted (``order.customer.id``)."""

    name: Annotated[
        str,
        Meta(
            description="Names the source in metrics and its checkpoint topic.",
            pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_-]{0,99}$",
        ),
    ]
    topic: Annotated[str, Meta(description="Your topic's full name.", min_length=1)]
    user: Annotated[str, Meta(description="Path to the user id.", min_length=1)]
    item: Annotated[str, Meta(description="Path to the item id.", min_length=1)]
    time: Annotated[str, Meta(description="Path to the event time.", min_length=1)]
    type: Annotated[str, Meta(description="Path to the type; empty with a fixed type.")] = ""
    fixed_type: Annotated[str, Meta(description="The type of all events of this topic.")] = ""
    types: Annotated[
        dict[str, str], Meta(description="Your type names and ours, e.g. buy = 'purchase'.")
    ] = field(default_factory=dict)
    time_unit: Annotated[
        Literal["s", "ms", "iso"], Meta(description="Seconds, milliseconds or ISO 8601 text.")
    ] = "ms"
    value: Annotated[str, Meta(description="Path to quantity, price or rating.")] = ""
    event_id: Annotated[str, Meta(description="Path to the event's own id.")] = ""
    session_id: Annotated[str, Meta(description="Path to the session id.")] = ""


def _default_data_dir() -> str:
    return str(platformdirs.user_data_path("rheos") / "default")


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """All settings of all workers; each reads its own section and the shared ones."""

    data_dir: Annotated[
        str, Meta(description="Folder for archive, snapshots and the local broker.")
    ] = field(default_factory=_default_data_dir)
    store: Annotated[
        str, Meta(description="Folder of the snapshot store; empty: snapshots in data_dir.")
    ] = ""
    clock: Annotated[
        Literal["wall", "stream"],
        Meta(description="'Now' of a query: wall time, or the newest accepted event time."),
    ] = "wall"
    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    events: EventSettings = field(default_factory=EventSettings)
    history: HistorySettings = field(default_factory=HistorySettings)
    transitions: TransitionSettings = field(default_factory=TransitionSettings)
    trend: TrendSettings = field(default_factory=TrendSettings)
    stream: StreamSettings = field(default_factory=StreamSettings)
    indexer: IndexerSettings = field(default_factory=IndexerSettings)
    retrieval: RetrievalSettings = field(default_factory=RetrievalSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    features: FeatureSettings = field(default_factory=FeatureSettings)
    sources: Annotated[
        tuple[SourceSettings, ...],
        Meta(description="Topics with foreign shapes, turned into events by the intake agent."),
    ] = ()

    def event_rules(self) -> EventRules:
        return EventRules(
            self.events.weights,
            self.events.future_tolerance_s * 1000,
            self.events.rating_neutral,
            self.events.rating_best,
        )

    @property
    def store_dir(self) -> Path:
        return Path(self.store) if self.store else Path(self.data_dir) / "snapshots"

    @property
    def archive_dir(self) -> Path:
        return Path(self.data_dir) / "archive"


def load(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of ``path`` (default: ``RHEOS_CONFIG`` or ./rheos.toml, if it is there), then
    of ``RHEOS_SECTION_KEY`` variables (top-level keys: ``RHEOS_KEY``), which win.

    Raises SettingsError, whose text names the key, the value and what is accepted.
    """
    environment = os.environ if environment is None else environment
    named = path or (Path(environment["RHEOS_CONFIG"]) if "RHEOS_CONFIG" in environment else None)
    tree: dict[str, Any] = {}
    file = named or Path("rheos.toml")
    if named or file.is_file():
        try:
            tree = tomllib.loads(file.read_text("utf-8"))
        except OSError as error:
            raise SettingsError(f"cannot read settings {file}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"settings {file} are no valid TOML: {error}") from None
    for name, text in sorted(environment.items()):
        if name.startswith("RHEOS_") and name != "RHEOS_CONFIG":
            _place(tree, name, text)
    return from_tree(tree)


def from_tree(tree: Mapping[str, Any]) -> Settings:
    """Settings from a nested mapping, as TOML gives it. Raises SettingsError."""
    try:
        settings = msgspec.convert(tree, Settings)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(str(error), tree)) from None
    _check_together(settings)
    return settings


def keys() -> Iterator[tuple[str, str, Any]]:
    """Every key as (dotted name, doc line, default), in order.

    The keys of a list's tables are as ``sources[].key``; users' features have those of items.
    """
    for top in msgspec.structs.fields(Settings):
        section = _section_class(top.name)
        if section is None:
            yield top.name, _doc_line(Settings, top.name), _default(top)
        else:
            for inner in msgspec.structs.fields(section):
                yield (
                    f"{top.name}.{inner.name}",
                    _doc_line(section, inner.name),
                    _default(inner),
                )
    listed: dict[str, type[Struct]] = {
        "features.items": FeatureDeclaration,
        "sources": SourceSettings,
    }
    for name, owner in listed.items():
        for inner in msgspec.structs.fields(owner):
            yield f"{name}[].{inner.name}", _doc_line(owner, inner.name), _default(inner)


def _section_class(name: str) -> type[Struct] | None:
    hint = Settings.__annotations__[name]
    return hint if isinstance(hint, type) and issubclass(hint, Struct) else None


def _doc_line(owner: type[Struct], name: str) -> str:
    for extra in owner.__annotations__[name].__metadata__:
        if isinstance(extra, Meta) and extra.description:
            return extra.description
    raise TypeError(f"{owner.__name__}.{name} has no doc line")


def _default(info: msgspec.structs.FieldInfo) -> Any:
    if info.default is not msgspec.NODEFAULT:
        return info.default
    if info.default_factory is not msgspec.NODEFAULT:
        return info.default_factory()
    return msgspec.NODEFAULT


def _place(tree: dict[str, Any], name: str, text: str) -> None:
    """Puts an environment variable where it belongs in the tree, cast to its key's type."""
    words = name.removeprefix("RHEOS_").lower()
    top = {info.name for info in msgspec.structs.fields(Settings)}
    if words in top and _section_class(words) is None:
        owner: type[Struct] = Settings
        target, key = tree, words
    else:
        section, _, key = words.partition("_")
        inner = _section_class(section) if section in top else None
        if inner is None or key not in {info.name for info in msgspec.structs.fields(inner)}:
            raise SettingsError(
                f"{name}={text!r} names no setting; see docs/settings.md for those that exist"
            )
        owner = inner
        target = tree.setdefault(section, {})
    hint = {info.name: info.type for info in msgspec.structs.fields(owner)}[key]
    try:
        value: Any = msgspec.convert(text, hint, strict=False)
    except msgspec.ValidationError as first:
        try:
            value = msgspec.json.decode(text, type=hint)
        except msgspec.DecodeError:
            raise SettingsError(f"{name}={text!r}: {first}") from None
    target[key] = msgspec.to_builtins(value)


def _explain(message: str, tree: Mapping[str, Any]) -> str:
    """msgspec's message with the dotted key first, its value, and its doc line if it has one."""
    text, _, path = message.partition(" - at `$")
    dotted = path.rstrip("`").removeprefix(".")
    if "unknown field" in text:
        unknown = text.split("`")[1]
        dotted = f"{dotted}.{unknown}" if dotted else unknown
        return f"unknown setting {dotted}; see docs/settings.md for those that exist"
    value: Any = tree
    for word in dotted.replace("[", ".[").split("."):
        try:
            value = value[int(word.strip("[]"))] if word.startswith("[") else value[word]
        except (KeyError, IndexError, TypeError, ValueError):
            value = None
            break
    doc = next((line for name, line, _ in keys() if name == dotted), "")
    shown = "" if value is None else f" = {value!r}"
    return f"setting {dotted}{shown}: {text}" + (f". {doc}" if doc else "")


def _check_together(settings: Settings) -> None:
    """What the type of a single key cannot say."""
    trend, events = settings.trend, settings.events
    if trend.serve_half_life >= len(trend.half_lives_hours):
        raise SettingsError(
            f"setting trend.serve_half_life = {trend.serve_half_life}: there are"
            f" {len(trend.half_lives_hours)} half-lives in trend.half_lives_hours, counted from 0"
        )
    if min(trend.half_lives_hours) <= 0:
        raise SettingsError(f"setting trend.half_lives_hours = {trend.half_lives_hours}: above 0")
    if not events.weights:
        raise SettingsError("setting events.weights = {}: at least one event type is needed")
    for kind, weight in events.weights.items():
        if not kind or not -100 <= weight <= 100:
            raise SettingsError(f"setting events.weights.{kind} = {weight}: from -100 to 100")
    if "forget" in events.weights:
        raise SettingsError("setting events.weights.forget: the type 'forget' is reserved")
    if events.rating_best <= events.rating_neutral:
        raise SettingsError(
            f"setting events.rating_best = {events.rating_best}: above events.rating_neutral"
        )
    _check_features("items", settings.features.items, ITEM_FIELDS)
    _check_features("users", settings.features.users, USER_FIELDS)
    names: set[str] = set()
    for source in settings.sources:
        if bool(source.type) == bool(source.fixed_type):
            raise SettingsError(
                f"sources.{source.name}: give either type (a path) or fixed_type, not both or none"
            )
        if source.fixed_type and source.fixed_type not in events.weights:
            raise SettingsError(
                f"sources.{source.name}.fixed_type = {source.fixed_type!r}: not in events.weights"
            )
        if source.name in names:
            raise SettingsError(f"sources.{source.name}: the name stands twice")
        names.add(source.name)


def _check_features(
    owner: str, features: tuple[FeatureDeclaration, ...], fields: tuple[str, ...]
) -> None:
    names: set[str] = set()
    for number, feature in enumerate(features):
        key = f"setting features.{owner}[{number}]"
        place = feature.place(fields)
        if place not in fields and not place.removeprefix("attributes."):
            raise SettingsError(f"{key}.path = {place!r}: an attribute has a name")
        if place not in fields and not place.startswith("attributes."):
            known = ", ".join((*fields, "attributes.NAME"))
            raise SettingsError(f"{key}.path = {place!r}: known are {known}")
        if feature.name in names:
            raise SettingsError(f"{key}.name = {feature.name!r}: the name stands twice")
        names.add(feature.name)
