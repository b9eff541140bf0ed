"""Generations as they answer, each with its blend: the second question of the gate and of drift.

Events are played through the live path, and questions asked before them that neither a model was
fitted on nor a blend learned from.
"""

from typing import NamedTuple

import numpy as np

from rheos.generation import Generation
from rheos.settings import Settings
from trainer import bootstrap, gate
from trainer.blending.learning import SERVED_NDCG, Learned, is_enough, record, scores_of
from trainer.blending.weights import K, gains
from trainer.data_set import DataSet, Mask
from trainer.gate import Drift
from trainer.models.model import Progress, silent


class AsServed(NamedTuple):
    """``figures`` as a manifest has them."""

    passed: bool
    reason: str
    figures: dict[str, float]


def compare(
    learned: Learned,
    serving: Generation,
    data: DataSet,
    earlier: Mask,
    settings: Settings,
    progress: Progress = silent,
) -> AsServed:
    """Whether the candidate with what was ``learned`` for it is not significantly worse.

    Asked is that on which its blend was checked. Both were fitted on interactions in ``earlier``
    (n,) alone. By the gate's tolerance and confidence. A question to which the serving generation
    has no candidates counts 0 for it.
    """
    trainer = settings.trainer
    examples, rows = record(settings, serving, data, earlier, progress, learned.rows)
    others = np.zeros(len(data))
    if examples is not None:
        others[rows] = gains(scores_of(serving.blend, examples, settings), examples)
    against = float(others[learned.rows].mean())
    difference = bootstrap.paired(
        learned.gains,
        others[learned.rows],
        data.users[learned.rows].astype(np.int64),
        margin=trainer.gate_tolerance * against,
        confidence=trainer.gate_confidence,
        random=np.random.default_rng(trainer.seed),
    )
    own = float(learned.gains.mean())
    reason = (
        f"as served NDCG@{K} {own:.4f} against {against:.4f} on {len(learned.rows)} questions,"
        f" p = {difference.p_value:.3f}"
    )
    figures = {f"gate_served_against_ndcg@{K}": against}
    figures |= {f"gate_served_{name}": value for name, value in difference.told().items()}
    return AsServed(difference.p_value >= 1 - trainer.gate_confidence, reason, figures)


def drift(
    serving: Generation,
    data: DataSet,
    earlier: Mask,
    settings: Settings,
    progress: Progress = silent,
) -> Drift | None:
    """Holds what the serving generation earns as it answers against the same at its gate.

    Asked are interactions that are not ``earlier`` (n,), which are all that it was fitted on. None:
    the settings want no blends, no gate has measured it so, or too few questions have an answer.
    """
    at_gate = serving.manifest.metrics.get(SERVED_NDCG)
    if settings.trainer.blend == "none" or at_gate is None:
        return None
    examples, rows = record(settings, serving, data, earlier, progress)
    if not is_enough(examples):
        return None
    own = gains(scores_of(serving.blend, examples, settings), examples)
    return gate.fall(own, data.users[rows].astype(np.int64), float(at_gate), settings)
