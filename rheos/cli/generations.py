"""``rheos generations``: which models there are, which one serves, and letting another serve."""

from typing import Annotated, Any

from cyclopts import App, Parameter

app = App(
    name="generations",
    help="Which generations there are, which one serves, and letting another one serve.",
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
    for row in rows:
        if "withdrawn" in row:
            print(f"{row['generation']} is withdrawn: {row['withdrawn']}")
    if ruling is not None:
        print(f"Serving {ruling.generation} since decision {ruling.number}: {ruling.reason}")


@app.command
def show(name: str = "", *, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Show what a stored generation is: its model, its figures at the gate, what it was fitted on.

    Example: `rheos generations show 12-3fa94c01`

    Parameters
    ----------
    name
        The generation; by default the serving one.
    json
        Print its manifest and the announcements that name it as JSON.
    """
    import importlib

    from rheos.cli import answer, broker
    from rheos.cli.error import CommandError
    from rheos.settings import load
    from rheos.snapshot_store import LocalStore

    settings = load()
    broker.require(settings)
    publish = importlib.import_module("trainer.publish")
    store = LocalStore(settings.store_dir)
    decisions = publish.Decisions(settings, store)
    name = name or decisions.serving
    if not name:
        raise CommandError("no generation is serving yet")
    manifest = store.get(name).manifest
    announced = [found for found in decisions.announced if found.generation == name]
    withdrawn = decisions.withdrawn.get(name)
    if json:
        answer.print_json(
            {
                "generation": name,
                "serving": name == decisions.serving,
                "withdrawn": withdrawn,
                "announcements": announced,
                "folder": str(settings.store_dir / name),
                "manifest": manifest,
            }
        )
        return
    _print_one(name, manifest, str(settings.store_dir / name))
    for found in announced:
        print(f"decision {found.number}: {found.reason}")
    if withdrawn is not None:
        print(f"withdrawn: {withdrawn.reason}")
    if name == decisions.serving:
        print("It serves.")


@app.command
def report(
    name: str = "",
    *,
    open: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Tell where a generation's report is: one page with its figures, intervals and plots.

    Candidates that the gate refused have one too, as long as they are among the newest. Reads the
    disk alone; Kafka may be away.

    Example: `rheos generations report 12-3fa94c01 --open`

    Parameters
    ----------
    name
        The generation, or a refused candidate as the trainer's log names it; by default the newest
        generation.
    open
        Open the page in a browser.
    json
        Print the report as JSON.
    """
    import importlib

    from rheos.cli.error import CommandError
    from rheos.settings import load
    from rheos.snapshot_store import LocalStore

    settings = load()
    store = LocalStore(settings.store_dir)
    stored = store.names()
    if not name and not stored:
        raise CommandError(f"there is no generation in {settings.store_dir}")
    name = name or stored[-1]
    refused = importlib.import_module("trainer.refused").of(settings)
    if name in refused.names():
        folder = refused.path(name)
        figures = (folder / "report.json").read_bytes()
    else:
        store.extra(name, "report.html")  # verified before anybody looks at it
        figures, folder = store.extra(name, "report.json"), store.path(name)
    if json:
        print(figures.decode())
        return
    page = (folder / "report.html").absolute()
    print(page)
    if open:
        import webbrowser

        webbrowser.open(page.as_uri())


@app.command
def promote(
    name: str,
    *,
    anyway: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Let a stored generation serve, whatever the gate would say; every process swaps at once.

    Example: `rheos generations promote 12-3fa94c01`

    Parameters
    ----------
    name
        The generation, as `rheos generations` lists it.
    anyway
        Even if it was withdrawn, since fewer people clicked what it showed.
    json
        Print the announcement as JSON.
    """
    _decide("promote", name, anyway, json)


@app.command
def rollback(
    name: str = "",
    *,
    anyway: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Let an older generation serve again; every process swaps within a moment.

    Example: `rheos generations rollback 11-3fa94c01`

    Parameters
    ----------
    name
        The generation to go back to; by default the one that served before the present one.
    anyway
        Even if it was withdrawn, since fewer people clicked what it showed.
    json
        Print the announcement as JSON.
    """
    _decide("roll_back", name, anyway, json)


def _decide(how: str, name: str, anyway: bool, json: bool) -> None:
    """Makes the announcement that ``trainer.publish``'s function ``how`` makes, and tells it."""
    import importlib

    from rheos.cli import answer, broker
    from rheos.cli.error import CommandError
    from rheos.settings import load
    from rheos.snapshot_store import LocalStore

    settings = load()
    broker.require(settings)
    publish = importlib.import_module("trainer.publish")
    store = LocalStore(settings.store_dir)
    try:
        announcement = getattr(publish, how)(settings, store, name, anyway=anyway)
    except publish.PublishError as error:
        raise CommandError(str(error)) from None
    if json:
        answer.print_json(announcement)
    else:
        print(f"{announcement.generation} serves now ({announcement.reason})")


def _print_one(name: str, manifest: Any, folder: str) -> None:
    from datetime import UTC, datetime

    from rich.console import Console
    from rich.table import Table

    made = datetime.fromtimestamp(manifest.created_ms / 1000, UTC)
    table = Table(title=name, title_justify="left", show_header=False)
    told = {
        "model": manifest.model,
        "parameters": ", ".join(f"{key} = {value}" for key, value in manifest.parameters.items()),
        "made (UTC)": f"{made:%Y-%m-%d %H:%M:%S}",
        "began with": manifest.start or "nothing",
        "items": f"{manifest.items:,}",
        "dimensions": manifest.dimensions,
        "interactions": f"{manifest.interactions:,}",
        "offsets": ", ".join(f"{p}: {a} to {b}" for p, (a, b) in sorted(manifest.window.items())),
        "encoder": manifest.encoder.get("kind"),
        "ranker": "none" if manifest.ranker is None else manifest.ranker.get("kind"),
        **{key: value for key, value in manifest.metrics.items() if not isinstance(value, dict)},
        "software": ", ".join(f"{key} {value}" for key, value in manifest.software.items()),
        "folder": folder,
        "files": ", ".join(sorted(manifest.files)),
    }
    for key, value in told.items():
        table.add_row(key, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)


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
        mark = mark or ("✗" if "withdrawn" in row else "")
        ndcg = row["metrics"].get("gate_ndcg@20")
        table.add_row(
            *(mark, row["generation"], row["model"]),
            *(f"{row['items']:,}", f"{row['interactions']:,}", f"{made:%Y-%m-%d %H:%M:%S}"),
            "" if ndcg is None else f"{ndcg:.4f}",
        )
    Console().print(table)
