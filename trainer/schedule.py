"""When the next cycle is due, and why. Pure: the clock and the counts are passed in."""

from typing import Literal

from rheos.settings import TrainerSettings

GROWTH = 1.25

Why = Literal["first events", "time", "new events", "drift"]


class Schedule:
    """Every N minutes or M new records, whichever comes first, and only if there are new ones.

    Before the first generation: as soon as there are ``min_events``, then again whenever the
    archive has grown by a quarter. After it, a doubled archive counts as M new records, so that a
    young system does not serve its first attempt for an hour. In between, a look for drift every
    ``drift_minutes``, if there are enough new records to judge by. ``now`` is in seconds of any
    clock that goes on; ``records`` counts what is archived.
    """

    def __init__(self, trainer: TrainerSettings) -> None:
        self._trainer = trainer
        self._served = False
        self._records = self._looked_records = 0
        self._began = self._looked = 0.0

    def promoted(self) -> None:
        """Told that a generation serves."""
        self._served = True

    def started(self, records: int, now: float) -> None:
        """Told that a cycle began on so many records."""
        self._records, self._began = records, now
        self.looked(records, now)

    def looked(self, records: int, now: float) -> None:
        """Told that a look for drift began on so many records."""
        self._looked_records, self._looked = records, now

    def due(self, records: int, now: float) -> Why | None:
        """Why a cycle, or a look for drift, is due now; None if none is."""
        trainer, new = self._trainer, records - self._records
        if new <= 0:
            return None
        if not self._served:
            enough = records >= max(trainer.min_events, GROWTH * self._records)
            return "first events" if enough else None
        if now - self._began >= trainer.every_minutes * 60:
            return "time"
        if new >= min(trainer.new_events, max(self._records, trainer.min_events)):
            return "new events"
        minutes = trainer.drift_minutes
        if minutes and now - self._looked >= minutes * 60 and new >= trainer.gate_min_events:
            return "drift" if records > self._looked_records else None
        return None
