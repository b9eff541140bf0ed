"""A report as one HTML page: no script, no network, everything in the file."""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files as package_files
from typing import Any

import msgspec

from trainer.evaluation import plot
from trainer.evaluation.bands import Band
from trainer.evaluation.estimate import Estimate
from trainer.evaluation.plot import Interval, Series
from trainer.evaluation.report import JSON, PAGE, Report, Row, encode

_TIMES = 1.96
"""Standard errors in the half of a 95 % interval."""

_MEASURES = {
    **{"hit_rate": "Hit rate", "recall": "Recall", "precision": "Precision", "f1": "F1"},
    **{"mrr": "MRR", "map": "MAP", "ndcg": "NDCG"},
}
_PLOTTED = ("hit_rate", "mrr", "ndcg")
_BEYOND = {
    "coverage": ("Catalogue coverage", "share of the catalogue in at least one list"),
    "novelty": ("Novelty", "mean self-information of a recommended item, bits"),
    "average_popularity": ("Popularity of recommendations", "mean users who had such an item"),
    "history_popularity": ("Popularity of histories", "the same of what the users had"),
    "popularity_lift": ("Popularity lift", "recommended over had, less 1; 0: no bias"),
    "gini": ("Gini", "0: all items recommended alike, 1: always the same"),
}
_POINTWISE = {
    "auc": ("AUC", "an item to find scored above a drawn one"),
    "accuracy": ("Accuracy", "pairs on the right side of probability 1/2"),
    "log_loss": ("Log loss", "mean, of the same pairs"),
}


def files(report: Report) -> dict[str, bytes]:
    """What a snapshot takes beside the generation, by name."""
    return {JSON: encode(report), PAGE: page(report).encode()}


def page(report: Report) -> str:
    """The page. Whatever names an item, a model or a parameter has, is text and nothing else."""
    title = f"Generation {report.number} · {report.model}"
    series = [Series(row.name, number) for number, row in enumerate(report.rows)]
    body = [
        _head(report, title),
        _tiles(report),
        _accuracy(report, series),
        _bands(
            report,
            series,
            "How well it knows its users",
            "by the user's interactions in what the candidate was fitted on",
            lambda row: row.by_activity,
        ),
        _bands(
            report,
            series,
            "How well it finds rare items",
            "by the item's interactions in what the candidate was fitted on",
            lambda row: row.by_item,
        ),
        _beyond(report, series),
        _curve(report),
        _fitted(report),
        _foot(report),
    ]
    css = package_files("trainer.evaluation").joinpath("report.css").read_text("utf-8")
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} · Rheos</title>\n<style>\n{css}</style>\n</head>\n"
        f"<body>\n{''.join(body)}</body>\n</html>\n"
    )


def _head(report: Report, title: str) -> str:
    made = _time(report.created_ms)
    verdict = "It passed the gate." if report.gate.passed else "It did not pass the gate."
    start = f" The fit began where that of {escape(report.start)} ended." if report.start else ""
    private = (
        '<p class="notice">This model guards its users’ privacy'
        f" (<code>{escape(_json(report.privacy))}</code>); this page does not: its figures are"
        " plain counts of the data. Keep it where the data may be kept.</p>\n"
        if report.privacy
        else ""
    )
    return (
        f"<header>\n<h1>{escape(title)}</h1>\n"
        f'<p class="soft">Made {made} UTC from {report.data.interactions:,} interactions of'
        f" {report.data.users:,} users with {report.data.items:,} items.{start}</p>\n"
        f'<p class="verdict"><strong>{verdict}</strong> {escape(report.gate.reason)}.</p>\n'
        f"{private}</header>\n<main>\n"
    )


def _tiles(report: Report) -> str:
    own, *others = report.rows
    ndcg = own.all.measures["ndcg"]
    tiles = [
        (
            f"NDCG@{report.k}",
            _figure(ndcg.mean),
            f"± {_figure(_TIMES * ndcg.standard_error)} (95 %)",
        )
    ]
    for other in others:
        mean = other.all.measures["ndcg"].mean
        ratio = f"{ndcg.mean / mean - 1:+.0%} for the candidate" if mean > 0 else ""
        tiles.append((f"NDCG@{report.k}, {other.name}", _figure(mean), ratio))
    coverage = own.beyond_accuracy.coverage
    tiles.append(("Catalogue coverage", _percent(coverage), f"lists of {report.k}"))
    shown = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{value}<small>{escape(note)}</small></dd></div>\n"
        for name, value, note in tiles
    )
    return f'<dl class="tiles">\n{shown}</dl>\n'


def _accuracy(report: Report, series: Sequence[Series]) -> str:
    values = [[_interval(row.all.measures[measure]) for row in report.rows] for measure in _PLOTTED]
    drawn = plot.intervals(
        f"Accuracy at {report.k} of {', '.join(one.name for one in series)}",
        [f"{_MEASURES[measure]}@{report.k}" for measure in _PLOTTED],
        series,
        values,
        "mean, with its 95 % interval",
    )
    cells = [
        [f"{name}@{report.k}", *(_cell(row.all.measures[measure]) for row in report.rows)]
        for measure, name in _MEASURES.items()
    ]
    cases, users = report.rows[0].all.cases, report.rows[0].all.users
    return _section(
        "Accuracy",
        f"On {cases:,} events of {users:,} users, newer than all that was fitted: the event’s item"
        " is the one to find among all items, those of the user’s history left out. Ties count at"
        " their expected value; the intervals allow for a user’s events agreeing with each other.",
        _legend(series)
        + _wide(drawn)
        + _details("The figures", _table(["", *(one.name for one in series)], cells)),
    )


def _bands(
    report: Report,
    series: Sequence[Series],
    heading: str,
    what: str,
    of: Callable[[Row], list[Band]],
) -> str:
    # Everybody is judged on the same cases, so that all rows have the same bands.
    names = [band.name for band in of(report.rows[0])]
    found = [[band.measures["ndcg"] for band in of(row)] for row in report.rows]
    by_band = list(zip(*found, strict=True))
    drawn = plot.intervals(
        f"{heading}: NDCG at {report.k} {what}",
        [_band(name) for name in names],
        series,
        [[_interval(value) for value in row] for row in by_band],
        f"NDCG@{report.k}, with its 95 % interval",
    )
    cells = [
        [_band(band.name), f"{band.cases:,}", *(_cell(value) for value in row)]
        for band, row in zip(of(report.rows[0]), by_band, strict=True)
    ]
    return _section(
        heading,
        f"NDCG@{report.k} {what}.",
        _legend(series)
        + _wide(drawn)
        + _details("The figures", _table(["", "events", *(one.name for one in series)], cells)),
    )


def _beyond(report: Report, series: Sequence[Series]) -> str:
    shares = [place / (len(report.rows[0].exposure_curve) - 1) for place in range(0, 51)]
    drawn = plot.lines(
        "Share of all recommendations that the least recommended items get",
        series,
        [list(zip(shares, row.exposure_curve, strict=True)) for row in report.rows],
        ("share of the catalogue, least recommended first", "share"),
        diagonal=True,
    )
    cells = [
        [
            f"{name}<br><small>{note}</small>",
            *(_figure(getattr(row.beyond_accuracy, field)) for row in report.rows),
        ]
        for field, (name, note) in _BEYOND.items()
    ]
    for field, (name, note) in _POINTWISE.items():
        figures = [getattr(row.pointwise, field) for row in report.rows]
        if any(map(math.isfinite, figures)):
            cells.append([f"{name}<br><small>{note}</small>", *map(_figure, figures)])
    top = [
        [f"<code>{escape(item.item_id)}</code>", escape(item.title), _percent(item.share)]
        for item in report.rows[0].top_items
    ]
    return _section(
        "Beyond accuracy",
        "Whether the catalogue is seen, or the same few items go to everybody. The nearer a line is"
        " to the dashed diagonal, the more evenly items are recommended.",
        _legend(series)
        + _wide(drawn)
        + _wide(_table(["", *(one.name for one in series)], cells))
        + _details(
            "What the candidate recommends most",
            _table(["item", "title", "lists with it"], top, texts=2),
        ),
    )


def _curve(report: Report) -> str:
    if not any(len(values) > 1 for values in report.curve.values()):
        return ""
    drawn = ""
    for name, values in report.curve.items():
        points = [(float(epoch), value) for epoch, value in enumerate(values, 1)]
        one = Series(name, 0)
        drawn += _wide(
            plot.lines(
                f"{name} as the fit went on",
                [one],
                [points],
                ("epoch, or some steps", name),
                marks=len(points) < 60,
            )
        )
    return _section(
        "How it learned",
        "What the candidate’s fit measured from its first look to its last.",
        drawn,
    )


def _fitted(report: Report) -> str:
    data = report.data
    span = data.last_ms - data.first_ms
    share = (data.judged_from_ms - data.first_ms) / span if span > 0 else 1.0
    drawn = plot.bars(
        "Interactions over time",
        data.interactions_per_bin,
        (_time(data.first_ms), _time(data.last_ms)),
        share,
        f"judged by the gate: events from {_time(data.judged_from_ms)} on",
    )
    facts = [
        ["interactions", f"{data.interactions:,}"],
        ["users", f"{data.users:,}"],
        ["items", f"{data.items:,}"],
        ["pairs of a user and an item that occur", _percent(data.density, 3)],
        ["interactions that go to the most popular tenth of items", _top_tenth(report)],
        *([escape(name), f"<code>{escape(kind)}</code>"] for name, kind in report.parts.items()),
    ]
    window = [
        [escape(partition), f"{begin:,}", f"{end:,}"]
        for partition, (begin, end) in sorted(data.window.items())
    ]
    parameters = [
        [f"<code>{escape(name)}</code>", f"<code>{escape(_json(value))}</code>"]
        for name, value in report.parameters.items()
    ]
    metrics = [
        [f"<code>{escape(name)}</code>", f"<code>{escape(_json(value))}</code>"]
        for name, value in report.metrics.items()
    ]
    blended = (
        " It is served with a blend; the figures and plots of this page are of the model without."
        if "blend" in report.parts
        else ""
    )
    return _section(
        "What was fitted",
        "Interactions over time; shaded is where the gate’s events lie, which the candidate did not"
        " see. The generation itself was fitted on all." + blended,
        _wide(drawn)
        + _wide(_table(["", ""], facts))
        + f"<h3>Parameters of {escape(report.model)}</h3>"
        + _wide(_table(["parameter", "value"], parameters, texts=2))
        + _details(
            "The window in the log",
            _table(["partition", "from offset", "to offset (not included)"], window),
        )
        + _details("The manifest’s metrics", _table(["metric", "value"], metrics, texts=2)),
    )


def _foot(report: Report) -> str:
    software = ", ".join(f"{name} {version}" for name, version in report.software.items())
    return (
        f"</main>\n<footer><p>Made with {escape(software)}. The same figures stand in"
        " <code>report.json</code> beside this page; docs/evaluation.md says what they mean.</p>"
        "</footer>\n"
    )


def _section(heading: str, words: str, inner: str) -> str:
    return (
        f'<section>\n<h2>{escape(heading)}</h2>\n<p class="soft">{words}</p>\n{inner}</section>\n'
    )


def _legend(series: Sequence[Series]) -> str:
    items = "".join(f"<li>{plot.legend_mark(one.number)}{escape(one.name)}</li>" for one in series)
    return f'<ul class="legend">{items}</ul>\n'


def _wide(inner: str) -> str:
    """What may scroll sideways on a narrow screen, with the keyboard too."""
    return f'<div class="wide" tabindex="0">{inner}</div>\n'


def _details(summary: str, inner: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{_wide(inner)}</details>\n"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 0) -> str:
    """Cells are HTML already, headings are text; the first ``texts`` columns hold words.

    Without any heading it is a list of facts, each with its name before it.
    """
    head = "".join(
        f'<th scope="col"{_class(place, texts)}>{escape(heading)}</th>'
        for place, heading in enumerate(headings)
    )
    head = f"<thead><tr>{head}</tr></thead>\n" if any(headings) else ""
    body = ""
    for first, *cells in rows:
        body += f'<tr><th scope="row">{first}</th>'
        body += "".join(
            f"<td{_class(place, texts)}>{cell}</td>" for place, cell in enumerate(cells, 1)
        )
        body += "</tr>\n"
    return f"<table>{head}<tbody>{body}</tbody></table>"


def _class(place: int, texts: int) -> str:
    return ' class="text"' if place < texts else ""


def _interval(estimate: Estimate) -> Interval | None:
    if not math.isfinite(estimate.mean):
        return None
    return Interval(estimate.mean, _TIMES * estimate.standard_error)


def _cell(estimate: Estimate) -> str:
    error = estimate.standard_error
    margin = f" <small>± {_TIMES * error:.4f}</small>" if math.isfinite(error) else ""
    return f"{_figure(estimate.mean)}{margin}"


def _figure(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.0f}"


def _percent(value: float, digits: int = 1) -> str:
    return f"{value:.{digits}%}" if math.isfinite(value) else "–"


def _top_tenth(report: Report) -> str:
    return _percent(1 - report.data.popularity_curve[45])


def _band(name: str) -> str:
    return "none before" if name == "0" else f"{name} before"


def _time(time_ms: int) -> str:
    try:
        return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M}"
    except (OverflowError, ValueError, OSError):  # a producer's own idea of time
        return f"{time_ms} ms"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
