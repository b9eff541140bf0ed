"""A split in time: fitted is all before a time, to be found is what users take from then on.

What a system would have known at that moment, and nothing later, for any user (a split per user, as
leave-one-out, lets a model see what others do afterwards: Meng et al., "Exploring data splitting
strategies for the evaluation of recommendation models", RecSys 2020). Interactions of one time, a
basket among them, fall on one side, and their order within it is one of chance.
"""

import numpy as np

from trainer.data_set import DataSet
from trainer.evaluation import holdout
from trainer.evaluation.holdout import Holdout


def split(data: DataSet, at_ms: int) -> Holdout:
    """Fitted and known is what is before ``at_ms``, to be found what is at it or later.

    Raises ValueError where a side is left with nothing.
    """
    before = data.times_ms < at_ms
    return holdout.of_masks(data, before, before, ~before)


def time_of(data: DataSet, share: float) -> int:
    """The latest time with at most ``share`` (0 to 1) of the interactions before it.

    Raises ValueError where no interaction would be before it: then all of that share have one time.
    """
    times = np.sort(data.times_ms)
    place = int(len(times) * share)
    if not 0 < place < len(times) or times[place] == times[0]:
        raise ValueError(f"{len(times)} interactions cannot be cut in time at a share of {share:g}")
    return int(times[place])
