"""What a model is fitted on, and what it must then find."""

from typing import NamedTuple

import numpy as np

from rheos.state import History
from trainer.data_set import DataSet, Mask


class Holdout(NamedTuple):
    """A model is fitted on ``train``; ``known`` is what is known of each judged user when asked.

    ``wanted`` has, by user id, the distinct items to find: of a positive weight, and new to the
    user.
    """

    train: DataSet
    known: DataSet
    wanted: dict[str, list[str]]

    def histories(self, size: int) -> list[History]:
        """The newest ``size`` known interactions of each judged user, in the order of ``wanted``.

        Interactions of one user at the same time stand in an order of chance (``DataSet``).
        """
        known, begins = self.known, self.known.begins()
        row_of = {user_id: row for row, user_id in enumerate(known.user_ids)}
        found = []
        for user_id in self.wanted:
            row = row_of.get(user_id)
            begin, end = (0, 0) if row is None else (int(begins[row]), int(begins[row + 1]))
            span = slice(max(begin, end - size), end)
            found.append(known.history(span))
        return found

    def activity(self) -> list[int]:
        """How many known interactions each judged user has, in the order of ``wanted``."""
        counts = np.bincount(self.known.users, minlength=len(self.known.user_ids))
        of_user = dict(zip(self.known.user_ids, counts.tolist(), strict=True))
        return [of_user.get(user_id, 0) for user_id in self.wanted]


def of_masks(data: DataSet, train: Mask, known: Mask, test: Mask) -> Holdout:
    """The holdout of interactions under masks (n,). Raises ValueError where nothing is left."""
    keys = data.users.astype(np.int64) * max(1, len(data.item_ids)) + data.items
    eligible = test & (data.weights > 0) & ~np.isin(keys, keys[known])
    if not (data.weights[train] > 0).any():
        raise ValueError("the split leaves nothing to fit on")
    if not eligible.any():
        raise ValueError("the split leaves nothing to find")
    wanted: dict[str, list[str]] = {}
    users, items = np.divmod(np.unique(keys[eligible]), max(1, len(data.item_ids)))
    for user, item in zip(users.tolist(), items.tolist(), strict=True):
        wanted.setdefault(data.user_ids[user], []).append(data.item_ids[item])
    return Holdout(data.where(train), data.where(known), wanted)
