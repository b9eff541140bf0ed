"""The supervisor's output with a progress bar that stays below it."""

import io

import pytest

from rheos.cli.terminal import Terminal, bar

ERASE = "\r\x1b[K"


class Screen(io.StringIO):
    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Screen:
    monkeypatch.setenv("COLUMNS", "60")
    return Screen(request.param)


@pytest.mark.parametrize("screen", [True], indirect=True)
def test_on_a_terminal_the_bar_is_rewritten_below_the_lines(screen: Screen) -> None:
    terminal = Terminal(screen)
    first, second = f"demo | {bar(0.1, 'a')}", f"demo | {bar(0.2, 'b')}"
    terminal.write("kafka | ready\n")
    terminal.write(f"{first}\n")
    terminal.write("stream | ready\n")
    terminal.write(f"{second}\n")

    assert screen.getvalue() == (
        f"kafka | ready\n{ERASE}{first}{ERASE}stream | ready\n{first}{ERASE}{second}"
    )


@pytest.mark.parametrize("screen", [True], indirect=True)
def test_a_bar_never_takes_two_rows(screen: Screen) -> None:
    Terminal(screen).write("\x1b[36mdemo |\x1b[0m " + bar(0.5, "x" * 200) + "\n")

    shown = screen.getvalue().removeprefix(ERASE)
    assert shown.startswith("\x1b[36mdemo |\x1b[0m ▕")
    assert len(shown) == 59 + len("\x1b[36m\x1b[0m")


@pytest.mark.parametrize("screen", [False], indirect=True)
def test_elsewhere_every_line_stays(screen: Screen) -> None:
    terminal = Terminal(screen)
    lines = f"{bar(0.1, 'a')}\nother\n{bar(0.2, 'b')}\n"
    for line in lines.splitlines(keepends=True):
        terminal.write(line)

    assert screen.getvalue() == lines
    assert not terminal.isatty()


@pytest.mark.parametrize(("share", "cells"), [(-1, 0), (0, 0), (0.5, 12), (1, 24), (7, 24)])
def test_a_bar_has_as_many_cells_as_are_done(share: float, cells: int) -> None:
    assert bar(share, "").count("█") == cells
    assert bar(share, "").count("░") == 24 - cells
