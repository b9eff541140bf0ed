"""The most taken items for everybody, as a model: one number an item, and the same for all users.

An example of a model that lives in a package of its own; docs/models.md says how to write one.
"""

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta, Struct

from trainer.data_set import DataSet
from trainer.models.model import Capability, Fitted, Run


class MostTaken(Struct, frozen=True, forbid_unknown_fields=True):
    """Scores grow with the ``power`` of the number of interactions."""

    power: Annotated[float, Meta(gt=0, description="Power of the counts.")] = 0.5

    name: ClassVar[str] = "most_taken"
    can: ClassVar[frozenset[Capability]] = frozenset({"item_vectors", "fold_in", "explain"})

    def fit(self, data: DataSet, run: Run) -> Fitted:
        counts = data.popularity()
        if not counts.any():
            raise ValueError("most_taken: no interaction has a weight above 0")
        vectors = ((counts / counts.max()) ** self.power)[:, None].astype(np.float32)
        run.progress("fit", 1, 1)
        encoder = {"kind": "fold_in", "alpha": 1.0, "regularisation": 1.0}
        users = np.ones((len(data.user_ids), 1), np.float32)
        return Fitted(data.item_ids, vectors, encoder, None, {}, users)
