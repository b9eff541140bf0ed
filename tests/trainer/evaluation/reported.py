"""A report of a small shop's second generation, as the cycle would make it."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from rheos.catalogue import Item
from rheos.generation import Generation
from rheos.settings import from_tree
from tests.trainer.shop import taste
from trainer import fitting, gate
from trainer.data_set import DataSet, of_interactions
from trainer.evaluation import refit, report
from trainer.evaluation.report import Report
from trainer.models import model_of
from trainer.models.model import Run

SETTINGS = from_tree({"trainer": {"gate_min_events": 50}})
HOSTILE = "<script>alert(1)</script>\"'&"


class Made(NamedTuple):
    data: DataSet
    trial: gate.Trial
    candidate: Generation
    serving: Generation | None
    verdict: gate.Verdict


def shop(count: int = 1500) -> DataSet:
    events = taste(count)
    data = of_interactions(
        [event.user_id for event in events],
        [event.item_id for event in events],
        [event.time_ms for event in events],
    )
    offsets = np.empty(len(data), np.int64)
    offsets[np.argsort(data.times_ms, kind="stable")] = np.arange(len(data))
    titles = {item: Item(item_id=item, title=f"{HOSTILE} {item}") for item in data.item_ids}
    window = {"0": (0, len(data))}
    return replace(data, offsets=offsets, topic_id="t", window=window, items_known=titles)


def generation_of(data: DataSet, number: int, **parameters: Any) -> Generation:
    model = model_of("als", {"factors": 6, "iterations": 6, **parameters})
    fitted = fitting.fit(model, data, Run())
    return refit.in_memory(fitting.make(number, model, fitted, data, {"gate_ndcg@20": 0.1}))


def judged(*, first: bool = False) -> Made:
    """A candidate and its verdict; ``first``: nothing serves yet."""
    data = shop()
    serving = None
    if not first:
        early = data.where(data.offsets < 900)
        serving = generation_of(replace(early, window={"0": (0, 900)}), 1, factors=2)
    trial = gate.plan(data, serving.manifest if serving else None, SETTINGS)
    assert not trial.reason
    candidate = generation_of(data.where(trial.train), 2)
    verdict = gate.judge(candidate, serving, data, trial, SETTINGS)
    return Made(data, trial, candidate, serving, verdict)


def report_of(made: Made, **more: Any) -> Report:
    return report.make(
        made.candidate.manifest,
        made.candidate,
        made.serving,
        made.data,
        made.trial,
        made.verdict,
        SETTINGS,
        **{"curve": {"loss": [0.9, 0.5, 0.4]}, "logits": False, **more},
    )
