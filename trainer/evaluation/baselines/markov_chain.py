"""A first-order Markov chain: what comes next depends on the last item alone."""

from collections.abc import Sequence

import numpy as np

from rheos.state import Float64s, Int64s


class MarkovChain:
    """P(x | y) = (c_yx + κ p_x) / (c_y + κ): transition counts, backed off to popularity p.

    c_yx counts each step from y to x as 1 and, up to ``window`` steps further on, as 1/distance:
    with few data the wider counts are the better estimate. ``back_off`` is κ. An (N, N) array of
    float64: for catalogues of some thousand items.
    """

    def __init__(
        self, sequences: Sequence[Int64s], items: int, *, window: int = 1, back_off: float = 10.0
    ) -> None:
        counts = np.zeros((items, items))
        for sequence in sequences:
            for distance in range(1, min(window, len(sequence) - 1) + 1):
                np.add.at(counts, (sequence[:-distance], sequence[distance:]), 1.0 / distance)
        popularity = np.bincount(np.concatenate(sequences), minlength=items) / sum(
            map(len, sequences)
        )
        left = counts.sum(axis=1, keepdims=True)
        self._popularity = popularity
        self._chances = (counts + back_off * popularity) / (left + back_off)

    def scores(self, history: Int64s) -> Float64s:
        if not len(history):
            return self._popularity
        chances: Float64s = self._chances[history[-1]]
        return chances
