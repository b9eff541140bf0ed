"""The command line. A command is a file here, imported when it is called.

Commands return their exit status (None is 0): 0 done, 1 failed, 2 wrong usage or settings. What a
person can act on is raised, and `main` tells it in one line on stderr.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated

from cyclopts import App, Group, Parameter

from rheos.cli.error import CommandError, explained
from rheos.cli.version import version

COMMANDS = {
    "up": "rheos.cli.up:command",
    "stream": "rheos.cli.worker:stream",
    "indexer": "rheos.cli.worker:indexer",
    "trainer": "rheos.cli.worker:trainer",
    "train": "rheos.cli.train:command",
    "models": "rheos.cli.models:command",
    "tune": "rheos.cli.tune:command",
    "generations": "rheos.cli.generations:app",
    "evaluate": "rheos.cli.evaluate:app",
    "replay": "rheos.cli.replay:command",
    "dead-letters": "rheos.cli.dead_letters:command",
    "recommend": "rheos.cli.recommend:command",
    "similar": "rheos.cli.similar:command",
    "status": "rheos.cli.status:command",
    "topics": "rheos.cli.topics:command",
    "doctor": "rheos.cli.doctor:command",
    "play-demo": "rheos.cli.play_demo:command",
}
"""Each command and where it stands. Its file imports nothing heavy outside of its functions: the
list of ``rheos --help`` imports them all."""


def build(only: str | None = None) -> App:
    """The application. Every command is known; the file of ``only`` alone is imported, and only
    when it is called (None: all of them, for their lines in the list)."""
    app = App(
        name="rheos",
        help_format="markdown",
        help="A recommender that learns from each click while the shopper is still on the page.",
        version=version,
        help_epilogue="`rheos up --demo` is the way to begin. Details: docs/commands.md.",
    )
    for name, where in COMMANDS.items():
        if only is None:
            module, _, attribute = where.partition(":")
            app.command(getattr(import_module(module), attribute), name=name)
        else:
            app.command(where, name=name)

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
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        app = build(next((word for word in words if word in COMMANDS), None))
        result = app.meta(words, result_action="return_value")
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
