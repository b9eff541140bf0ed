"""The gate's second question: candidate and serving generation as they answer, each with its blend.

Both play the same events through the live path and are asked the same questions: those on which the
candidate's blend was checked, which neither model was fitted on and neither blend learned from.
"""

from typing import NamedTuple

import numpy as np

from rheos.generation import Generation
from rheos.settings import Settings
from trainer import bootstrap
from trainer.blending.learning import Learned, record, scores_of
from trainer.blending.weights import K, gains
from trainer.data_set import DataSet, Mask
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

    Both were fitted on interactions in ``earlier`` (n,) alone. By the gate's tolerance and
    confidence. A question to which the serving generation has no candidates counts 0 for it.
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
    figures = {f"gate_served_ndcg@{K}": own, f"gate_served_against_ndcg@{K}": against}
    figures |= {f"gate_served_{name}": value for name, value in difference.told().items()}
    return AsServed(difference.p_value >= 1 - trainer.gate_confidence, reason, figures)
