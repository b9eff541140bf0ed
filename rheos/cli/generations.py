"""``rheos generations``: which models there are, which one serves, and going back to another."""

from typing import Annotated, Any

from cyclopts import App, Parameter

app = App(
    name="generations",
    help="Which generations there are, which one serves, and rolling back.",
)


@app.default
@app.command(name="list")
def listed(*, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List the stored generations, the oldest first, and mark the serving one.

    Example: `rheos generations`

    Parameters
    ----------
    json
        Print the list as JSON.
    """
    import importlib

    from rheos.cli import answer, broker
    from rheos.settings import load
    from rheos.snapshot_store import LocalStore

    settings = load()
    broker.require(settings)
    publish = importlib.import_module("trainer.publish")
    store = LocalStore(settings.store_dir)
    decisions = publish.Decisions(settings, store)
    rows = publish.rows(decisions, store)
    ruling = decisions.ruling
    if json:
        answer.print_json({"serving": ruling, "generations": rows})
        return
    if not rows:
        print("No generation yet: `rheos train` makes one once there are enough events.")
    else:
        _print(rows)
    if ruling is not None:
        print(f"Serving {ruling.generation} since decision {ruling.number}: {ruling.reason}")


@app.command
def rollback(name: str = "", *, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Let an older generation serve again; every process swaps within a moment.

    Example: `rheos generations rollback 11-3fa94c01`

    Parameters
    ----------
    name
        The generation to go back to; by default the one that served before the present one.
    json
        Print the announcement as JSON.
    """
    import importlib

    from rheos.cli import answer, broker
    from rheos.cli.error import CommandError
    from rheos.settings import load
    from rheos.snapshot_store import LocalStore

    settings = load()
    broker.require(settings)
    publish = importlib.import_module("trainer.publish")
    try:
        announcement = publish.roll_back(settings, LocalStore(settings.store_dir), name)
    except publish.PublishError as error:
        raise CommandError(str(error)) from None
    if json:
        answer.print_json(announcement)
    else:
        print(f"{announcement.generation} serves again ({announcement.reason})")


def _print(rows: list[dict[str, Any]]) -> None:
    from datetime import UTC, datetime

    from rich.console import Console
    from rich.table import Table

    table = Table()
    for heading in ("", "generation", "model"):
        table.add_column(heading)
    for heading in ("items", "interactions"):
        table.add_column(heading, justify="right")
    table.add_column("made (UTC)")
    table.add_column("gate NDCG@20", justify="right")
    for row in rows:
        mark = "▶" if row["serving"] else ""
        if "problem" in row:
            table.add_row(mark, row["generation"], row["problem"])
            continue
        made = datetime.fromtimestamp(row["created_ms"] / 1000, UTC)
        ndcg = row["metrics"].get("gate_ndcg@20")
        table.add_row(
            *(mark, row["generation"], row["model"]),
            *(f"{row['items']:,}", f"{row['interactions']:,}", f"{made:%Y-%m-%d %H:%M:%S}"),
            "" if ndcg is None else f"{ndcg:.4f}",
        )
    Console().print(table)
