"""``rheos dead-letters``: what was refused and why, and sending it again."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from rheos.settings import Settings

Flag = Annotated[bool, Parameter(negative="")]
SHOWN_CHARACTERS = 200


def command(
    *,
    replay: Flag = False,
    reason: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    limit: int = 20,
    json: Flag = False,
) -> int:
    """List what could not be used, by reason, with its place and its original bytes.

    With --replay each letter is sent again to where it came from, after a fix: once, however often
    this is run. What is refused again becomes a new letter.

    Example: `rheos dead-letters --replay --reason unknown_type`

    Parameters
    ----------
    replay
        Send the letters again.
    reason
        Only letters of these reasons.
    limit
        List this many, the newest; 0: all of them.
    json
        Print JSON; originals in base64.
    """
    from rheos import topics
    from rheos.cli import broker
    from rheos.cli.error import WRONG_USAGE, CommandError
    from rheos.events import REASONS
    from rheos.settings import load

    unknown = set(reason or ()) - set(REASONS)
    if unknown:
        raise CommandError(
            f"--reason {' '.join(sorted(unknown))}: reasons are {', '.join(REASONS)}", WRONG_USAGE
        )
    if limit < 0:
        raise CommandError(f"--limit {limit}: from 0", WRONG_USAGE)
    settings = load()
    broker.require(settings)
    if problems := topics.ensure(settings):
        raise CommandError("\n".join(problems))
    if replay:
        return _replay(settings, reason, json)
    _list(settings, reason, limit, json)
    return 0


def _list(settings: "Settings", reasons: list[str] | None, limit: int, json: bool) -> None:
    from collections import Counter, deque

    from rheos.cli.answer import print_json

    stream_letters = importlib.import_module("stream.dead_letters")
    counts: Counter[str] = Counter()
    newest: deque[Any] = deque(maxlen=limit or None)
    for letter in stream_letters.letters(settings):
        counts[letter.reason] += 1
        if not reasons or letter.reason in reasons:
            newest.append(letter)
    if json:
        print_json(
            {
                "reasons": dict(sorted(counts.items())),
                "letters": [
                    {
                        "number": letter.number,
                        "arrived_ms": letter.arrived_ms,
                        "place": letter.content.place if letter.content else "",
                        "letter": letter.content,
                    }
                    for letter in newest
                ],
            }
        )
        return
    _print(counts, newest)


def _print(counts: Any, newest: Any) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not counts:
        console.print("no dead letters")
        return
    summary = Table("reason", "letters")
    for name, count in counts.most_common():
        summary.add_row(name, f"{count:,}")
    console.print(summary)
    for letter in newest:
        content = letter.content
        arrived = datetime.fromtimestamp(letter.arrived_ms / 1000, UTC)
        # Originals are anyone's bytes: shown as repr, without markup.
        console.print(
            Text(f"{letter.number:,} {letter.reason}", style="bold"),
            Text(f"{content.place if content else ''} {arrived:%Y-%m-%d %H:%M:%S}Z"),
        )
        if content:
            console.print(Text(f"  {_printable(content.text)}"), soft_wrap=True)
            console.print(Text(f"  {_shown(content.value)}", style="dim"), soft_wrap=True)


def _printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)


def _shown(original: bytes | None) -> str:
    if original is None:
        return "(no value)"
    cut = original[:SHOWN_CHARACTERS]
    text = cut.decode("utf-8", "backslashreplace").rstrip("\r\n")
    return _printable(text) + ("…" if len(original) > len(cut) else "")


def _replay(settings: "Settings", reasons: list[str] | None, json: bool) -> int:
    from rheos.cli.answer import print_json
    from rheos.cli.stop_signals import stop_signals

    stream_letters = importlib.import_module("stream.dead_letters")
    chosen = frozenset(reasons) if reasons else stream_letters.ALL_REASONS
    with stop_signals() as stop, _bar() as progress:
        done = stream_letters.replay(
            settings, reasons=chosen, stop=stop, progress=progress, notice=_tell
        )
    if json:
        print_json(done)
    else:
        print(f"{done.sent:,} letters sent again")
        for name, count in done.kept.items():
            print(f"  {count:,} kept: {stream_letters.KEPT[name]}")
        if done.stopped:
            print(f"stopped before letter {done.next_letter:,}; the same command goes on there")
    return 130 if done.stopped else 0


def _tell(line: str) -> None:
    print(f"rheos: {line}", file=sys.stderr)


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    from rheos.cli.progress import Stages

    with Stages() as stages:
        yield lambda done, end: stages("letters", done, end)
