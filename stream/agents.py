"""Our agents: users, items, and an intake for each foreign source."""

from collections.abc import Callable, Sequence
from typing import Any

from rheos.generation import Generation
from rheos.settings import Settings
from rheos.state import decode_item_state, decode_user_state
from rheos.topics import Topics
from stream.agent import Agent, Changes, Fold, Output
from stream.intake import intake_agent
from stream.items import ItemFold
from stream.record import Record
from stream.users import UserFold


def all_agents(settings: Settings, generation: Callable[[], Generation | None]) -> list[Agent]:
    """Every agent under these settings; ``generation`` tells the one in service now."""
    return [
        users_agent(settings, generation),
        items_agent(settings),
        *(intake_agent(settings, source) for source in settings.sources),
    ]


def users_agent(settings: Settings, generation: Callable[[], Generation | None]) -> Agent:
    """Events to user states; says what each interaction means for items as transitions."""
    topics = Topics(settings)

    def new_fold(partition: int) -> Fold:
        users = UserFold(settings, partition)

        def fold(records: Sequence[Record], state_of: Callable[[str], Any]) -> Changes:
            changes = users.fold(records, state_of, generation())
            return Changes(
                changes.states,
                [
                    Output(topics.transitions, number, None, packed)
                    for number, packed in changes.transitions
                ],
                changes.dead_letters,
                changes.accepted,
                changes.duplicates,
            )

        return fold

    return Agent(
        name="users",
        input_topic=topics.events,
        state_topic=topics.user_state,
        interval_s=settings.stream.users_interval_ms / 1000,
        new_fold=new_fold,
        decode_state=decode_user_state,
    )


def items_agent(settings: Settings) -> Agent:
    """Transitions to item states."""
    topics = Topics(settings)
    items = ItemFold(settings)

    def fold(records: Sequence[Record], state_of: Callable[[str], Any]) -> Changes:
        return Changes(items.fold(records, state_of))

    return Agent(
        name="items",
        input_topic=topics.transitions,
        state_topic=topics.item_state,
        interval_s=settings.stream.items_interval_ms / 1000,
        new_fold=lambda partition: fold,
        decode_state=decode_item_state,
    )
