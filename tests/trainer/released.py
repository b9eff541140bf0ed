"""Small generations to publish."""

from rheos.settings import Settings
from rheos.snapshot_store import LocalStore
from tests.trainer.shop import taste
from trainer.data_set import of_interactions
from trainer.fitting import Made, make
from trainer.models import model_of
from trainer.models.model import Run
from trainer.publish import Decisions, publish


def made(number: int) -> Made:
    events = taste(60)
    data = of_interactions(
        [event.user_id for event in events],
        [event.item_id for event in events],
        [event.time_ms for event in events],
    )
    model = model_of("als", {"factors": 2, "iterations": 1})
    return make(number, model, model.fit(data, Run(seed=number)), data, {})


def release(settings: Settings, store: LocalStore) -> str:
    """Publishes a new one upon the serving one, and returns its name."""
    decisions = Decisions(settings, store)
    new = made(decisions.next_number())
    return publish(settings, store, new, "better", decisions.serving).generation
