"""How good models are on a holdout, through the path that serves them, and popularity beside them.

Each user with something to find is one case: all items are ranked by what the generation makes of
the user's newest known interactions, those interactions left out. A user of whom the generation
knows nothing is shown what is popular, as the running system would.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np

from rheos.generation import Generation
from rheos.settings import Settings
from rheos.state import Float32s, History, Int64s
from trainer.blending import learning
from trainer.evaluation import bands, outcome, pipeline, pointwise, refit, served
from trainer.evaluation.bands import Band
from trainer.evaluation.beyond_accuracy import BeyondAccuracy
from trainer.evaluation.holdout import Holdout
from trainer.evaluation.outcome import Outcome
from trainer.evaluation.pipeline import Live
from trainer.evaluation.pointwise import Pointwise
from trainer.models.model import Model, Run

S = TypeVar("S", BeyondAccuracy, Pointwise)

POPULARITY = "popularity"
"""The row that every model is held against."""

AS_SERVED = "as served"
"""Follows a model's name where a row is of both stages."""


class Judgement(msgspec.Struct, frozen=True):
    """One recommender: ``all`` cases, and by what was known of the user when asked.

    ``by_item``: each item to find is a case of its own, by its interactions in what was fitted;
    the others to find then stand in its way. ``beyond_accuracy`` is of the lists of k, with what
    the fit saw, ``pointwise`` of each item to find against one drawn from those that its user
    neither had nor had to find, for users with a history; of several folds both are means.
    ``blend``: what was learned to rank for one that is judged as it is served, whose pointwise
    measures are NaN: the live path scores its candidates only.
    """

    all: Band
    by_activity: list[Band]
    by_item: list[Band]
    beyond_accuracy: BeyondAccuracy
    pointwise: Pointwise
    blend: str = ""


def compare(
    holdouts: Iterable[Holdout],
    models: Sequence[Model],
    k: int,
    settings: Settings,
    run: Run,
    *,
    as_served: bool = False,
) -> dict[str, Judgement]:
    """Fits each of ``models`` on each of ``holdouts`` and judges it, popularity first.

    As the trainer would make them by ``settings``: the history is as long as it is kept there, and
    item weights join where they are asked for. ``as_served``: each model has a second row, what the
    API would answer with the blend that the settings ask for (``pipeline``); what is known of a
    user must then be what was fitted on. Raises FitError, NotFiniteError, SettingsError.
    """
    outcomes: dict[str, list[Outcome]] = {POPULARITY: []}
    blends: dict[str, str] = {}
    for part in holdouts:
        histories = part.histories(settings.history.size)
        outcomes[POPULARITY].append(_of_popularity(part, histories, k, run.seed))
        live = pipeline.Live(part, settings, k) if as_served else None
        for model in models:
            made = pipeline.made(model, part.train, settings, run)
            outcomes.setdefault(model.name, []).append(
                _of_generation(refit.in_memory(made), model, part, histories, k, settings, run.seed)
            )
            if live is not None:
                name = f"{model.name} {AS_SERVED}"
                learned = pipeline.learned(model, part.train, settings, run)
                blends[name] = learned.reason
                if learned.blend is not None:
                    made = learning.attach(made, learned.blend)
                found = _of_live(live, refit.in_memory(made), part, histories, k)
                outcomes.setdefault(name, []).append(found)
    return {name: _summed(parts, blends.get(name, "")) for name, parts in outcomes.items()}


def _of_popularity(part: Holdout, histories: Sequence[History], k: int, seed: int) -> Outcome:
    popular = part.train.popularity()
    row_of = {item: row for row, item in enumerate(part.train.item_ids)}

    def without(history: History) -> Float32s:
        own = popular.copy()
        own[[row_of[item] for item in history.item_ids if item in row_of]] = -np.inf
        return own

    pairs = pointwise.against_negatives(
        part.wanted.values(), histories, row_of, lambda _, rows: popular[rows], seed
    )
    judged = pointwise.of_labels(*pairs, logits=False)
    return outcome.of_scores(part, histories, map(without, histories), row_of, judged, k)


def _of_generation(
    generation: Generation,
    model: Model,
    part: Holdout,
    histories: Sequence[History],
    k: int,
    settings: Settings,
    seed: int,
) -> Outcome:
    generation = served.with_new_items(generation, part.train.items_known)
    attributes = [part.known.users_known.get(user_id) for user_id in part.wanted]
    found = served.scores(
        generation,
        histories,
        attributes,
        depth=settings.retrieval.vector_depth,
        retrieval=settings.retrieval,
        unknown=generation.popularity,
    )
    users = generation.encoder.encode(histories, attributes)
    pairs = pointwise.against_negatives(
        part.wanted.values(),
        histories,
        generation.row_of,
        lambda place, rows: served.pair_scores(generation, histories[place], users[place], rows),
        seed,
    )
    judged = pointwise.of_labels(*pairs, logits="probabilities" in model.can)
    return outcome.of_scores(part, histories, found, generation.row_of, judged, k)


def _of_live(
    live: Live, generation: Generation, part: Holdout, histories: Sequence[History], k: int
) -> Outcome:
    # What may be shown: what the generation knows, was taken, or is told by its content.
    told = [] if generation.content is None else part.train.items_known
    shown = dict.fromkeys([*generation.item_ids, *part.train.item_ids, *told])
    row_of = {item: row for row, item in enumerate(shown)}
    found = live.scores(generation, row_of, histories)
    nothing = pointwise.of_labels([], [], logits=False)
    return outcome.of_scores(part, histories, found, row_of, nothing, k)


def _summed(parts: Sequence[Outcome], blend: str) -> Judgement:
    """All cases of all folds together; what has no cases is averaged over the folds."""
    users = _numbered([user for part in parts for user in part.user_ids])
    owners = _numbered([user for part in parts for user in part.owners])
    values = np.concatenate([part.values for part in parts])
    target_values = np.concatenate([part.target_values for part in parts])
    return Judgement(
        bands.whole(values, users),
        bands.by_count(values, users, np.concatenate([part.activity for part in parts])),
        bands.by_count(
            target_values, owners, np.concatenate([part.target_counts for part in parts])
        ),
        _averaged([part.beyond for part in parts], "lists"),
        _averaged([part.pointwise for part in parts], "cases"),
        blend,
    )


def _averaged(structs: Sequence[S], count: str) -> S:
    """The mean of each field but ``count``, which is the sum."""
    columns = {
        name: [getattr(one, name) for one in structs] for name in type(structs[0]).__struct_fields__
    }
    means: dict[str, Any] = {name: float(np.mean(column)) for name, column in columns.items()}
    return type(structs[0])(**{**means, count: sum(columns[count])})


def _numbered(names: Sequence[str]) -> Int64s:
    return np.unique(np.array(names, object), return_inverse=True)[1].astype(np.int64)
