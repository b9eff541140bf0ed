"""What is told of a generation beside its numbers: a report, kept in its snapshot.

``report.json`` is a Report, ``report.html`` the same for people (``report_page``). The figures are
of the candidate, fitted without the newest events, on the events that the gate judged it by; the
generation that carries the report was then fitted again on everything.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from rheos.generation import Generation
from rheos.settings import Settings
from rheos.snapshot import Manifest
from rheos.state import Float32s, Float64s, History, Int64s
from trainer import gate
from trainer.data_set import DataSet
from trainer.evaluation import bands, beyond_accuracy, metrics, pointwise, served
from trainer.evaluation.bands import Band
from trainer.evaluation.beyond_accuracy import BeyondAccuracy
from trainer.evaluation.pointwise import Pointwise
from trainer.evaluation.served import Case, Judged
from trainer.gate import Trial, Verdict

JSON, PAGE = "report.json", "report.html"
"""The files in a snapshot."""

FORMAT = 1
CURVE_POINTS = 51
MOST_TIME_BINS = 60
TOP_ITEMS = 10

Role = Literal["candidate", "serving", "popularity"]


class Data(msgspec.Struct, frozen=True):
    """What was fitted on. ``interactions_per_bin`` divides the time from ``first_ms`` to
    ``last_ms`` evenly; ``judged_from_ms`` is the time of the earliest event that the gate judged.
    ``popularity_curve`` as ``Row.exposure_curve``, of the interactions.
    """

    interactions: int
    users: int
    items: int
    density: float
    first_ms: int
    last_ms: int
    judged_from_ms: int
    window: dict[str, tuple[int, int]]
    interactions_per_bin: list[int]
    popularity_curve: list[float]


class TopItem(msgspec.Struct, frozen=True):
    """An item, its title if the catalogue knows one, and the share of lists that hold it."""

    item_id: str
    title: str
    share: float


class Row(msgspec.Struct, frozen=True):
    """One recommender on the gate's events, each a case with one item to find.

    ``by_activity`` and ``by_item`` are by the interactions of the user and of the item in what the
    candidate was fitted on. ``exposure_curve``: the share of all recommendations that goes to the
    least recommended items, for shares of the catalogue from 0 to 1 (a Lorenz curve).
    """

    role: Role
    name: str
    all: Band
    by_activity: list[Band]
    by_item: list[Band]
    beyond_accuracy: BeyondAccuracy
    pointwise: Pointwise
    exposure_curve: list[float]
    top_items: list[TopItem]


class Ruling(msgspec.Struct, frozen=True):
    """The gate's verdict, as its reason says it, and the difference of NDCG where there is one."""

    passed: bool
    reason: str
    difference: dict[str, float]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that is told. ``k`` is how many recommendations count, ``metrics`` the manifest's, a
    blend's among them; ``parts`` are the kinds of what serves, by name (encoder, ranker, item
    weights, content, blend); ``curve`` is what the fit measured as it went on.
    """

    format: int = FORMAT
    number: int
    created_ms: int
    model: str
    parameters: dict[str, Any]
    parts: dict[str, str]
    start: str
    privacy: dict[str, Any] | None
    software: dict[str, str]
    k: int
    data: Data
    gate: Ruling
    metrics: dict[str, Any]
    rows: list[Row]
    curve: dict[str, list[float]]


def make(
    manifest: Manifest,
    candidate: Generation,
    serving: Generation | None,
    data: DataSet,
    trial: Trial,
    verdict: Verdict,
    settings: Settings,
    *,
    curve: Mapping[str, Sequence[float]],
    logits: bool,
) -> Report:
    """The report of the generation with ``manifest``, whose ``candidate`` passed the gate.

    ``curve`` is of its fit; ``logits``: whether its scores are. A serving generation whose scores
    are not finite has no row. Raises NotFiniteError for the candidate's.
    """
    judge = _Judge(data, trial, settings)
    rows = [judge.generation("candidate", candidate, logits=logits)]
    if serving is not None:
        with contextlib.suppress(served.NotFiniteError):  # the gate's reason says so
            rows.append(judge.generation("serving", serving, logits=False))
    rows.append(judge.popularity())
    difference = {} if verdict.difference is None else verdict.difference.told()
    return Report(
        number=manifest.number,
        created_ms=manifest.created_ms,
        model=manifest.model,
        parameters=manifest.parameters,
        parts=_parts(manifest),
        start=manifest.start,
        privacy=manifest.privacy,
        software=manifest.software,
        k=gate.K,
        data=_described(data, trial),
        gate=Ruling(verdict.passed, verdict.reason, difference),
        metrics=manifest.metrics,
        rows=rows,
        curve={name: [float(value) for value in values] for name, values in curve.items()},
    )


def _parts(manifest: Manifest) -> dict[str, str]:
    """What a generation is served by; the model's own item weights are of its name."""
    parts = {
        "encoder": manifest.encoder,
        "ranker": manifest.ranker,
        "content": manifest.content,
        "blend": manifest.blend,
    }
    kinds = {name: str(part.get("kind")) for name, part in parts.items() if part is not None}
    if manifest.item_weights is not None:
        kinds["item weights"] = str(manifest.item_weights.get("by", manifest.model))
    return kinds


def encode(report: Report) -> bytes:
    """The report as JSON; what has no value (NaN) is null."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1)


def _described(data: DataSet, trial: Trial) -> Data:
    first, last = int(data.times_ms.min()), int(data.times_ms.max())
    # One far-off time of a producer must not hide all others in one bin.
    low, high = (int(t) for t in np.quantile(data.times_ms, [0.001, 0.999], method="nearest"))
    bins = max(1, min(MOST_TIME_BINS, len(data)))
    counts, _ = np.histogram(np.clip(data.times_ms, low, high), bins, (low, high + 1))
    popularity = data.popularity().astype(np.float64)
    return Data(
        interactions=len(data),
        users=len(data.user_ids),
        items=len(data.item_ids),
        density=int(data.first_of_pairs().sum()) / (len(data.user_ids) * len(data.item_ids)),
        first_ms=max(first, low),
        last_ms=min(last, high),
        judged_from_ms=int(data.times_ms[trial.queries].min()),
        window=data.window,
        interactions_per_bin=counts.tolist(),
        popularity_curve=lorenz(popularity),
    )


def lorenz(counts: Float64s) -> list[float]:
    """The Lorenz curve of ``counts`` (N,), none negative, at CURVE_POINTS even steps.

    The share of the sum that the least ones hold, for shares of N from 0 to 1; NaN for a sum of 0.
    """
    held = np.concatenate([[0.0], np.cumsum(np.sort(counts))])
    total = held[-1] if held[-1] > 0 else math.nan
    places = np.linspace(0, len(counts), CURVE_POINTS)
    return [float(value) for value in np.interp(places, np.arange(len(held)), held) / total]


class _Judge:
    """Judges recommenders on the same events."""

    def __init__(self, data: DataSet, trial: Trial, settings: Settings) -> None:
        queries, self._retrieval = trial.queries, settings.retrieval
        self._data, self._seed = data, settings.trainer.seed
        self._train = data.keeping(trial.train)
        self._cases: list[Case] = gate.cases(data, queries, settings)
        self._histories: list[History] = [case.history for case in self._cases]
        self._users = data.users[queries].astype(np.int64)
        activity = np.bincount(self._train.users, minlength=len(data.user_ids))
        self._activity = activity[data.users[queries]]
        self._item_counts = self._train.popularity()[data.items[queries]].astype(np.int64)
        first = self._train.first_of_pairs()
        self._had = np.bincount(self._train.items[first], minlength=len(data.item_ids))
        self._known_users = len(np.unique(self._train.users))

    def generation(self, role: Role, generation: Generation, *, logits: bool) -> Row:
        generation = served.with_new_items(generation, self._data.items_known)
        judged = served.judge(
            generation,
            self._cases,
            gate.K,
            depth=self._retrieval.vector_depth,
            retrieval=self._retrieval,
        )
        attributes = [case.attributes for case in self._cases]
        users = generation.encoder.encode(self._histories, attributes)

        def score(place: int, rows: Int64s) -> Float32s:
            return served.pair_scores(generation, self._histories[place], users[place], rows)

        name = f"generation {generation.manifest.number} ({generation.manifest.model})"
        return self._row(role, name, judged, generation.row_of, score, logits)

    def popularity(self) -> Row:
        """What is most popular in what the candidate was fitted on, the same for everybody."""
        popular = self._train.popularity()
        shown = np.flatnonzero(popular)
        items = [self._data.item_ids[item] for item in shown]
        row_of = {item: row for row, item in enumerate(items)}
        counts = popular[shown]

        def scores() -> Iterable[Float32s]:
            for history in self._histories:
                own = counts.copy()
                own[[row_of[item] for item in history.item_ids if item in row_of]] = -np.inf
                yield own

        judged = served.judge_scores(scores(), row_of, self._cases, gate.K)
        return self._row(
            "popularity", "popularity", judged, row_of, lambda _, rows: counts[rows], False
        )

    def _row(
        self,
        role: Role,
        name: str,
        judged: Judged,
        row_of: Mapping[str, int],
        score: Callable[[int, Int64s], Float32s],
        logits: bool,
    ) -> Row:
        values = metrics.expected_values(judged.better, judged.tied, gate.K)
        number_of = {item: number for number, item in enumerate(self._data.item_ids)}
        had = np.zeros(len(row_of))
        for item, row in row_of.items():
            had[row] = self._had[number_of[item]] if item in number_of else 0
        listed = np.bincount(judged.lists[judged.lists >= 0], minlength=len(row_of))
        history = [
            np.mean([had[row_of[item]] for item in items]) if items else np.nan
            for items in ({item for item in h.item_ids if item in row_of} for h in self._histories)
        ]
        pairs = pointwise.against_negatives(
            ([case.target] for case in self._cases), self._histories, row_of, score, self._seed
        )
        return Row(
            role=role,
            name=name,
            all=bands.whole(values, self._users),
            by_activity=bands.by_count(values, self._users, self._activity),
            by_item=bands.by_count(values, self._users, self._item_counts),
            beyond_accuracy=beyond_accuracy.of_lists(
                judged.lists, had, self._known_users, np.array(history)
            ),
            pointwise=pointwise.of_labels(*pairs, logits=logits),
            exposure_curve=lorenz(listed.astype(np.float64)),
            top_items=self._top(listed, row_of),
        )

    def _top(self, listed: Int64s, row_of: Mapping[str, int]) -> list[TopItem]:
        ids = sorted(row_of, key=row_of.__getitem__)
        order = np.argsort(-listed, kind="stable")[:TOP_ITEMS]
        return [
            TopItem(ids[row], self._title(ids[row]), int(listed[row]) / len(self._cases))
            for row in order.tolist()
            if listed[row]
        ]

    def _title(self, item_id: str) -> str:
        known = self._data.items_known.get(item_id)
        return known.title if known is not None else ""
