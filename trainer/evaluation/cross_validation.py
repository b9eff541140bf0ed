"""k-fold cross-validation: each part is held out once while a model is fitted on the others.

It ignores time: a model may learn from what happened later than what it must find. Good for small
data and for comparing settings; ``time_split`` is the honest one.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from rheos.state import Int64s
from trainer.data_set import DataSet, Mask
from trainer.evaluation import holdout
from trainer.evaluation.holdout import Holdout

Unit = Literal["users", "interactions"]

GIVEN = 0.8
"""The share of a held-out user's interactions that the encoder is given."""


def folds(data: DataSet, count: int, unit: Unit, seed: int) -> Iterator[Holdout]:
    """``count`` holdouts. Raises ValueError for fewer than 2 or more than there is to divide.

    ``users``: the users of a part are unknown to the fit; the earliest 80 % of the interactions of
    each are her history, the rest is to be found ("strong generalisation": Marlin 2004; Liang et
    al., WWW 2018). A time is not cut in two: users all of whose interactions have one time are left
    out. ``interactions``: the parts are drawn from each user's baskets, interactions of one time,
    which stay together; where the data have but one time, from the (user, item) pairs.
    """
    if count < 2:
        raise ValueError(f"cross-validation with {count} folds: at least 2")
    units = data.users.astype(np.int64) if unit == "users" else _baskets(data)
    distinct = int(units.max()) + 1 if len(units) else 0
    if distinct < count:
        raise ValueError(f"{distinct} {unit} cannot be divided into {count} folds")
    fold_of_unit = np.random.default_rng(seed).permutation(distinct) % count
    given = _given(data)
    has_past = np.bincount(data.users[given], minlength=len(data.user_ids))[data.users] > 0
    for fold in range(count):
        held_out = fold_of_unit[units] == fold
        if unit == "users":
            known, test = held_out & given, held_out & ~given & has_past
        else:
            known, test = ~held_out, held_out
        yield holdout.of_masks(data, ~held_out, known, test)


def _baskets(data: DataSet) -> Int64s:
    """Numbers (n,) from 0: alike where user and time are, or user and item if times are all one."""
    if len(data) and (data.times_ms == data.times_ms[0]).all():
        second = data.items.astype(np.int64)
    else:
        second = data.times_ms
    _, units = np.unique(np.stack([data.users, second]), axis=1, return_inverse=True)
    return units.reshape(-1).astype(np.int64)


def _given(data: DataSet) -> Mask:
    """Whether an interaction (n,) is before the time at which its user's last fifth begins."""
    begins = data.begins()
    lengths = np.diff(begins)
    cut = begins[:-1] + np.minimum((GIVEN * lengths).astype(np.int64), lengths - 1)
    cuts_ms = data.times_ms[cut] if len(data) else data.times_ms
    before: Mask = data.times_ms < cuts_ms[data.users]
    return before
