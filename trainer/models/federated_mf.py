"""Matrix factorisation by federated averaging, simulated: clients keep their users' side.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data" (AISTATS
2017), algorithm 1, with the averaged change as the server's gradient, as in Reddi et al., "Adaptive
Federated Optimization" (ICLR 2021), algorithm 2.

What this is and is not: all clients run here, one after the other, on an archive that has every
event. It shows what such training costs in quality; it moves no data and protects nobody. A
client's change of the item vectors can tell what its users did; ``private_mf`` is the model that
bounds this.
"""

import math
from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta, Struct

from rheos.encoder import EncoderContext
from rheos.fold_in import FoldIn
from rheos.ids import partition_of
from rheos.state import Float32s, Int64s
from trainer.data_set import DataSet
from trainer.models.adam import Adam
from trainer.models.model import Capability, Fitted, Run
from trainer.models.user_gradients import UserGradients


class FederatedMf(Struct, frozen=True, forbid_unknown_fields=True):
    """Users live on clients by their id, as on partitions; of each round's clients only the changed
    item vectors come back, averaged by their number of users. Their vectors never leave them.
    """

    clients: Annotated[int, Meta(ge=1, le=10_000, description="Clients that hold the users.")] = 16
    client_share: Annotated[
        float, Meta(gt=0, le=1, description="Share of the clients that take part in a round.")
    ] = 0.5
    rounds: Annotated[int, Meta(ge=1, le=100_000, description="Rounds of averaging.")] = 100
    local_steps: Annotated[
        int, Meta(ge=1, le=1000, description="Steps on a client before it answers.")
    ] = 2
    local_rate: Annotated[float, Meta(gt=0, description="A client's step.")] = 0.05
    learning_rate: Annotated[float, Meta(gt=0, description="The server's Adam step.")] = 0.05
    factors: Annotated[int, Meta(ge=1, le=512, description="Length d of the vectors.")] = 32
    alpha: Annotated[float, Meta(gt=0, description="α: how much more a taken item counts.")] = 20.0
    regularisation: Annotated[float, Meta(gt=0, description="λ of the users' vectors.")] = 1.0
    half_steps: Annotated[
        float, Meta(gt=0, description="Fold-in: items after which a history's weight halves.")
    ] = 1.5
    last: Annotated[
        int, Meta(ge=1, le=1000, description="Fold-in: latest distinct items that it reads.")
    ] = 20

    name: ClassVar[str] = "federated_mf"
    can: ClassVar[frozenset[Capability]] = frozenset({"item_vectors", "fold_in", "explain"})

    def fit(self, data: DataSet, run: Run) -> Fitted:
        users = UserGradients(data, alpha=self.alpha, regularisation=self.regularisation)
        homes = np.array([partition_of(user, self.clients) for user in data.user_ids], np.int64)
        clients = [np.flatnonzero(homes == home) for home in range(self.clients)]
        clients = [mine for mine in clients if len(mine)]
        taking_part = max(1, round(self.client_share * len(clients)))
        random = np.random.default_rng(run.seed)
        shape = (len(data.item_ids), self.factors)
        Y = random.normal(0, 1 / math.sqrt(self.factors), shape).astype(np.float32)
        server = Adam(Y, self.learning_rate)
        for done in range(1, self.rounds + 1):
            chosen = random.choice(len(clients), taking_part, replace=False)
            change = np.zeros_like(Y)
            for client in chosen:
                change += len(clients[client]) * self._change(users, clients[client], Y)
            change /= np.float32(sum(len(clients[client]) for client in chosen))
            server.step(Y, change)
            run.progress("fit", done, self.rounds)
        encoder = FoldIn(
            EncoderContext({}, Y),
            alpha=self.alpha,
            regularisation=self.regularisation,
            half_steps=self.half_steps,
            last=self.last,
        )
        vectors = users.vectors(np.arange(len(data.user_ids)), Y)
        return Fitted(data.item_ids, Y, encoder.parameters, None, {}, vectors)

    def _change(self, users: UserGradients, mine: Int64s, Y: Float32s) -> Float32s:
        """One client's work: where its own steps lead from Y, as a gradient."""
        own = Y.copy()
        for _ in range(self.local_steps):
            own -= self.local_rate / len(mine) * users.of(mine, own).total()
        change: Float32s = (Y - own) / (self.local_rate * self.local_steps)
        return change
