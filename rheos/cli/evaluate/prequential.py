"""``rheos evaluate prequential``: recommend, score, then learn."""

import importlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from rheos.cli.evaluate import event_file
from rheos.cli.evaluate.conditions import conditions
from rheos.cli.evaluate.event_file import Reading

if TYPE_CHECKING:  # what the list of commands must not load
    from rheos.settings import Settings

Flag = Annotated[bool, Parameter(negative="")]

_HEADINGS = ("HR", "MRR", "NDCG")


def command(
    file: Path,
    *,
    reading: Reading = Reading(),
    shuffle_ties: int = 0,
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
    model of the setting `trainer.model`, fitted again each day, user vectors frozen in between);
    and of the live system, whose generation of that model is fitted weekly, each layer alone and
    the list that the API would answer. With the setting `trainer.blend` there is a row more, the
    list of a blend that was learned on the quarter of the log before the scored part.

    Example: `rheos evaluate prequential online_retail.csv.xz --map user=CustomerID item=StockCode
    time=InvoiceDate --basket InvoiceNo --drop InvoiceNo=C* --positive Quantity
    --shuffle-ties 1`

    Parameters
    ----------
    file
        CSV, TSV or JSON lines, plain, .gz or .xz.
    shuffle_ties
        The seed by which lines of equal user, time and basket are shuffled. They always are: files
        give them in an order that no live stream has, and that order alone can triple a figure.
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
    from rheos.settings import load

    if not (every > 0 and k > 0 and 0 <= first < until <= 1 and min(nightly_days, live_days) > 0):
        raise CommandError(
            "--every, --k and days are above 0, --from is below --until, both shares", WRONG_USAGE
        )
    settings = load()
    if repeats:
        retrieval = msgspec.structs.replace(settings.retrieval, leave_out_seen=False)
        settings = msgspec.structs.replace(settings, retrieval=retrieval)
    evaluation = importlib.import_module("trainer.evaluation.prequential")
    refit = importlib.import_module("trainer.evaluation.refit")
    models = importlib.import_module("trainer.models")
    model = models.model_of_settings(settings)
    weigher = models.item_weigher_of_settings(settings)
    rules, seed = settings.event_rules(), settings.trainer.seed
    started = time.perf_counter()
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
        log = event_file.read(file, reading, rules, shuffle_ties)
        fit = refit.Refit(log, model, rules, seed, weigher)
        stages("blend", 0, 0)
        learned = _blend(settings, log, fit, plan)
        blends = {} if learned is None or learned.blend is None else {"blend": learned.blend}
        report = evaluation.run(
            log,
            LiveSystem(settings, log.item_ids, k, blends),
            fit,
            plan,
            lambda done, total: stages("play", done, total),
            refit.Refit(log, model, rules, seed),
        )
    result = {
        **event_file.described(file, log),
        "shuffle_ties": shuffle_ties,
        "plan": plan._asdict(),
        "settings": {
            "history": settings.history,
            "transitions": settings.transitions,
            "trend": settings.trend,
            "retrieval": settings.retrieval,
            model.name: model,
            "item_weights": weigher,
        },
        "blend": None if learned is None else learned.reason,
        "scored": report.scored,
        "unseen": report.unseen,
        "fits": report.fits,
        "accuracy": {
            name: {group: found._asdict() for group, found in groups.items()}
            for name, groups in report.rows.items()
        },
        **conditions(started),
    }
    if json:
        answer.print_json(result)
    else:
        _print(result, report, k)


def _blend(settings: "Settings", log: Any, fit: Any, plan: Any) -> Any:
    """What was learned before the scored part, or None where none is wanted."""
    if settings.trainer.blend == "none":
        return None
    from rheos.live_system import LiveSystem

    count = len(log.events)
    examples = importlib.import_module("trainer.blending.rehearsal").rehearse(
        log,
        LiveSystem(settings, log.item_ids, plan.k),
        lambda events: fit(events).generation,
        settings,
        begin=max(1, int(count * (plan.begin - 0.25))),
        end=int(count * plan.begin),
        every=plan.every,
        days=plan.live_days,
    )
    learning = importlib.import_module("trainer.blending.learning")
    return learning.learn(examples, settings.trainer.blend, settings, 1)


def _print(result: dict[str, Any], report: Any, k: int) -> None:
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
    if result["blend"]:
        print(result["blend"])
