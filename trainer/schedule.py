"""When the next cycle is due. Pure: the clock and the counts are passed in."""

from rheos.settings import TrainerSettings

GROWTH = 1.25


class Schedule:
    """Every N minutes or M new records, whichever comes first, and only if there are new ones.

    Before the first generation: as soon as there are ``min_events``, then again whenever the
    archive has grown by a quarter. After it, a doubled archive counts as M new records, so that a
    young system does not serve its first attempt for an hour. ``now`` is in seconds of any clock
    that goes on; ``records`` counts what is archived.
    """

    def __init__(self, trainer: TrainerSettings) -> None:
        self._trainer = trainer
        self._served = False
        self._records = 0
        self._began = 0.0

    def promoted(self) -> None:
        """Told that a generation serves."""
        self._served = True

    def started(self, records: int, now: float) -> None:
        """Told that a cycle began on so many records."""
        self._records, self._began = records, now

    def is_due(self, records: int, now: float) -> bool:
        new = records - self._records
        if new <= 0:
            return False
        if not self._served:
            return records >= max(self._trainer.min_events, GROWTH * self._records)
        if now - self._began >= self._trainer.every_minutes * 60:
            return True
        return new >= min(self._trainer.new_events, max(self._records, self._trainer.min_events))
