"""``rheos play-demo``: the demo's data, into a running system. `rheos up --demo` runs it."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from rheos.settings import Settings

DEFAULT_SPEED = 120.0
"""Two minutes of the shop are a second: in the opening hours of the second half it sells about five
lines a minute."""

CUSTOMER = "17850"
"""Someone who bought in the first half, to ask the API for."""

BROKER_TIMEOUT_S = 120.0
BAR_EVERY_S = 0.5
LIVE_EVERY_S = 15.0
ASK_AGAIN_S = 0.3


def command(*, speed: Annotated[float, Parameter(alias="-s")] = DEFAULT_SPEED) -> int:
    """Play a real shop's year (Online Retail) into Kafka: catalogue, backfill, one fit, live.

    What was done before is not done again, wherever that was interrupted: the position stands in
    Kafka beside the events. Needs a broker; the other workers may start at any time.

    Example: `rheos play-demo --demo --speed 600`

    Parameters
    ----------
    speed
        How many times faster than recorded the second half is played; 0: as fast as it is taken.
    """
    from rheos.cli import broker
    from rheos.cli.stop_signals import stop_signals
    from rheos.settings import load

    settings = load()
    _quiet()
    broker.wait_for_topics(settings, BROKER_TIMEOUT_S)
    # In a replay a signal lets the transaction in work end. Elsewhere it ends the process at once,
    # as every step may be interrupted anywhere.
    _load_catalogue(settings)
    with stop_signals() as stop:
        _replay(settings, stop, 0.0, half=True)
    if not stop.is_set():
        _train(settings)
        with stop_signals() as stop:
            asking = threading.Thread(target=_tell_when_served, args=(settings, stop), daemon=True)
            asking.start()
            _replay(settings, stop, speed, half=False)
    return 0


def _quiet() -> None:
    import logging

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("kafka").setLevel(logging.ERROR)


def _load_catalogue(settings: "Settings") -> None:
    from rheos.demo import online_retail

    count = online_retail.load_catalogue(settings)
    if count:
        print(f"catalogue: {count:,} items of Online Retail (CC BY 4.0, see ATTRIBUTION.txt)")


def _replay(settings: "Settings", stop: threading.Event, speed: float, *, half: bool) -> None:
    """The first half, or what is left of the whole. Both are one source with one position."""
    import importlib

    from rheos.demo import online_retail

    stream_replay = importlib.import_module("stream.replay")
    pace = importlib.import_module("stream.pace").Pace(speed=speed)
    until = online_retail.ROWS // 2 if half else online_retail.ROWS
    plan = stream_replay.Plan(
        online_retail.rows(), online_retail.mapping(), online_retail.NAME, pace, until=until
    )
    what = "backfill" if half else "live stream"
    told = _bars(BAR_EVERY_S if half or not speed else LIVE_EVERY_S)

    def progress(summary: Any) -> None:
        told(what, summary.next_row, until, f", {summary.rows_per_second:,.0f}/s")

    done = stream_replay.replay(settings, plan, stop=stop, progress=progress, notice=print)
    if done.rows and not done.stopped:
        refused = sum(done.dead_letters.values())
        print(
            f"{what} done: {done.rows:,} rows in {done.seconds:.1f} s, {done.events:,} events and"
            f" {refused:,} dead letters (cancellations, and lines without a customer)"
        )


def _train(settings: "Settings") -> None:
    """The first generation, on what has arrived; none if one rules already."""
    import importlib

    from rheos.announcements import ruling

    if ruling(settings) is not None:
        return
    cycle = importlib.import_module("trainer.cycle")
    told = _bars(BAR_EVERY_S)
    try:
        outcome = cycle.train_once(settings, told)
    except cycle.TrainerBusyError as busy:
        print(f"not trained here: {busy}")
        return
    print(
        f"{outcome.kind} {outcome.generation or outcome.model}: {outcome.interactions:,}"
        f" interactions in {outcome.seconds:.1f} s; {outcome.reason}"
    )


def _tell_when_served(settings: "Settings", stop: threading.Event) -> None:
    """Say where personal recommendations are, as soon as the API gives them."""
    from rheos.cli.answer import api_url
    from rheos.client import ApiError, Client

    url = api_url(settings)
    with Client(url) as client:
        while not stop.wait(ASK_AGAIN_S):
            try:
                answer = client.recommendations(CUSTOMER, 1)
            except ApiError:
                continue
            if answer.get("generation") and answer.get("as_of"):
                print(
                    f"personal recommendations of generation {answer['generation']}: open {url}/,"
                    f" or run: rheos recommend {CUSTOMER} --url {url}"
                )
                return


def _bars(every_s: float) -> Callable[..., None]:
    """Prints a line of progress, not more often than ``every_s`` and when a stage has ended."""
    import time

    from rheos.cli.terminal import bar

    printed_at_s = -every_s

    def told(what: str, done: int, total: int, how_fast: str = "") -> None:
        nonlocal printed_at_s
        now_s = time.monotonic()
        if total and (now_s - printed_at_s >= every_s or done == total):
            printed_at_s = now_s
            print(bar(done / total, f"{what} {done:,}/{total:,}{how_fast}"), flush=True)

    return told
