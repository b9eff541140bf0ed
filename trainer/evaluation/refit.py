"""A model fitted on the beginning of a log, as an evaluation that plays the log needs it."""

import hashlib

import numpy as np

from rheos.events import EventRules
from rheos.generation import Generation
from rheos.snapshot import Snapshot
from trainer import data_set, fitting
from trainer.evaluation.event_log import EventLog
from trainer.evaluation.prequential import Fitted
from trainer.fitting import Made
from trainer.models.model import ItemWeigher, Model, Run


class Refit:
    """Fits ``model`` on the first n events of ``log``, in memory: a prequential ``Fit``.

    The item weights of ``weigher`` join it, if there is one.
    """

    def __init__(
        self,
        log: EventLog,
        model: Model,
        rules: EventRules,
        seed: int,
        weigher: ItemWeigher | None = None,
    ) -> None:
        self._log, self._model, self._seed, self._weigher = log, model, seed, weigher
        self._weights = np.array([rules.weight(event) for event in log.events], np.float32)

    def __call__(self, events: int) -> Fitted:
        log = self._log
        data = data_set.of_interactions(
            [log.user_ids[user] for user in log.users[:events]],
            [log.item_ids[item] for item in log.items[:events]],
            log.times_ms[:events],
            self._weights[:events],
        )
        run = Run(seed=self._seed)
        fitted = fitting.fit(self._model, data, run)
        fitted = fitting.with_item_weights(fitted, self._weigher, data, run)
        made = fitting.make(max(1, events), self._model, fitted, data, {})
        generation = in_memory(made)
        vectors = np.zeros((len(log.user_ids), generation.dimensions), np.float32)
        # Both lists of ids are sorted: a user's place in the log's is found by bisection.
        known = np.searchsorted(log.user_ids, data.user_ids)
        vectors[known] = fitted.user_vectors[:, : generation.dimensions]
        return Fitted(generation, vectors)


def in_memory(made: Made) -> Generation:
    """A generation that no snapshot on disk stands behind; other vectors make another name."""
    digest = hashlib.sha256(made.tensors["item_vectors"].tobytes()).hexdigest()
    name = f"{made.manifest.number}-{digest[:8]}"
    return Generation(Snapshot(name, made.manifest, made.item_ids, dict(made.tensors)))
