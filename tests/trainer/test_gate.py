"""The gate: what is set aside, and who passes."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from rheos.generation import Generation
from rheos.settings import Settings, from_tree
from rheos.snapshot import Manifest, Snapshot
from rheos.state import Float32s, Float64s
from tests.trainer.shop import taste
from trainer import gate
from trainer.data_set import DataSet, of_interactions
from trainer.evaluation.metrics import MEASURES, mean
from trainer.fitting import make
from trainer.models import model_of
from trainer.models.model import Run


def settings_with(**trainer: Any) -> Settings:
    return from_tree({"trainer": {"gate_min_events": 50, **trainer}})


SETTINGS = settings_with()


def shop(count: int = 1500) -> DataSet:
    """The shop's log: arrival in the order of time, two partitions with offsets of their own."""
    events = taste(count)
    data = of_interactions(
        [event.user_id for event in events],
        [event.item_id for event in events],
        [event.time_ms for event in events],
    )
    partitions = (data.users % 2).astype(np.int32)
    offsets = np.zeros(len(data), np.int64)
    for partition in (0, 1):
        mine = np.flatnonzero(partitions == partition)
        offsets[mine[np.argsort(data.times_ms[mine], kind="stable")]] = np.arange(len(mine))
    return replace(
        data,
        partitions=partitions,
        offsets=offsets,
        append_times_ms=data.times_ms + 5,
        topic_id="topic",
        window={str(p): (0, int((partitions == p).sum())) for p in (0, 1)},
    )


def generation_of(data: DataSet, number: int = 1, **parameters: Any) -> Generation:
    model = model_of("als", {"factors": 6, "iterations": 6, "half_steps": 5.0} | parameters)
    fitted = model.fit(data, Run())
    made = make(number, model, fitted, data, {})
    return Generation(
        Snapshot(f"{number}-00000000", made.manifest, made.item_ids, dict(made.tensors))
    )


def with_vectors(generation: Generation, item_vectors: Float32s) -> Generation:
    tensors = {"item_vectors": item_vectors, "popularity": generation.popularity}
    return Generation(Snapshot("9-00000000", generation.manifest, generation.item_ids, tensors))


def fitted_until(data: DataSet, share: float) -> tuple[Manifest, np.ndarray]:
    """A serving manifest on the first share of each partition, and which rows that is."""
    window = {key: (0, int(end * share)) for key, (_, end) in data.window.items()}
    ends = np.array([window["0"][1], window["1"][1]])
    mask = data.offsets < ends[data.partitions]
    manifest = generation_of(data.where(mask)).manifest
    return msgspec.structs.replace(manifest, window=window), mask


def test_all_that_is_judged_is_newer_than_all_that_is_fitted() -> None:
    data = shop()
    serving, seen = fitted_until(data, 0.6)
    trial = gate.plan(data, serving, SETTINGS)
    assert not trial.reason
    assert len(trial.queries) >= 50
    used = trial.train | seen
    assert not used[trial.queries].any()
    newest = data.append_times_ms[used].max()
    assert (data.append_times_ms[trial.queries] > newest).all()
    for query in trial.queries:
        mine = used & (data.users == data.users[query])
        assert (data.times_ms[mine] < data.times_ms[query]).all()


def test_judged_are_new_items_of_users_with_a_history_and_no_dislikes() -> None:
    data = shop()
    weights = np.where(np.arange(len(data)) % 7, 1, -1).astype(np.float32)
    data = replace(data, weights=weights)
    trial = gate.plan(data, None, SETTINGS)
    begins = data.begins()
    for query in trial.queries:
        before = slice(begins[data.users[query]], query)
        assert query > begins[data.users[query]]
        assert data.items[query] not in data.items[before]
        assert data.weights[query] > 0


def test_an_invoice_is_never_divided_between_fitting_and_judging() -> None:
    """A user's events of one time arrive one after the other, around any cut."""
    data = shop()
    minute = 60_000
    data = replace(data, times_ms=data.times_ms // (10 * minute) * 10 * minute)
    trial = gate.plan(data, None, settings_with(gate_min_events=20))
    fitted = {
        (int(user), int(time_ms))
        for user, time_ms in zip(data.users[trial.train], data.times_ms[trial.train], strict=True)
    }
    judged = {(int(data.users[q]), int(data.times_ms[q])) for q in trial.queries}
    assert judged
    assert not fitted & judged


def test_a_time_far_in_the_future_stops_only_its_own_user() -> None:
    data = shop()
    before = len(gate.plan(data, None, SETTINGS).queries)
    times = data.times_ms.copy()
    times[data.begins()[1] - 1] += 10**12  # the last event of the first user, early by arrival
    arrivals = data.append_times_ms.copy()
    arrivals[data.begins()[1] - 1] = arrivals.min()
    trial = gate.plan(replace(data, times_ms=times, append_times_ms=arrivals), None, SETTINGS)
    assert len(trial.queries) > 0.9 * before
    assert 0 not in data.users[trial.queries]


def test_too_few_new_events_mean_waiting() -> None:
    data = shop()
    serving, _ = fitted_until(data, 0.97)
    trial = gate.plan(data, serving, SETTINGS)
    assert "newer than all that was fitted, 50 are needed" in trial.reason
    all_seen, _ = fitted_until(data, 1.0)
    assert gate.plan(data, all_seen, SETTINGS).reason.startswith("0 events")
    assert gate.plan(data.where(np.zeros(len(data), bool)), None, SETTINGS).reason


def test_a_generation_of_another_topic_has_seen_nothing_of_this_one() -> None:
    data = shop()
    serving, _ = fitted_until(data, 1.0)
    elsewhere = msgspec.structs.replace(serving, topic_id="another")
    assert not gate.plan(data, elsewhere, SETTINGS).reason


def test_queries_are_drawn_the_same_way_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MOST_QUERIES", 60)
    data = shop()
    first, second = (gate.plan(data, None, SETTINGS) for _ in range(2))
    assert len(first.queries) == 60
    np.testing.assert_array_equal(first.queries, second.queries)


@pytest.fixture(scope="module")
def judged() -> tuple[DataSet, gate.Trial, Generation]:
    data = shop()
    trial = gate.plan(data, None, SETTINGS)
    return data, trial, generation_of(data.where(trial.train))


def test_a_model_with_taste_passes_popularity(
    judged: tuple[DataSet, gate.Trial, Generation],
) -> None:
    data, trial, candidate = judged
    verdict = gate.judge(candidate, None, data, trial, SETTINGS)
    assert verdict.passed
    assert verdict.candidate.ndcg > 1.2 * verdict.against > 0
    assert verdict.candidate.cases == len(trial.queries)
    assert "of popularity on" in verdict.reason


def test_ndcg_is_that_of_an_order_made_by_hand(
    judged: tuple[DataSet, gate.Trial, Generation],
) -> None:
    data, trial, candidate = judged
    queries = trial.queries[:40]
    total = 0.0
    for query in queries:
        user_rows = np.flatnonzero(data.users == data.users[query])
        past = user_rows[user_rows < query][-SETTINGS.history.size :]
        span = slice(past[0], past[-1] + 1)
        vector = candidate.encoder.encode([data.history(span)])[0]
        had = {data.item_ids[item] for item in data.items[past]}
        scores = {
            item: float(candidate.item_vectors[row] @ vector)
            for item, row in candidate.row_of.items()
            if item not in had
        }
        order = sorted(scores, key=lambda item: -scores[item])[: gate.K]
        target = data.item_ids[data.items[query]]
        if target in order:
            total += 1 / np.log2(order.index(target) + 2)
    found = mean(gate.values(candidate, data, queries, SETTINGS)).ndcg
    assert found == pytest.approx(total / len(queries), abs=1e-6)


def test_a_model_that_learned_nothing_is_refused(
    judged: tuple[DataSet, gate.Trial, Generation],
) -> None:
    data, trial, good = judged
    random = np.random.default_rng(0).normal(size=good.item_vectors.shape).astype(np.float32)
    noise = with_vectors(good, random)
    verdict = gate.judge(noise, good, data, trial, SETTINGS)
    assert not verdict.passed
    assert verdict.candidate.ndcg < verdict.against
    assert f"of {good.name} on" in verdict.reason


def test_scores_that_all_tie_earn_what_chance_would(
    judged: tuple[DataSet, gate.Trial, Generation],
) -> None:
    """A model without any opinion must not win by ties."""
    data, trial, good = judged
    flat = with_vectors(good, np.zeros_like(good.item_vectors))
    verdict = gate.judge(flat, good, data, trial, SETTINGS)
    assert not verdict.passed


def test_scores_that_are_not_finite_are_refused(
    judged: tuple[DataSet, gate.Trial, Generation],
) -> None:
    data, trial, good = judged
    broken = generation_of(data.where(trial.train))
    broken.item_vectors = np.full_like(broken.item_vectors, np.nan)
    verdict = gate.judge(broken, good, data, trial, SETTINGS)
    assert not verdict.passed
    assert "not finite" in verdict.reason
    # As the serving one it is no measure.
    assert gate.judge(good, broken, data, trial, SETTINGS).passed


def judged_as(
    monkeypatch: pytest.MonkeyPatch,
    judged: tuple[DataSet, gate.Trial, Generation],
    *values: Float64s,
    **trainer: Any,
) -> gate.Verdict:
    """The verdict where the candidate's NDCGs, then the serving one's, are the ``values``."""
    data, trial, good = judged
    told = iter(values)

    def answer(*_: Any) -> Float64s:
        ndcgs = next(told)
        return np.tile(ndcgs[:, None], (1, len(MEASURES)))

    monkeypatch.setattr(gate, "values", answer)
    return gate.judge(good, good, data, trial, settings_with(**trainer))


def test_worse_within_the_tolerance_passes_and_worse_than_that_does_not(
    judged: tuple[DataSet, gate.Trial, Generation], monkeypatch: pytest.MonkeyPatch
) -> None:
    against = 0.05 + 0.1 * np.random.default_rng(0).random(len(judged[1].queries))
    # Surely worse by a hundredth: refused, but for a setting.
    assert not judged_as(monkeypatch, judged, 0.99 * against, against).passed
    assert judged_as(monkeypatch, judged, 0.99 * against, against, gate_tolerance=0.02).passed
    refused = judged_as(monkeypatch, judged, 0.97 * against, against, gate_tolerance=0.02)
    assert not refused.passed
    assert refused.difference is not None
    assert refused.difference.high < -0.02 * against.mean()
    assert judged_as(monkeypatch, judged, 0.97 * against, against, gate_tolerance=0.04).passed


def test_what_may_be_chance_passes_and_how_sure_that_must_be_is_a_setting(
    judged: tuple[DataSet, gate.Trial, Generation], monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    against = random.random(len(judged[1].queries))
    noise = random.normal(0, 0.5, len(against))
    noise += -0.05 - noise.mean()  # a tenth worse in this sample; the standard error is about .04
    found = judged_as(monkeypatch, judged, against + noise, against, gate_tolerance=0.0)
    assert found.passed
    assert found.difference is not None
    assert 0.05 <= found.difference.p_value < 0.4
    assert f"p = {found.difference.p_value:.3f}" in found.reason
    strict = {"gate_tolerance": 0.0, "gate_confidence": 0.6}
    assert not judged_as(monkeypatch, judged, against + noise, against, **strict).passed


def test_items_that_the_generation_does_not_know_are_misses(
    judged: tuple[DataSet, gate.Trial, Generation],
) -> None:
    data, trial, _ = judged
    known = generation_of(data.where(trial.train & (data.items < 10)))
    unknown = trial.queries[data.items[trial.queries] >= 10]
    assert mean(gate.values(known, data, unknown, SETTINGS)).ndcg == 0.0
