"""V-SkNN: nearest neighbours among whole sessions.

Ludewig & Jannach, "Evaluation of Session-based Recommendation Algorithms" (User Modeling and
User-Adapted Interaction 2018): SkNN with the running session weighed by place (V-SkNN) and the
neighbours' items by the newest item shared (S-SkNN).
"""

from collections.abc import Callable, Sequence

import numpy as np

from rheos.state import Float64s, Int64s

DECAYS: dict[str, Callable[[Float64s, int], Float64s]] = {
    "same": lambda steps, length: np.ones(len(steps)),
    "linear": lambda steps, length: 1.0 - steps / length,
    "division": lambda steps, length: 1.0 / (1.0 + steps),
    "quadratic": lambda steps, length: 1.0 / np.square(1.0 + steps),
}
"""Weight of an item so many ``steps`` before the newest of a session of ``length``."""


class SessionKnn:
    """score(x) = Σ_n sim(s, n) v(n) [x in n] (idf_x) over the ``neighbours`` most similar sessions.

    sim(s, n) = Σ_{i in s and n} w_i / √|n|, w_i being item i's weight by ``similarity`` decay in
    the running session s; v(n) the weight, by ``match`` decay, of the newest item of s that n has.
    Looked through are the ``recent`` latest sessions that share an item with s. ``sequences`` are
    ordered by time, latest last.
    """

    def __init__(
        self,
        sequences: Sequence[Int64s],
        items: int,
        *,
        neighbours: int = 100,
        recent: int = 1000,
        similarity: str = "linear",
        match: str = "linear",
        idf: bool = False,
    ) -> None:
        self._items = items
        self._neighbours = neighbours
        self._recent = recent
        self._similarity = DECAYS[similarity]
        self._match = DECAYS[match]
        self._sessions = [np.unique(sequence) for sequence in sequences]
        self._norms = np.sqrt([max(1, len(session)) for session in self._sessions])
        numbers = np.repeat(
            np.arange(len(self._sessions)), [len(session) for session in self._sessions]
        )
        columns = np.concatenate(self._sessions)
        order = np.argsort(columns, kind="stable")
        begins = np.searchsorted(columns[order], np.arange(items + 1))
        self._having = [
            numbers[order[begins[item] : begins[item + 1]]] for item in range(items)
        ]  # ascending, so the latest sessions last
        rarity = np.log((len(sequences) + 1) / (np.diff(begins) + 1))
        self._rarity = rarity if idf else np.ones(items)

    def scores(self, history: Int64s) -> Float64s:
        scores = np.zeros(self._items)
        if not len(history):
            return scores
        # An item counts once, at its newest place: 0, 1, … steps before the end.
        distinct, places = np.unique(history[::-1], return_index=True)
        steps = places.astype(np.float64)
        weights = self._similarity(steps, len(history))
        lists = [self._having[item][-self._recent :] for item in distinct]
        lengths = [len(found) for found in lists]
        sessions, groups = np.unique(np.concatenate(lists), return_inverse=True)
        similar = np.bincount(groups, np.repeat(weights, lengths), len(sessions)) / 1.0
        similar /= self._norms[sessions]
        newest = np.full(len(sessions), np.inf)
        np.minimum.at(newest, groups, np.repeat(steps, lengths))
        # Of the latest sessions the most similar; of equally similar ones the latest.
        similar, newest = similar[-self._recent :], newest[-self._recent :]
        sessions = sessions[-self._recent :]
        best = np.lexsort((-sessions, -similar))[: self._neighbours]
        given: Float64s = similar[best] * self._match(newest[best], len(history))
        for session, share in zip(sessions[best], given, strict=True):
            scores[self._sessions[session]] += share
        return np.asarray(scores * self._rarity, np.float64)
