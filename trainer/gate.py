"""The gate: is a candidate fit to serve? Judged on what it and the serving generation never saw.

The judgement goes through the served path: a snapshot written and read back, its encoder on the
user's history up to each event, retrieval by inner product, then the ranker; what the user has had
is left out; the event's item is the one to find. The number is NDCG@20, and whether a candidate is
worse is asked of a paired bootstrap over the users.
"""

from typing import NamedTuple

import msgspec
import numpy as np

from rheos.generation import Generation
from rheos.settings import Settings
from rheos.snapshot import Manifest
from rheos.state import Float64s, Int64s
from trainer import bootstrap
from trainer.bootstrap import Difference
from trainer.data_set import DataSet, Mask
from trainer.evaluation import served
from trainer.evaluation.metrics import MEASURES, Accuracy, compare, expected_values, mean

K = 20
NDCG = MEASURES.index("ndcg")
NEWEST_SHARE = 0.2
MOST_NEWEST = 20_000
"""The newest share of the events new to both models, and at most so many, are kept for the gate."""
MOST_QUERIES = 5_000
"""Of these so many are drawn: the standard error of NDCG@20 is then about .002."""


class Trial(NamedTuple):
    """What a candidate may be fitted on, and by which interactions (rows) it is judged.

    ``reason`` says why there are too few of these, or is empty.
    """

    train: Mask
    queries: Int64s
    reason: str


class Verdict(NamedTuple):
    """Accuracy@20 of the candidate, over its ``cases`` events, NDCG@20 of its opponent, and the
    difference of the two NDCGs; None where one of them is not finite.
    """

    passed: bool
    reason: str
    candidate: Accuracy
    against: float
    difference: Difference | None


class Drift(msgspec.Struct, frozen=True):
    """A generation's NDCG@20 at its gate and on the newest events; whether that is a fall."""

    at_gate: float
    now: float
    has_fallen: bool


def plan(data: DataSet, serving: Manifest | None, settings: Settings) -> Trial:
    """Splits off the newest events for the gate.

    Newest by arrival: an event's own time is the producer's word, and one far in the future must
    not stop the gate for ever. All that the serving generation was fitted on, and all that the
    candidate will be, arrived before the cut; and each event judged is later, by its own time, than
    all that was fitted of its user. So equal times (the lines of an invoice) are never divided
    between fitting and judging. Judged are interactions of a positive weight with an item that is
    new to a user who has a history: for others the models change nothing.
    """
    fitted = _fitted_by(data, serving)
    eligible = ~fitted & (data.weights > 0) & data.first_of_pairs()
    eligible[data.begins()[:-1]] = False
    least = settings.trainer.gate_min_events
    arrivals = np.sort(data.append_times_ms[eligible])[::-1]
    wanted = min(MOST_NEWEST, max(least + least // 2, int(len(arrivals) * NEWEST_SHARE)))
    if len(arrivals) < least:
        return Trial(~fitted, np.zeros(0, np.int64), _too_few(len(arrivals), least))
    cut = arrivals[min(wanted, len(arrivals)) - 1]
    if fitted.any():
        cut = max(cut, data.append_times_ms[fitted].max() + 1)
    train = data.append_times_ms < cut
    latest = np.full(len(data.user_ids), -1, np.int64)
    used = train | fitted
    np.maximum.at(latest, data.users[used], data.times_ms[used])
    queries = np.flatnonzero(eligible & ~train & (data.times_ms > latest[data.users]))
    if len(queries) < least or not (data.weights[train] > 0).any():
        return Trial(train, queries, _too_few(len(queries), least))
    if len(queries) > MOST_QUERIES:
        random = np.random.default_rng(settings.trainer.seed)
        queries = np.sort(random.choice(queries, MOST_QUERIES, replace=False))
    return Trial(train, queries, "")


def judge(
    candidate: Generation,
    serving: Generation | None,
    data: DataSet,
    trial: Trial,
    settings: Settings,
) -> Verdict:
    """Compares the candidate with the serving generation or, before the first, with popularity.

    It is refused where its NDCG falls short of the other's by more than ``gate_tolerance`` of that,
    significantly so: with a p-value below 1 - ``gate_confidence``.
    """
    trainer = settings.trainer
    own = values(candidate, data, trial.queries, settings)
    if serving is None:
        name, others = "popularity", _values_of_popularity(data, trial, settings)
    else:
        name, others = serving.name, values(serving, data, trial.queries, settings)
    accurate, against = mean(own), mean(others).ndcg
    count = len(trial.queries)
    text = f"NDCG@{K} {accurate.ndcg:.4f} against {against:.4f} of {name} on {count} newer events"
    if not np.isfinite(accurate.ndcg):
        reason = f"the candidate's scores are not finite; {text}"
        return Verdict(False, reason, accurate, against, None)
    if not np.isfinite(against):
        # Scores that are not finite are no measure: any finite ones are better.
        return Verdict(True, text, accurate, against, None)
    difference = bootstrap.paired(
        own[:, NDCG],
        others[:, NDCG],
        data.users[trial.queries].astype(np.int64),
        margin=trainer.gate_tolerance * against,
        confidence=trainer.gate_confidence,
        random=np.random.default_rng(trainer.seed),
    )
    text += (
        f", difference {difference.mean:+.4f} ({difference.low:+.4f} to {difference.high:+.4f}),"
        f" p = {difference.p_value:.3f}"
    )
    passed = difference.p_value >= 1 - trainer.gate_confidence
    return Verdict(passed, text, accurate, against, difference)


def drift(serving: Generation, data: DataSet, trial: Trial, settings: Settings) -> Drift | None:
    """Holds the serving generation's NDCG on what came since against its own at the gate.

    Asked is the model alone, as in ``judge``: live layers follow the events by themselves, and
    would cover up what a new fit mends. It has drifted where it lost more than ``drift_margin`` of
    that, with ``gate_confidence``. None: no gate has measured it, or its scores are not finite.
    """
    at_gate = float(serving.manifest.metrics.get(f"gate_ndcg@{K}", np.nan))
    own = values(serving, data, trial.queries, settings)[:, NDCG]
    return fall(own, data.users[trial.queries].astype(np.int64), at_gate, settings)


def fall(own: Float64s, users: Int64s, at_gate: float, settings: Settings) -> Drift | None:
    """Whether NDCGs (n,) on the questions of ``users`` (n,) have fallen below ``at_gate``.

    None where one of them is not finite.
    """
    trainer = settings.trainer
    now = float(own.mean())
    if not (np.isfinite(at_gate) and np.isfinite(now)):
        return None
    difference = bootstrap.paired(
        own,
        np.full(len(own), at_gate),
        users,
        margin=trainer.drift_margin * at_gate,
        confidence=trainer.gate_confidence,
        random=np.random.default_rng(trainer.seed),
    )
    return Drift(at_gate, now, difference.p_value < 1 - trainer.gate_confidence)


def values(generation: Generation, data: DataSet, queries: Int64s, settings: Settings) -> Float64s:
    """Accuracy@20 (n, measures) of a generation on the interactions ``queries`` (n,); NaN for wild
    scores.

    An item that the generation does not know, nor by its content, or that retrieval leaves behind,
    is a miss.
    """
    generation = served.with_new_items(generation, data.items_known)
    asked = cases(data, queries, settings)
    retrieval = settings.retrieval
    try:
        judged = served.judge(
            generation, asked, K, depth=retrieval.vector_depth, retrieval=retrieval
        )
        return judged.values(K)
    except served.NotFiniteError:
        return np.full((len(asked), len(MEASURES)), np.nan)


def cases(data: DataSet, queries: Int64s, settings: Settings) -> list[served.Case]:
    """Each of ``queries`` (n,) with what its user did before."""
    begins = data.begins()
    return [
        served.Case(
            data.history(_history_span(data, begins, int(query), settings)),
            data.item_ids[data.items[query]],
            data.users_known.get(data.user_ids[data.users[query]]),
        )
        for query in queries
    ]


def _values_of_popularity(data: DataSet, trial: Trial, settings: Settings) -> Float64s:
    """The same for an order by the number of interactions in the training part."""
    counted = trial.train & (data.weights > 0)
    counts = np.bincount(data.items[counted], minlength=len(data.item_ids)).astype(np.float64)
    begins = data.begins()
    better, tied = [], []
    for query in trial.queries:
        scores = counts.copy()
        scores[data.items[_history_span(data, begins, int(query), settings)]] = -np.inf
        above, beside = compare(scores, int(data.items[query]))
        better.append(above)
        tied.append(beside)
    return expected_values(better, tied, K)


def _fitted_by(data: DataSet, serving: Manifest | None) -> Mask:
    """Which interactions the serving generation was fitted on; none of another topic's."""
    fitted = np.zeros(len(data), bool)
    if serving is not None and serving.topic_id == data.topic_id:
        for partition, (_, end) in serving.window.items():
            fitted |= (data.partitions == int(partition)) & (data.offsets < end)
    return fitted


def _history_span(data: DataSet, begins: Int64s, query: int, settings: Settings) -> slice:
    begin = int(begins[data.users[query]])
    return slice(max(begin, query - settings.history.size), query)


def _too_few(found: int, least: int) -> str:
    return f"{found} events newer than all that was fitted, {least} are needed"
