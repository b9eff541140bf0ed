"""``rheos evaluate``: how good the recommendations are, on data whose future is known."""

import importlib
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

Words = Annotated[list[str], Parameter(consume_multiple=True, negative="")]
Flag = Annotated[bool, Parameter(negative="")]

app = App(name="evaluate", help="Measure recommendations on data whose future is known.")

_HEADINGS = ("HR", "MRR", "NDCG")


@app.command
def prequential(
    file: Path,
    *,
    map: Words | None = None,
    type: str = "",
    types: Words | None = None,
    time_unit: Literal["s", "ms", "iso"] = "iso",
    columns: str = "",
    basket: str = "",
    drop: Words | None = None,
    positive: str = "",
    shuffle_ties: int | None = None,
    every: int = 7,
    k: int = 20,
    first: Annotated[float, Parameter(name="--from")] = 0.5,
    until: float = 1.0,
    nightly_days: float = 1.0,
    live_days: float = 7.0,
    repeats: Flag = False,
    json: Flag = False,
) -> None:
    """Recommend, score, then learn: event by event in time order, with the workers' own code.

    Every k-th event of the second half is scored if its item is new to the user: all items are
    ranked, those that the user had left out. The rows are live popularity; a nightly batch (the
    trainer's ALS, fitted again each day, user vectors frozen in between); and of the live system,
    whose generation is fitted weekly, each layer alone and the list that the API would answer.

    Example: `rheos evaluate prequential online_retail.csv.xz --map user=CustomerID item=StockCode
    time=InvoiceDate --basket InvoiceNo --drop InvoiceNo=C* --positive Quantity
    --shuffle-ties 1`

    Parameters
    ----------
    file
        CSV, TSV or JSON lines, plain, .gz or .xz.
    map
        Where a row has what, as in `rheos replay`: FIELD=COLUMN.
    type
        The type of all rows, where --map names no column for it; `purchase` if nothing does.
    types
        Your type names and ours: buy=purchase.
    time_unit
        Of the times: seconds or milliseconds since 1970, or ISO 8601.
    columns
        Names, comma separated, for a file without a header.
    basket
        The column of the basket or invoice: a line that repeats user, item and basket is dropped.
    drop
        Leave out rows: COLUMN=GLOB.
    positive
        Leave out rows whose cell in this column is not above 0.
    shuffle_ties
        Shuffle the lines of equal user, time and basket with this seed. Files give them in an order
        that no live stream has, and that order alone can triple a figure.
    every
        Look at every k-th event.
    k
        How many recommendations.
    first
        Score from this share of the events on.
    until
        End at this share.
    nightly_days
        Days between the nightly batch's fits.
    live_days
        Days between the live system's fits.
    repeats
        Score items that the user had too, and leave nothing out.
    json
        Print the results as JSON.
    """
    import msgspec

    from rheos.cli import answer
    from rheos.cli.error import WRONG_USAGE, CommandError
    from rheos.cli.progress import Stages
    from rheos.live_system import LiveSystem
    from rheos.mapping import EventMapping, source_from_words
    from rheos.row_file import RowFile
    from rheos.settings import load

    if not (every > 0 and k > 0 and 0 <= first < until <= 1 and min(nightly_days, live_days) > 0):
        raise CommandError(
            "--every, --k and days are above 0, --from is below --until, both shares", WRONG_USAGE
        )
    settings = load()
    if repeats:
        retrieval = msgspec.structs.replace(settings.retrieval, leave_out_seen=False)
        settings = msgspec.structs.replace(settings, retrieval=retrieval)
    event_log = importlib.import_module("trainer.evaluation.event_log")
    evaluation = importlib.import_module("trainer.evaluation.prequential")
    refit = importlib.import_module("trainer.evaluation.refit")
    als = importlib.import_module("trainer.models").model_of(
        "als", settings.trainer.parameters if settings.trainer.model == "als" else {}
    )
    started = time.perf_counter()
    rows = RowFile(file, [column for column in columns.split(",") if column])
    mapping = None
    if not rows.is_json or map or type:
        # Which type hardly matters where all rows have the same.
        typed = any(word.startswith("type=") for word in map or [])
        source = source_from_words(
            map or [],
            fixed_type=type or ("" if typed else "purchase"),
            types=types or [],
            time_unit=time_unit,
            columns=rows.columns(),
        )
        mapping = EventMapping(source)
    shape = event_log.LogFormat(mapping, basket, dict(_pair(word) for word in drop or []), positive)
    plan = evaluation.Plan(
        k=k,
        every=every,
        begin=first,
        end=until,
        nightly_days=nightly_days,
        live_days=live_days,
        session_gap_s=settings.history.session_gap_s,
        repeats=repeats,
    )
    with Stages() as stages:
        stages("read", 0, 0)
        try:
            log = event_log.read(rows, shape, settings.event_rules(), shuffle_ties)
        except ValueError as error:
            raise CommandError(str(error), WRONG_USAGE) from None
        report = evaluation.run(
            log,
            LiveSystem(settings, log.item_ids, k),
            refit.Refit(log, als, settings.event_rules(), settings.trainer.seed),
            plan,
            lambda done, total: stages("play", done, total),
        )
    result = {
        "file": file.name,
        "rows": log.rows,
        "dropped": log.dropped,
        "events": len(log.events),
        "users": len(log.user_ids),
        "items": len(log.item_ids),
        "shuffle_ties": shuffle_ties,
        "plan": plan._asdict(),
        "settings": {
            "history": settings.history,
            "transitions": settings.transitions,
            "trend": settings.trend,
            "retrieval": settings.retrieval,
            "als": als,
        },
        "scored": report.scored,
        "unseen": report.unseen,
        "fits": report.fits,
        "accuracy": {
            name: {group: found._asdict() for group, found in groups.items()}
            for name, groups in report.rows.items()
        },
        **_conditions(started),
    }
    if json:
        answer.print_json(result)
    else:
        _print_prequential(result, report, k)


@app.command
def split(
    folder: Path,
    *,
    format: Literal["ncf"] = "ncf",
    model: str = "",
    k: int = 10,
    json: Flag = False,
) -> None:
    """Fit a model on a published split and judge it by the paper's protocol.

    `ncf` is the leave-one-out split of "Neural Collaborative Filtering" (He et al., 2017): each
    user's held-out item is ranked among 99 sampled negatives.

    Example: `rheos evaluate split ncf-ml-1m --format ncf --model als`

    Parameters
    ----------
    folder
        Where the split's files are.
    format
        Whose files and protocol.
    model
        The model; by default the setting `trainer.model`. Its parameters are those of
        `trainer.parameters` when it is the setting's model, else its defaults.
    k
        Hits count among the first k.
    json
        Print the results as JSON.
    """
    from rheos.cli import answer
    from rheos.cli.error import WRONG_USAGE, CommandError
    from rheos.cli.progress import Stages
    from rheos.settings import load

    if k < 1:
        raise CommandError(f"--k {k}: at least 1", WRONG_USAGE)
    settings = load()
    name = model or settings.trainer.model
    evaluation = importlib.import_module("trainer.evaluation.split")
    chosen = importlib.import_module("trainer.models").model_of(
        name, settings.trainer.parameters if name == settings.trainer.model else {}
    )
    started = time.perf_counter()
    with Stages() as stages:
        stages("read", 0, 0)
        try:
            data = evaluation.read_ncf(folder)
        except ValueError as error:
            raise CommandError(str(error), WRONG_USAGE) from None
        run = importlib.import_module("trainer.models.model").Run(
            settings.trainer.seed,
            settings.trainer.threads or _cores(),
            stages,
            settings.trainer.device,
        )
        found = evaluation.evaluate(data, chosen, k, run)
    result = {
        "format": format,
        "folder": folder.name,
        "model": name,
        "parameters": chosen,
        "seed": settings.trainer.seed,
        "k": k,
        "accuracy": found._asdict(),
        **_conditions(started),
    }
    if json:
        answer.print_json(result)
    else:
        print(
            f"{name} on {folder.name} ({format}): HR@{k} {found.hit_rate:.4f},"
            f" NDCG@{k} {found.ndcg:.4f}, {found.cases:,} users, {result['seconds']:.0f} s"
        )


def _pair(word: str) -> tuple[str, str]:
    from rheos.cli.error import WRONG_USAGE, CommandError

    column, separator, glob = word.partition("=")
    if not separator or not column:
        raise CommandError(f"--drop {word}: COLUMN=GLOB, like InvoiceNo=C*", WRONG_USAGE)
    return column, glob


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0))  # those that this process may use


def _conditions(started: float) -> dict[str, Any]:
    """What the figures and their seconds depend on."""
    import platform

    from rheos.snapshot import software_versions

    return {
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time(), 1),
        "machine": {
            "cores": _cores(),
            "processor": platform.processor() or platform.machine(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "software": software_versions(),
    }


def _print_prequential(result: dict[str, Any], report: Any, k: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{result['file']}: {result['events']:,} events, {result['users']:,} users,"
        f" {result['items']:,} items; {report.scored:,} scored",
        title_justify="left",
    )
    table.add_column("recommender")
    for heading in _HEADINGS:
        table.add_column(f"{heading}@{k}", justify="right")
    table.add_column(f"HR@{k} session start", justify="right")
    for name, groups in report.rows.items():
        every, start = groups["all"], groups["session start"]
        figures = (every.hit_rate, every.mrr, every.ndcg, start.hit_rate)
        table.add_row(name, *(f"{figure:.4f}" for figure in figures))
    Console().print(table)
    starts = report.rows["popularity"]["session start"].cases
    print(
        f"{starts:,} of them at a session's start; {report.unseen:,} of items that nobody had"
        f" before; {report.fits} fits; {result['seconds']:.0f} s"
    )
