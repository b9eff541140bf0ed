"""A blend for a generation, learned on the newest events, which it was not fitted on.

What is learned must not be significantly worse than its best part on the newest of these queries,
which it did not see; else a simpler blend takes its place, or none.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Literal, NamedTuple, TypeGuard

import msgspec
import numpy as np

from rheos.blend import Blend
from rheos.generation import Generation
from rheos.settings import Settings, SettingsError
from rheos.state import Float64s, Int64s
from trainer import bootstrap
from trainer.blending import replay
from trainer.blending.examples import Examples, Recorder
from trainer.blending.lambdamart import fit_trees
from trainer.blending.weights import K, fit_weights, gains, shortlisted, weighted
from trainer.data_set import DataSet, Mask
from trainer.fitting import Made
from trainer.models.model import Progress, Run, silent

Kind = Literal["linear", "trees"]

MOST_QUERIES = 4_000
LEAST_QUERIES: Mapping[Kind, int] = {"linear": 200, "trees": 1_000}
CHECKED_SHARE = 0.3
"""The newest share of the queries is kept for the check."""
CONFIDENCE = 0.95
SERVED_NDCG = f"gate_served_ndcg@{K}"
"""What a manifest calls a candidate's NDCG with what was learned for it, on the checked queries."""


class Learned(NamedTuple):
    """``blend`` is None where none is fit to serve; ``reason`` says how it came out.

    ``figures``: NDCG@K on the checked queries, of the blends, of each layer alone, and of the
    ``settings``, whose weights rank where there is no blend. ``gains`` (n,): that of each checked
    query as it would be served, by the blend before it was fitted again, or by the settings;
    ``rows`` (n,): the interactions of the data set before which these were asked.
    """

    blend: Blend | None
    reason: str
    figures: dict[str, float]
    gains: Float64s = np.zeros(0)
    rows: Int64s = np.zeros(0, np.int64)

    def metrics(self) -> dict[str, float]:
        """The figures as a manifest has them, and what it earned as it would be served."""
        found = {f"blend_{name}_ndcg@{K}": value for name, value in self.figures.items()}
        return found | ({SERVED_NDCG: float(self.gains.mean())} if len(self.gains) else {})


NOTHING = Learned(None, "", {})
"""Where no blend is wanted, or the question did not come up."""


def check(settings: Settings) -> None:
    """Raises SettingsError for a blend that cannot be learned here: the live path needs FAISS."""
    if settings.trainer.blend != "none" and find_spec("faiss") is None:
        raise SettingsError(
            f"setting trainer.blend = {settings.trainer.blend!r} plays events through the live"
            " path, which needs FAISS: pip install 'rheos[cpu]', or set it to 'none'"
        )


def learn_for(
    settings: Settings,
    candidate: Generation,
    serving: Generation | None,
    data: DataSet,
    earlier: Mask,
    run: Run,
) -> Learned:
    """What orders the candidates of the next generation, by the setting ``trainer.blend``.

    Learned with ``candidate``, which was fitted on the interactions ``earlier`` (n,) of ``data``
    alone. Where too few are newer, the blend of ``serving`` stays (``kept_of``). A model that
    guards its users' privacy gets none: a blend would tell what it hides.
    """
    kind = settings.trainer.blend
    if kind == "none":
        return NOTHING
    if candidate.manifest.privacy is not None:
        return Learned(None, f"no blend: {candidate.manifest.model} guards its users' privacy", {})
    examples, rows = record(settings, candidate, data, earlier, run.progress)
    kept = kept_of(serving, candidate, "too few questions to learn one from")
    if not is_enough(examples) and kept.blend is not None:
        return kept
    learned = learn(examples, kind, settings, run.threads)
    return learned._replace(rows=rows[len(rows) - len(learned.gains) :])


def kept_of(serving: Generation | None, candidate: Generation, reason: str) -> Learned:
    """The blend of ``serving`` where none could be learned, if it is of the same model, or none."""
    same = serving is not None and serving.manifest.model == candidate.manifest.model
    if serving is None or not same or serving.blend is None:
        return Learned(None, f"no blend: {reason}", {})
    return Learned(serving.blend, f"the blend of {serving.name} stays: {reason}", {})


def is_enough(examples: Examples | None) -> TypeGuard[Examples]:
    """Whether there are queries enough to learn any blend from."""
    return examples is not None and len(examples) >= LEAST_QUERIES["linear"]


def attach(made: Made, blend: Blend) -> Made:
    """A generation with a blend."""
    manifest = msgspec.structs.replace(made.manifest, blend=blend.parameters())
    return made._replace(manifest=manifest, tensors={**made.tensors, **blend.tensors()})


def record(
    settings: Settings,
    generation: Generation,
    data: DataSet,
    earlier: Mask,
    progress: Progress = silent,
    only: Int64s | None = None,
) -> tuple[Examples | None, Int64s]:
    """Plays the interactions of ``data`` by time and asks before MOST_QUERIES of the newer ones.

    Newer are those not in ``earlier`` (n,), which the generation was fitted on; or it asks before
    ``only`` (m,) of them. Gives back the queries, None where no question has an answer, and the
    interactions before which they were asked (Q,).
    """
    order = replay.in_time(data)
    newer = np.flatnonzero(~earlier[order])
    first = int(newer[0]) if len(newer) else len(order)
    order = order[max(0, first - replay.MOST_FOLDED) :]
    settings, events, live = replay.of(settings, data, order, K)
    recorder = Recorder(live, events, settings)
    asked = ~earlier if only is None else np.isin(np.arange(len(data)), only)
    places = recorder.askable()
    places = places[asked[order[places]]]
    if len(places) > MOST_QUERIES:
        random = np.random.default_rng(settings.trainer.seed)
        places = np.sort(random.choice(places, MOST_QUERIES, replace=False))
    if len(places):
        recorder.play(int(places[0]))
    live.serve(generation)
    for done, n in enumerate(places.tolist(), 1):
        recorder.play(n, [n])
        progress("blend", done, len(places))
    return recorder.examples(), order[recorder.places]


def learn(examples: Examples | None, kind: Kind, settings: Settings, threads: int) -> Learned:
    """The blend of a kind, if it holds out against its parts; for trees else the linear one.

    It is then fitted again on all ``examples``.
    """
    if not is_enough(examples):
        reason = f"no blend: fewer than {LEAST_QUERIES['linear']} questions to learn one from"
        return Learned(None, reason, {})
    if len(examples) < LEAST_QUERIES[kind]:
        kind = "linear"
    cut = round(len(examples) * (1 - CHECKED_SHARE))
    earlier, checked = examples.part(0, cut), examples.part(cut, len(examples))
    trial = fit_blends(earlier, kind, settings, threads)
    found = {
        name: gains(scores_of(blend, checked, settings), checked) for name, blend in trial.items()
    }
    found |= {layer: gains(checked.column(f"{layer}.z"), checked) for layer in checked.layers}
    found["settings"] = gains(scores_of(None, checked, settings), checked)
    figures = {name: float(values.mean()) for name, values in found.items()}
    told = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
    best = found[max(figures, key=figures.__getitem__)]
    for name in trial:
        if not _is_worse(found[name], best, checked.users, settings.trainer.seed):
            blend = fit_blends(examples, kind, settings, threads)[name]
            reason = f"blend {name}: NDCG@{K} on {len(checked)} queries {told}"
            return Learned(blend, reason, figures, found[name])
    reason = f"no blend: NDCG@{K} on {len(checked)} queries {told}"
    return Learned(None, reason, figures, found["settings"])


def fit_blends(
    examples: Examples, kind: Kind, settings: Settings, threads: int
) -> dict[str, Blend]:
    """The blends that may serve, by kind: the wanted one, then simpler ones."""
    linear = fit_weights(examples)
    if kind == "linear":
        return {"linear": linear}
    chosen = examples.keeping(shortlisted(examples, linear.weights))
    seed = settings.trainer.seed
    return {
        "trees": fit_trees(chosen, linear.weights, seed=seed, threads=threads),
        "linear": linear,
    }


def scores_of(blend: Blend | None, examples: Examples, settings: Settings) -> Float64s:
    """The scores of all candidates (n,) by which they would be served.

    A blend's, -inf for those that it is not asked about; without one, the sums by the settings.
    """
    if blend is None:
        weights = settings.retrieval.weights()
        if "ranker" in examples.layers:
            weights["vector"] = 0.0
        return weighted(examples, weights)
    chosen = shortlisted(examples, blend.weights)
    scores = np.full(len(chosen), -np.inf)
    scores[chosen] = blend.score(examples.keeping(chosen).columns())
    return scores


def _is_worse(values: Float64s, best: Float64s, users: Int64s, seed: int) -> bool:
    found = bootstrap.paired(
        values,
        best,
        users,
        margin=0.0,
        confidence=CONFIDENCE,
        random=np.random.default_rng(seed),
    )
    return found.high < 0
