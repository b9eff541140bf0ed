"""Publishing a generation, letting another one serve, and clearing away old ones."""

import logging
import time
from collections.abc import Sequence

from kafka.errors import KafkaError

from rheos.announcements import (
    SERVING,
    Announcement,
    announce,
    is_withdrawn_slot,
    read_all,
    withdrawn_slot,
)
from rheos.generation import Generation
from rheos.settings import Settings
from rheos.snapshot import SnapshotError, is_name, number_of
from rheos.snapshot_store import SnapshotStore
from trainer.fitting import Made

log = logging.getLogger(__name__)


class PublishError(RuntimeError):
    """Nothing to publish or to roll back to; the text says why."""


class ServingChangedError(RuntimeError):
    """Another generation serves than the one that a candidate was held against."""


class NotAnnouncedError(RuntimeError):
    """A generation is stored, and Kafka failed before its announcement was acknowledged."""


class Decisions:
    """What has been announced for the slot ``serving``, and what the store holds, read once.

    Only promoted generations are ever put into the store, so that its content is what can be
    rolled back to. ``withdrawn`` are those that are not to serve again, by name.
    """

    def __init__(self, settings: Settings, store: SnapshotStore) -> None:
        everything = read_all(settings)
        self.announced = [found for found in everything if found.slot == SERVING]
        self.withdrawn = {
            found.generation: found for found in everything if is_withdrawn_slot(found.slot)
        }
        self.stored = store.names()

    @property
    def ruling(self) -> Announcement | None:
        return self.announced[-1] if self.announced else None

    @property
    def serving(self) -> str:
        """The serving generation's name, or none."""
        return self.ruling.generation if self.ruling else ""

    def next_number(self) -> int:
        """A generation number above all that were ever announced or stored.

        The topic is compacted, but the highest-numbered snapshot is never deleted.
        """
        names = [*self.stored, *(found.generation for found in self.announced)]
        return 1 + max((number_of(name) for name in names if is_name(name)), default=0)

    def predecessor(self, name: str) -> str:
        """The stored generation to roll back to from ``name``: the one that ruled before it.

        Where that is not known any more, or withdrawn, the stored one of the next lower number that
        is not. Empty: none.
        """
        fit = [found for found in self.stored if found not in self.withdrawn]
        for found in reversed(self.announced):
            if found.generation == name and found.predecessor in fit:
                return found.predecessor
        lower = [found for found in fit if number_of(found) < number_of(name)]
        return lower[-1] if lower else ""


def publish(
    settings: Settings, store: SnapshotStore, made: Made, reason: str, against: str
) -> Announcement:
    """Stores a generation, reads it back, announces it, and clears away old ones.

    ``against`` is the serving generation that it was held against, or empty. 1. put: wholly or not
    at all; 2. read back and loaded as every process will; 3. announced: from here on it rules;
    4. old ones are deleted, and where that fails, by the next call. A crash between two steps
    leaves a generation that is stored and does not rule. Raises ServingChangedError when
    ``against`` serves no more, such as after a roll-back during a long fit: nothing is stored or
    announced then. NotAnnouncedError: stored, and a person can promote it. SnapshotError, OSError.
    """
    name = store.put(*made)  # 1
    try:
        Generation(store.get(name))  # 2
    except SnapshotError:
        store.delete(name)
        raise
    try:
        decisions = Decisions(settings, store)
        if decisions.serving != against:
            store.delete(name)
            raise ServingChangedError("the serving generation changed meanwhile")
        announcement = _announce(settings, decisions, name, against, reason)  # 3
    except KafkaError as error:
        raise NotAnnouncedError(
            f"{name} is stored, but Kafka failed before its announcement was acknowledged"
            f" ({error or type(error).__name__}); `rheos generations promote {name}` lets it serve"
        ) from error
    try:
        prune(settings, store)  # 4
    except (KafkaError, OSError) as error:
        log.error("old generations are cleared away the next time: %s", error)
    return announcement


def promote(
    settings: Settings, store: SnapshotStore, name: str, *, anyway: bool = False
) -> Announcement:
    """Announces any stored generation, by hand: the gate is not asked.

    Its snapshot is read and verified before. Raises PublishError (it is serving already, or was
    withdrawn and not ``anyway``), SnapshotError, KafkaError.
    """
    decisions = Decisions(settings, store)
    serving = decisions.serving
    _require_fit(decisions, name, anyway)
    Generation(store.get(name))
    after = f", after {serving}" if serving else ""
    return _announce(settings, decisions, name, serving, f"promoted by hand{after}")


def roll_back(
    settings: Settings, store: SnapshotStore, name: str = "", *, anyway: bool = False
) -> Announcement:
    """Announces an older generation: ``name``, or the predecessor of the serving one.

    Its snapshot is read and verified before. Raises PublishError, SnapshotError, KafkaError.
    """
    decisions = Decisions(settings, store)
    serving = decisions.serving
    if not serving:
        raise PublishError("no generation is serving yet")
    target = name or decisions.predecessor(serving)
    if not target:
        raise PublishError(f"{serving} is serving, and the store holds nothing older")
    _require_fit(decisions, target, anyway)
    Generation(store.get(target))
    before = decisions.predecessor(target)
    return _announce(settings, decisions, target, before, f"rolled back from {serving}")


def withdraw(settings: Settings, store: SnapshotStore, name: str, reason: str) -> Announcement:
    """Rolls back from the serving generation ``name``, which is not to serve again.

    1. Its predecessor is read and verified. 2. It is announced that ``name`` is withdrawn. 3. The
    predecessor is announced. Where a crash comes before 3, the call can be repeated. Raises
    PublishError where nothing older is stored, or ``name`` is not serving (any more).
    """
    decisions = Decisions(settings, store)
    if decisions.serving != name:
        raise PublishError(f"{name} is not serving, {decisions.serving or 'nothing'} is")
    target = decisions.predecessor(name)
    if not target:
        raise PublishError(f"{name} is serving, and the store holds nothing older")
    Generation(store.get(target))  # 1
    told = Announcement(
        number=1,
        slot=withdrawn_slot(name),
        generation=name,
        reason=reason,
        time_ms=time.time_ns() // 1_000_000,
    )
    announce(settings, told)  # 2
    decisions.withdrawn[name] = told
    before = decisions.predecessor(target)
    return _announce(settings, decisions, target, before, f"rolled back from {name}: {reason}")  # 3


def _require_fit(decisions: Decisions, name: str, anyway: bool) -> None:
    """Raises PublishError where ``name`` serves already, or was withdrawn and not ``anyway``."""
    if name == decisions.serving:
        raise PublishError(f"{name} is serving already")
    found = decisions.withdrawn.get(name)
    if found is not None and not anyway:
        raise PublishError(f"{name} was withdrawn ({found.reason}); --anyway lets it serve again")


def prune(settings: Settings, store: SnapshotStore) -> list[str]:
    """Deletes all but the newest ``trainer.keep``, the serving one and its predecessor."""
    decisions = Decisions(settings, store)
    kept = set(decisions.stored[-settings.trainer.keep :])
    if decisions.serving:
        kept |= {decisions.serving, decisions.predecessor(decisions.serving)}
    gone = [name for name in decisions.stored if name not in kept]
    for name in gone:
        store.delete(name)
    return gone


def _announce(
    settings: Settings, decisions: Decisions, name: str, predecessor: str, reason: str
) -> Announcement:
    announcement = Announcement(
        number=1 + (decisions.ruling.number if decisions.ruling else 0),
        slot=SERVING,
        generation=name,
        reason=reason,
        time_ms=time.time_ns() // 1_000_000,
        predecessor=predecessor,
    )
    announce(settings, announcement)
    return announcement


def rows(decisions: Decisions, store: SnapshotStore) -> Sequence[dict[str, object]]:
    """What is stored, oldest first, one mapping a generation; a broken one says so."""
    told = []
    for name in decisions.stored:
        row: dict[str, object] = {"generation": name, "serving": name == decisions.serving}
        if name in decisions.withdrawn:
            row["withdrawn"] = decisions.withdrawn[name].reason
        try:
            manifest = store.get(name).manifest
        except SnapshotError as error:
            told.append(row | {"problem": str(error)})
            continue
        row |= {
            "model": manifest.model,
            "items": manifest.items,
            "interactions": manifest.interactions,
            "created_ms": manifest.created_ms,
            "metrics": manifest.metrics,
        }
        told.append(row)
    return told
