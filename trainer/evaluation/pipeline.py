"""Both stages as one on a holdout: a generation with the blend learned for it, asked as it serves.

Covington et al., "Deep neural networks for YouTube recommendations" (RecSys 2016): what retrieves
and what ranks are judged together, whatever the two are. The live path (``rheos.live_system``) has
taken what was fitted, and nothing later, when it is asked.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from rheos.generation import Generation
from rheos.settings import Settings
from rheos.state import Float32s, History
from trainer import fitting, gate
from trainer.blending import learning, replay
from trainer.blending.learning import Learned
from trainer.data_set import DataSet
from trainer.evaluation import refit
from trainer.evaluation.holdout import Holdout
from trainer.fitting import Made
from trainer.models import item_weigher_of_settings
from trainer.models.model import Model, Run

_LEARN_AT_ONCE = 500


def made(model: Model, data: DataSet, settings: Settings, run: Run) -> Made:
    """A generation fitted on ``data``, with item weights where the settings ask for them.

    Raises FitError, SettingsError.
    """
    fitted = fitting.fit(model, data, run)
    fitted = fitting.with_item_weights(fitted, item_weigher_of_settings(settings), data, run)
    return fitting.make(1, model, fitted, data, {})


def learned(model: Model, data: DataSet, settings: Settings, run: Run) -> Learned:
    """The blend by ``trainer.blend`` for a generation of ``data``, learned within ``data``.

    As in the trainer's cycle: the newest events are set aside as for the gate, the model is fitted
    on the rest, and the blend is learned on what was set aside. Raises FitError, SettingsError.
    """
    trial = gate.plan(data, None, settings)
    if trial.reason:
        return Learned(None, f"no blend: {trial.reason}", {})
    candidate = refit.in_memory(made(model, data.where(trial.train), settings, run))
    return learning.learn_for(settings, candidate, None, data, trial.train, run)


class Live:
    """The live path at the moment at which the users of a holdout are asked for lists of ``k``.

    At most ``replay.MOST_FOLDED`` of the newest interactions made its states.
    """

    def __init__(self, part: Holdout, settings: Settings, k: int) -> None:
        data = part.train
        newest = replay.in_time(data)[-replay.MOST_FOLDED :]
        _, events, self._live = replay.of(settings, data, newest, k)
        for begin in range(0, len(events), _LEARN_AT_ONCE):
            self._live.learn(events[begin : begin + _LEARN_AT_ONCE])
        self._user_ids = list(part.wanted)

    def scores(
        self, generation: Generation, row_of: Mapping[str, int], histories: Sequence[History]
    ) -> Iterator[Float32s]:
        """Of each user to be asked, by row (N,): the scores of the list she is shown, else -inf.

        No item of her one of ``histories`` is shown, whether or not the settings leave it out.
        """
        self._live.serve(generation)
        for user_id, history in zip(self._user_ids, histories, strict=True):
            own = np.full(len(row_of), -np.inf, np.float32)
            for item_id, score in self._live.answer(user_id, history.item_ids).items():
                own[row_of[item_id]] = score
            yield own
