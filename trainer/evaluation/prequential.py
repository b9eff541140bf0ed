"""Prequential evaluation: recommend, score, then learn, event by event in time order.

Scored is every k-th event (counted over the whole log) of a part of the log, if its item is new to
the user: each row of the table scores all items of the log, those that the user had are left out,
and the event's item is the target. Equal scores go to the more popular item; what is still tied
counts at its expected value. So a model without an opinion answers with live popularity.

The live system is given (``LiveSystem``), so that its figures come from the very code that the
stream and the indexer run. The method: Gama, Sebastião & Rodrigues, "On evaluating stream learning
algorithms" (Machine Learning 90, 2013).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from rheos.events import Event
from rheos.generation import Generation
from rheos.state import Float32s, Float64s
from trainer.evaluation import metrics
from trainer.evaluation.event_log import EventLog
from trainer.evaluation.metrics import Accuracy

_DAY_MS = 24 * 3600 * 1000
_LEARN_AT_ONCE = 500  # events handed over together while nothing is scored

POPULARITY, NIGHTLY = "popularity", "nightly batch"
"""The rows that are not the live system's."""

GROUPS = ("all", "session start", "in session", "known item")
"""A session starts with a user's first event and after a gap; an item is known if anybody had it
before. An unknown one is nearly always a miss."""


class LiveSystem(Protocol):
    """What serves, driven by hand: events in, scores out."""

    def learn(self, events: Sequence[Event]) -> None:
        """Takes the log's next events; the next question sees all of them."""

    def serve(self, generation: Generation) -> None:
        """Moves to a generation, as on its announcement."""

    def scores(self, user_id: str, left_out: Sequence[str]) -> Mapping[str, Float64s]:
        """By row name, what each layer and the whole system thinks of every item for one user.

        (items,) in the order of the log's item ids; -inf: not among the candidates. ``left_out``
        are items that the answer must not hold. Names and their order are always the same.
        """


class Fitted(NamedTuple):
    """A generation, and what a nightly batch freezes: a vector per user of the log.

    ``user_vectors`` (users, d) has a row of zeros for each user that the fit did not know.
    """

    generation: Generation
    user_vectors: Float32s


Fit = Callable[[int], Fitted]
"""Fits on the log's first n events and on nothing else."""

Progress = Callable[[int, int], None]
"""Told now and then how many events of how many are done."""


class Plan(NamedTuple):
    """``begin`` and ``end`` bound the scored part, as shares of the log.

    The nightly model is fitted again at the first event more than ``nightly_days`` after its last
    fit, the live system's generation after ``live_days``; both first at ``begin``.
    """

    k: int = 20
    every: int = 7
    begin: float = 0.5
    end: float = 1.0
    nightly_days: float = 1.0
    live_days: float = 7.0
    session_gap_s: int = 1800
    repeats: bool = False


class Report(NamedTuple):
    """Accuracy by row and group. ``unseen``: scored events whose item nobody had before."""

    rows: dict[str, dict[str, Accuracy]]
    scored: int
    unseen: int
    fits: int


def run(
    log: EventLog,
    live: LiveSystem,
    fit: Fit,
    plan: Plan,
    progress: Progress,
    nightly_fit: Fit | None = None,
) -> Report:
    """Plays the log. Deterministic if ``live`` and the fits are.

    ``nightly_fit`` is the nightly batch's, which ``fit`` may stand in for where both are due.
    """
    begin, end = int(len(log.events) * plan.begin), int(len(log.events) * plan.end)
    number_of = {item_id: number for number, item_id in enumerate(log.item_ids)}
    popularity = np.zeros(len(log.item_ids))
    had: list[dict[int, None]] = [{} for _ in log.user_ids]
    last_ms: list[int | None] = [None] * len(log.user_ids)
    nightly = _Refits(nightly_fit or fit, plan.nightly_days)
    weekly = _Refits(fit, plan.live_days)
    cases = _Cases()
    learnt = 0
    for n in range(end):
        user, item, now_ms = int(log.users[n]), int(log.items[n]), int(log.times_ms[n])
        judged = n >= begin and n % plan.every == 0 and (plan.repeats or item not in had[user])
        if n >= begin and weekly.is_due(now_ms):
            live.learn(log.events[learnt:n])
            learnt = n
            live.serve(weekly.fit(n, now_ms, nightly).generation)
        if n >= begin and nightly.is_due(now_ms):
            nightly.fit(n, now_ms, weekly)
        if judged or n - learnt >= _LEARN_AT_ONCE:
            live.learn(log.events[learnt:n])
            learnt = n
        if judged:
            mine = [] if plan.repeats else list(had[user])
            allowed = np.ones(len(log.item_ids), bool)
            allowed[mine] = False
            rows = {POPULARITY: popularity, NIGHTLY: _frozen(nightly.fitted, user, number_of)}
            rows |= live.scores(log.user_ids[user], [log.item_ids[number] for number in mine])
            before_ms = last_ms[user]
            starts = before_ms is None or now_ms - before_ms > plan.session_gap_s * 1000
            cases.add(rows, item, popularity, allowed, starts)
        had[user][item] = None
        popularity[item] += 1
        last_ms[user] = now_ms
        if n % 1000 == 0:
            progress(n, end)
    progress(end, end)
    return cases.report(plan.k, nightly.fits + weekly.fits)


class _Refits:
    """A model that is fitted again after some days."""

    def __init__(self, fit: Fit, days: float) -> None:
        self._fit = fit
        self._every_ms = days * _DAY_MS
        self._at_ms: int | None = None
        self._on = -1
        self._fitted: Fitted | None = None
        self.fits = 0

    def is_due(self, now_ms: int) -> bool:
        return self._at_ms is None or now_ms - self._at_ms > self._every_ms

    def fit(self, events: int, now_ms: int, other: "_Refits") -> Fitted:
        """Fits on the first ``events``, or takes the ``other``'s fit if that is on the same."""
        if other._fitted is not None and other._on == events:
            self._fitted = other._fitted
        else:
            self._fitted = self._fit(events)
            self.fits += 1
        self._on, self._at_ms = events, now_ms
        return self._fitted

    @property
    def fitted(self) -> Fitted:
        if self._fitted is None:
            raise RuntimeError("asked for a model before its first fit")
        return self._fitted


def _frozen(fitted: Fitted, user: int, number_of: Mapping[str, int]) -> Float64s:
    """Scores (items,) of a user's frozen vector; 0 for items that the generation lacks."""
    generation, vector = fitted.generation, fitted.user_vectors[user]
    scores = np.zeros(len(number_of))
    if vector.any():
        numbers = [number_of[item_id] for item_id in generation.item_ids]
        scores[numbers] = generation.item_vectors @ vector
    return scores


class _Cases:
    """How the targets' scores compared, row by row."""

    def __init__(self) -> None:
        self._better: dict[str, list[int]] = {}
        self._tied: dict[str, list[int]] = {}
        self._starts: list[bool] = []
        self._known: list[bool] = []

    def add(
        self,
        rows: Mapping[str, Float64s],
        target: int,
        popularity: Float64s,
        allowed: npt.NDArray[np.bool_],
        starts: bool,
    ) -> None:
        for name, scores in rows.items():
            better, tied = metrics.compare(scores, target, popularity, allowed)
            self._better.setdefault(name, []).append(better)
            self._tied.setdefault(name, []).append(tied)
        self._starts.append(starts)
        self._known.append(bool(popularity[target]))

    def report(self, k: int, fits: int) -> Report:
        starts, known = np.array(self._starts, bool), np.array(self._known, bool)
        masks = dict(zip(GROUPS, (np.ones(len(starts), bool), starts, ~starts, known), strict=True))
        rows = {}
        for name in self._better:
            better, tied = np.array(self._better[name]), np.array(self._tied[name])
            rows[name] = {
                group: metrics.of_targets(better[mask], tied[mask], k)
                for group, mask in masks.items()
            }
        return Report(rows, len(starts), int((~known).sum()), fits)
