"""RecSys Challenge 2015: the next click inside a session, by time.

Tested are the sessions that ended in the last 24 hours of the log: each click after the first, from
those before it, among all items, those of the session included (a quarter of the clicks repeat the
one before). Learned is from the sessions that had ended before, by every model alike: nothing
learns during the test day. The fusion's weights and the baselines' parameters are chosen on the 24
hours before that, from what had ended before those; the encoder's were, once, by hand.

The fusion is the product's own: candidates and layers of ``indexer.retrieval`` (user vector, near
and far next-lists, own items, trend), their z-scores weighed by ``trainer.blending``.
"""

import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from benchmarks import report
from benchmarks.paper_rows.next_item import (
    Case,
    Predictor,
    accuracy,
    as_data_set,
    as_history,
    combinations,
    of_baseline,
    of_generation,
    rounded,
    tuned,
)
from benchmarks.paper_rows.row import DATA, PaperRow
from rheos.events import Event
from rheos.generation import Generation
from rheos.linear_blend import LinearBlend
from rheos.live_system import LiveSystem
from rheos.settings import from_tree
from rheos.snapshot_store import LocalStore
from rheos.state import Float64s, Int64s
from trainer import fitting
from trainer.blending.examples import Examples
from trainer.blending.weights import fit_weights
from trainer.evaluation.baselines.markov_chain import MarkovChain
from trainer.evaluation.baselines.session_knn import SessionKnn
from trainer.models.model import Run
from trainer.models.sasrec import SasRec

K = 20
DAY_MS = 24 * 3600 * 1000
EVERY = 4  # of the cases of the day before, so many weigh and choose
ENCODER = SasRec(
    last=20,
    pretrain=0,  # better where clicks repeat the one before
    dropout=0.5,
    epochs=16,
    batch=800,
    learning_rate=0.003,
    negatives=4096,
    repeats=True,
)
SETTINGS = from_tree(
    {
        "retrieval": {"leave_out_seen": False, "far_damping": 0.2},
        "transitions": {"far_half_steps": 2.0},
    }
)

FUSION, ENCODER_ALONE, COUNTS = "fusion", "sequence encoder alone", "next-lists and own items"
COUNTED = ["near", "far", "own", "trend"]

DECAYS = ["linear", "division", "quadratic"]
CHAIN = combinations(window=[1, 3, 10], back_off=[1.0, 20.0, 100.0])
SKNN = combinations(
    neighbours=[500], recent=[1000, 5000], similarity=DECAYS, match=DECAYS, idf=[False, True]
)


class Split(NamedTuple):
    """Sessions by their ends, oldest first, and the cases of the day after the last one."""

    sequences: list[Int64s]
    times_ms: list[Int64s]
    cases: list[Case]
    items: int


def read(seed: int, days_before: int) -> Split:
    """The split whose test day ends ``days_before`` days before the log does."""
    with lzma.open(DATA / "rsc15" / "clicks.tsv.xz", "rt", encoding="ascii") as file:
        next(file)
        cells = [line.split("\t") for line in file]
    sessions = np.array([int(session) for session, _, _ in cells])
    found, items = np.unique([int(item) for _, item, _ in cells], return_inverse=True)
    times_ms = np.array([round(float(seconds) * 1000) for _, _, seconds in cells], np.int64)
    # A handful of clicks share a millisecond: in an order of chance, not in that of the file.
    order = np.lexsort((np.random.default_rng(seed).random(len(cells)), times_ms, sessions))
    bounds = np.flatnonzero(np.diff(sessions[order])) + 1
    sequences, times = np.split(items[order], bounds), np.split(times_ms[order], bounds)
    ends = np.array([clicks[-1] for clicks in times])
    test_end = int(ends.max()) - days_before * DAY_MS
    by_end = np.argsort(ends, kind="stable")
    learned = by_end[ends[by_end] <= test_end - DAY_MS]
    tested = by_end[(ends[by_end] > test_end - DAY_MS) & (ends[by_end] <= test_end)]
    cases = [
        Case(
            int(session),
            sequences[session][:place],
            times[session][:place],
            int(sequences[session][place]),
        )
        for session in tested
        for place in range(1, len(sequences[session]))
    ]
    return Split(
        [sequences[session] for session in learned],
        [times[session] for session in learned],
        cases,
        len(found),
    )


def fused(live: LiveSystem, blend: LinearBlend, items: int) -> Predictor:
    """The live system's candidates, scored by a blend; other items stand behind all of them."""

    def scores(case: Case) -> Float64s:
        candidates = live.candidates_after(as_history(case))
        found = np.full(items, -np.inf)
        found[np.array(candidates.item_ids, np.int64)] = blend.score(candidates.features)
        return found

    return scores


def live_system(split: Split, generation: Generation) -> LiveSystem:
    """What serves, as it stands after the sessions of a split, click by click in their order."""
    live = LiveSystem(SETTINGS, [str(item) for item in range(split.items)], K)
    live.serve(generation)
    clicks = sorted(
        (time_ms, session, item)
        for session, (items, times) in enumerate(zip(split.sequences, split.times_ms, strict=True))
        for item, time_ms in zip(items.tolist(), times.tolist(), strict=True)
    )
    events = [
        Event(user_id=str(session), item_id=str(item), type="click", time_ms=time_ms)
        for time_ms, session, item in clicks
    ]
    for start in range(0, len(events), 500):
        live.learn(events[start : start + 500])
    return live


def blends(live: LiveSystem, cases: list[Case]) -> dict[str, LinearBlend]:
    """The weights of all layers, and of those that only count, learned on the cases."""
    features, relevant = [], []
    for case in cases:
        found = live.candidates_after(as_history(case))
        features.append(np.stack([found.features[name] for name in live.features], axis=1))
        relevant.append(np.array(found.item_ids, np.int64) == case.target)
    every = np.concatenate(features).astype(np.float32)
    begins = np.r_[0, np.cumsum([len(one) for one in relevant])].astype(np.int64)

    def weighed(layers: list[str]) -> LinearBlend:
        names = [f"{layer}.z" for layer in layers]
        columns = [live.features.index(name) for name in names]
        return fit_weights(
            Examples(
                names,
                every[:, columns],
                np.concatenate(relevant),
                begins,
                np.ones(len(cases), np.int64),
                np.arange(len(cases)),
            )
        )

    return {FUSION: weighed(["vector", *COUNTED]), COUNTS: weighed(COUNTED)}


def train(folder: Path, *, seed: int, threads: int) -> dict[str, Any]:
    run = Run(seed=seed, threads=threads)
    report.note("the day before: encoder, fusion weights, parameters of the baselines")
    before = read(seed, days_before=1)
    chosen_on = before.cases[::EVERY]
    name = fitted(folder / "before", before, run)
    live = live_system(before, generation(folder / "before", name))
    weights = {name: blend.weights for name, blend in blends(live, chosen_on).items()}
    tries = {
        "v-sknn": _all(SessionKnn, before, SKNN),
        "markov chain": _all(MarkovChain, before, CHAIN),
    }
    baselines = {
        name: tuned(
            made,
            lambda one: accuracy(one, chosen_on, K, leave_out_seen=False),
            *("hit_rate", "mrr"),
        )
        for name, made in tries.items()
    }
    report.note("the encoder of the test day")
    name = fitted(folder / "encoder", read(seed, days_before=0), run)
    told = {"seed": seed, "encoder": name, "weights": weights, "baselines": baselines}
    (folder / "chosen.json").write_text(json.dumps(told), "utf-8")
    return {
        "settings": msgspec.to_builtins(ENCODER),
        "weights": weights,
        "baselines": baselines,
    }


def fitted(folder: Path, split: Split, run: Run) -> str:
    """Fits the encoder and leaves it in ``folder``; its name."""
    data = as_data_set(split.sequences, split.times_ms)
    made = fitting.make(1, ENCODER, fitting.fit(ENCODER, data, run), data, {})
    return LocalStore(folder).put(*made)


def generation(folder: Path, name: str) -> Generation:
    return Generation(LocalStore(folder).get(name))


def _all(
    baseline: Any, split: Split, tries: list[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], Predictor]]:
    for parameters in tries:
        yield parameters, of_baseline(baseline(split.sequences, split.items, **parameters))


def evaluate(folder: Path) -> dict[str, Any]:
    told = json.loads((folder / "chosen.json").read_text("utf-8"))
    split = read(told["seed"], days_before=0)
    encoder = generation(folder / "encoder", told["encoder"])
    live = live_system(split, encoder)
    predictors: dict[str, Predictor] = {
        FUSION: fused(live, LinearBlend(told["weights"][FUSION]), split.items),
        ENCODER_ALONE: of_generation(encoder, split.items),
        COUNTS: fused(live, LinearBlend(told["weights"][COUNTS]), split.items),
    }
    for name, baseline in (("v-sknn", SessionKnn), ("markov chain", MarkovChain)):
        for measure, short in (("hit_rate", "HR"), ("mrr", "MRR")):
            chosen = [told["baselines"][name][measure]]
            [(_, predictor)] = _all(baseline, split, chosen)
            predictors[f"{name}, tuned for {short}"] = predictor
    figures: dict[str, Any] = {
        name: rounded(
            accuracy(predictor, split.cases, K, leave_out_seen=False), K, "hit_rate", "mrr"
        )
        for name, predictor in predictors.items()
    }
    learned = np.unique(np.concatenate(split.sequences))
    unseen = np.mean(~np.isin([case.target for case in split.cases], learned))
    return {**figures, "cases": len(split.cases), "unseen items": round(float(unseen), 4)}


def shortfalls(figures: dict[str, Any]) -> list[str]:
    mine = figures[FUSION]
    return [
        f"{measure} {mine[measure]:.4f} is not above that of {name}, {theirs[measure]:.4f}"
        for name, theirs in figures.items()
        if name.startswith(("v-sknn", "markov"))
        for measure in mine
        if not mine[measure] > theirs[measure]
    ]


ROW = PaperRow(
    name="sequence-rsc15",
    data="rsc15",
    split="RSC15 clicks by time, last day held out, next item inside a session",
    model="SASRec fused with next-lists and own items",
    train=train,
    evaluate=evaluate,
    shortfalls=shortfalls,
)
