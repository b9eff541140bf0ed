"""What query commands share: which API to ask, and how an answer is shown."""

from collections.abc import Mapping, Sequence
from typing import Any

from rheos.cli.port import Port
from rheos.cli.probe import reached_at
from rheos.settings import Settings


def api_url(settings: Settings) -> str:
    """Where the indexer of these settings is reached from this machine."""
    indexer = settings.indexer
    return reached_at(Port("indexer", indexer.host, indexer.port, "indexer.port"))


def print_json(value: object) -> None:
    """One JSON document on stdout, indented, and nothing else."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_items(title: str, items: Sequence[Mapping[str, Any]]) -> None:
    """A table of ranked items under ``title``; their own titles and the reasons for them only where
    the API gave some.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    print(title)
    with_titles = any(item.get("title") for item in items)
    with_reasons = any(item.get("because") for item in items)
    table = Table()
    table.add_column("#", justify="right")
    table.add_column("item")
    if with_titles:
        table.add_column("title")
    table.add_column("score", justify="right")
    table.add_column("source")
    if with_reasons:
        table.add_column("because of")
    for place, item in enumerate(items, 1):
        cells = [str(place), str(item["item_id"])]
        if with_titles:
            cells.append(str(item.get("title") or ""))
        cells += [f"{item['score']:.4f}", str(item.get("source", ""))]
        if with_reasons:
            cells.append("\n".join(map(_reason, item.get("because") or [])))
        table.add_row(*map(Text, cells))  # a title in brackets is no markup
    Console().print(table)


def _reason(reason: Mapping[str, Any]) -> str:
    what = reason.get("title") or reason["item_id"]
    return f"{what} ({reason['share']:.0%} of {reason['source']})"
