"""Matrix factorisation with differential privacy for each user (DP-SGD).

Abadi et al., "Deep Learning with Differential Privacy" (CCS 2016), algorithm 1, with a user's whole
history as the unit, as in McMahan et al., "Learning Differentially Private Recurrent Language
Models" (ICLR 2018): each step draws users, clips each one's gradient for the item vectors, and adds
noise to the sum. Users' own vectors are solved for within a step and thrown away, as in Chien et
al., "Private Alternating Least Squares" (ICML 2021). The accountant is Opacus' (Rényi differential
privacy, Mironov 2017).
"""

import math
import warnings
from typing import Annotated, Any, ClassVar

import numpy as np
from msgspec import Meta, Struct

from rheos.encoder import EncoderContext
from rheos.fold_in import FoldIn
from rheos.state import Float32s, Int64s
from trainer.data_set import DataSet, pairs
from trainer.models.adam import Adam
from trainer.models.model import Capability, Fitted, Run
from trainer.models.user_gradients import UserGradients

POPULARITY_NOISE = 8.0
"""Noise of the published counts, in units of what one user can change: a small part of ε."""
MOST_NOISE = 1e4
AT_ONCE = 512  # users whose (512, N) residuals stand in memory together


class PrivateMf(Struct, frozen=True, forbid_unknown_fields=True):
    """What a generation carries of the events (item vectors, popularity) is (ε, δ)-private by user.

    Not covered: which items and how many interactions there are, and the gate's figures. Each fit
    spends its ε anew. The seed chooses where the item vectors begin and no more: who could draw the
    noise again could take it off, and of two fits with the same noise the difference has none.
    """

    epsilon: Annotated[
        float, Meta(gt=0, description="ε of one fit; the lower, the less one user can show.")
    ] = 8.0
    delta: Annotated[
        float, Meta(gt=0, lt=1, description="δ: well below one part in the number of users.")
    ] = 1e-5
    factors: Annotated[int, Meta(ge=1, le=512, description="Length d of the vectors.")] = 16
    steps: Annotated[int, Meta(ge=1, le=100_000, description="Noisy steps.")] = 200
    user_share: Annotated[
        float, Meta(gt=0, le=1, description="Chance of each user to be drawn in a step.")
    ] = 0.2
    clip: Annotated[
        float, Meta(gt=0, description="Longest gradient of one user; longer ones are shortened.")
    ] = 1.0
    learning_rate: Annotated[float, Meta(gt=0, description="Adam's step.")] = 0.05
    alpha: Annotated[float, Meta(gt=0, description="α: how much more a taken item counts.")] = 20.0
    regularisation: Annotated[float, Meta(gt=0, description="λ of the users' vectors.")] = 1.0
    half_steps: Annotated[
        float, Meta(gt=0, description="Fold-in: items after which a history's weight halves.")
    ] = 1.5
    last: Annotated[
        int, Meta(ge=1, le=1000, description="Fold-in: latest distinct items that it reads.")
    ] = 20

    name: ClassVar[str] = "private_mf"
    can: ClassVar[frozenset[Capability]] = frozenset({"item_vectors", "fold_in", "explain"})

    def fit(self, data: DataSet, run: Run) -> Fitted:
        users = UserGradients(data, alpha=self.alpha, regularisation=self.regularisation)
        noise = self._noise_multiplier()
        random = np.random.default_rng()  # of the system's entropy, not the seed's
        shape = (len(data.item_ids), self.factors)
        begin = np.random.default_rng(run.seed).normal(0, 1 / math.sqrt(self.factors), shape)
        Y = begin.astype(np.float32)
        optimiser = Adam(Y, self.learning_rate)
        expected = self.user_share * len(data.user_ids)
        for step in range(1, self.steps + 1):
            drawn = np.flatnonzero(random.random(len(data.user_ids)) < self.user_share)
            total = self._clipped_sum(users, drawn, Y)
            total += random.normal(0, noise * self.clip, shape).astype(np.float32)
            # Everything from here on works on what is private already.
            optimiser.step(Y, total / expected)
            run.progress("fit", step, self.steps)
        encoder = FoldIn(
            EncoderContext({}, Y),
            alpha=self.alpha,
            regularisation=self.regularisation,
            half_steps=self.half_steps,
            last=self.last,
        )
        privacy: dict[str, Any] = {
            "epsilon": self._epsilon(noise),
            "delta": self.delta,
            "unit": "user",
            "noise_multiplier": noise,
        }
        return Fitted(
            data.item_ids,
            Y,
            encoder.parameters,
            None,
            {},
            users.vectors(np.arange(len(data.user_ids)), Y),
            popularity=_noisy_popularity(data, random),
            privacy=privacy,
        )

    def _clipped_sum(self, users: UserGradients, drawn: Int64s, Y: Float32s) -> Float32s:
        total = np.zeros_like(Y)
        for start in range(0, len(drawn), AT_ONCE):
            found = users.of(drawn[start : start + AT_ONCE], Y)
            shares = np.minimum(1.0, self.clip / np.maximum(found.lengths(), 1e-12))
            total += found.total(shares.astype(np.float32))
        return total

    def _epsilon(self, noise: float) -> float:
        """What all steps and the published popularity spend together."""
        try:
            from opacus.accountants import RDPAccountant
        except ImportError:
            raise ValueError("private_mf needs Opacus: pip install 'rheos[privacy]'") from None

        accountant = RDPAccountant()
        accountant.history = [(noise, self.user_share, self.steps), (POPULARITY_NOISE, 1.0, 1)]
        with warnings.catch_warnings():
            # The best order may lie at an end of the list that is tried: a looser bound, but one.
            warnings.filterwarnings("ignore", message="Optimal order")
            return float(accountant.get_epsilon(self.delta))

    def _noise_multiplier(self) -> float:
        """The least noise with which ε is kept, to one part in a hundred.

        Raises ValueError where the popularity alone would spend more.
        """
        if self._epsilon(MOST_NOISE) > self.epsilon:
            raise ValueError(
                f"epsilon {self.epsilon} is too small to publish even the items' popularity with"
            )
        low, high = 1e-2, MOST_NOISE
        while high / low > 1.01:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if self._epsilon(middle) <= self.epsilon else (middle, high)
        return high


def _noisy_popularity(data: DataSet, random: np.random.Generator) -> Float32s:
    """How many users took each item (N,), with noise; a user counts for a vector of length 1."""
    found = pairs(data)
    taken = found.mean_weights > 0
    users, items = found.users[taken], found.items[taken]
    each = np.bincount(users, minlength=len(data.user_ids))
    counts = np.bincount(items, 1 / np.sqrt(each[users]), len(data.item_ids))
    noise = random.normal(0, POPULARITY_NOISE, len(counts))
    return np.maximum(counts + noise, 0).astype(np.float32)
