"""The command line. A command is a file here; it is imported when it is called, not before.

Commands return their exit status (None is 0): 0 done, 1 failed, 2 wrong usage or settings. What a
person can act on is raised, and `main` tells it in one line on stderr.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Group, Parameter

from rheos.cli.error import CommandError, explained
from rheos.cli.version import version

COMMANDS = {
    "up": ("rheos.cli.up:command", "Run everything on this machine, a private Kafka included."),
    "stream": ("rheos.cli.worker:stream", "Run a stream worker."),
    "indexer": ("rheos.cli.worker:indexer", "Run an indexer: the API and the page."),
    "trainer": ("rheos.cli.worker:trainer", "Run the trainer."),
    "recommend": ("rheos.cli.recommend:command", "Ask for a user's recommendations."),
    "similar": ("rheos.cli.similar:command", "Ask for the items most like an item."),
    "status": ("rheos.cli.status:command", "Show what runs, what is served and what lags."),
    "topics": ("rheos.cli.topics:command", "List, check or create the topics."),
    "doctor": ("rheos.cli.doctor:command", "Check this machine and say what to fix."),
    "play-demo": ("rheos.cli.play_demo:command", "Play the demo's data into a running system."),
}
"""Name, where it stands, and its line in ``rheos --help``."""


def build() -> App:
    """The application with every command, none of them imported yet."""
    app = App(
        name="rheos",
        help="A recommender that learns from each click while the shopper is still on the page.",
        version=version,
        help_epilogue="`rheos up --demo` is the way to begin. Details: docs/commands.md.",
    )
    for name, (where, line) in COMMANDS.items():
        app.command(where, name=name, help=line)

    @app.meta.default
    def launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        config: Annotated[
            Path | None,
            Parameter(
                help="Settings file (default: RHEOS_CONFIG, else ./rheos.toml).", group=EVERYWHERE
            ),
        ] = None,
        demo: Annotated[
            bool,
            Parameter(help="Use the demo's settings and data.", negative="", group=EVERYWHERE),
        ] = False,
    ) -> object:
        # The environment, so that every command and every child process reads the same settings.
        if config is not None:
            os.environ["RHEOS_CONFIG"] = str(config.absolute())
        if demo:
            from rheos.cli.demo import environment

            os.environ.update(environment())
        command, bound, injected = app.parse_args(tokens)
        if "demo" in injected:
            bound.arguments["demo"] = demo
        return command(*bound.args, **bound.kwargs)

    return app


EVERYWHERE = Group("For every command")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. Arguments default to the process's own."""
    try:
        result = build().meta(
            sys.argv[1:] if arguments is None else list(arguments),
            result_action="return_value",
        )
    except CommandError as error:
        print(f"rheos: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return 130  # as a shell reports a program that SIGINT ended
    except BrokenPipeError:
        # The reader (head, less) has seen enough; the interpreter must not fail at its last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        line, status = explained(error)
        if line is None:
            raise
        print(f"rheos: {line}", file=sys.stderr)
        return status
    return result if isinstance(result, int) else 0
