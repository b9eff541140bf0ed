"""What a blend is learned from where a log is played: the part before the one that is scored."""

from collections.abc import Callable

from rheos.generation import Generation
from rheos.live_system import LiveSystem
from rheos.settings import Settings
from trainer.blending.examples import Examples, Recorder
from trainer.evaluation.event_log import EventLog

_DAY_MS = 24 * 3600 * 1000


def spans(log: EventLog, begin: int, end: int, days: float) -> list[tuple[int, int]]:
    """The events [begin, end) of a log cut where more than ``days`` have passed since a cut."""
    cuts = [begin]
    for n in range(begin, end):
        if log.times_ms[n] - log.times_ms[cuts[-1]] > days * _DAY_MS:
            cuts.append(n)
    return list(zip(cuts, [*cuts[1:], end], strict=True))


def rehearse(
    log: EventLog,
    live: LiveSystem,
    generation_of: Callable[[int], Generation],
    settings: Settings,
    *,
    begin: int,
    end: int,
    every: int,
    days: float,
) -> Examples | None:
    """Plays the first ``end`` events and asks before each ``every``-th (of the log) from ``begin``.

    ``generation_of(n)``, fitted on the first n events alone, serves from there on; it is asked for
    at ``begin`` and whenever more than ``days`` have passed. None: no question had an answer.
    """
    recorder = Recorder(live, log.events[:end], settings)
    asked = [n for n in recorder.askable().tolist() if n >= begin and n % every == 0]
    for start, stop in spans(log, begin, end, days):
        recorder.play(start)
        live.serve(generation_of(start))
        recorder.play(stop, [n for n in asked if start <= n < stop])
    return recorder.examples()
