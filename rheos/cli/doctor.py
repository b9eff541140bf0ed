"""``rheos doctor``: is this machine fit to run Rheos, and what to do where it is not."""

from typing import Annotated

from cyclopts import Parameter

MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def command(*, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Check this machine and say what to fix.

    Looks at Python, the installed parts, FAISS, the GPU, Java and Kafka's jars, the disk, the
    ports, the broker and the topics. A line each: ok, warn (works, but read it) or FAIL. The exit
    status is 1 when one failed. Nothing is changed.

    Example: `rheos doctor --json`

    Parameters
    ----------
    json
        Print JSON.
    """
    from rheos.cli.answer import print_json
    from rheos.cli.checks import all_checks
    from rheos.settings import load

    findings = []
    for finding in all_checks(load()):
        findings.append(finding)
        if not json:
            _print(finding.state, finding.check, finding.text, finding.fix)
    if json:
        print_json([finding._asdict() for finding in findings])
    return 1 if any(finding.state == "fail" for finding in findings) else 0


def _print(state: str, check: str, text: str, fix: str) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[{COLOURS[state]}]{MARKS[state]}[/]  {check:8}  ", end="")
    console.print(text, markup=False)
    if fix:
        console.print(f"      {'':8}  fix: {fix}", markup=False)
