"""``rheos evaluate time-split``: fit on what came before a time, find what came after."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from rheos.cli.evaluate import judgements
from rheos.cli.evaluate.catalogue_files import CatalogueFiles
from rheos.cli.evaluate.event_file import Reading, Words


def command(
    file: Path,
    *,
    reading: Reading = Reading(),
    catalogue: CatalogueFiles = CatalogueFiles(),
    at: str = "",
    share: float = 0.8,
    model: Words | None = None,
    k: int = 20,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Fit models on what came before a time, and judge them by what is new to users from then on.

    Each user with something to find is asked for once, with the history up to that time, as the
    running system would be: all items are ranked, those of the history left out. Popularity stands
    beside the models. Events of one time, as the lines of an invoice are, fall on one side of the
    split, and their order in the file means nothing. With the setting `trainer.blend` each model
    has a second column: what the API would answer, next-lists, trend and all, ranked by a blend
    that was learned as the trainer does, on the newest events before the split.

    Example: `rheos evaluate time-split online_retail.csv.xz --map user=CustomerID item=StockCode
    time=InvoiceDate --basket InvoiceNo --drop InvoiceNo=C* --positive Quantity --at 2011-11-01
    --model als`

    Parameters
    ----------
    file
        CSV, TSV or JSON lines, plain, .gz or .xz.
    at
        The time, in ISO 8601 (UTC unless it says otherwise).
    share
        Without --at: the latest time with at most this share of the events before it.
    model
        The models; by default the setting `trainer.model`. Its parameters are those of
        `trainer.parameters`; other models have their defaults.
    k
        How many recommendations.
    json
        Print the results as JSON.
    """
    at_ms = _milliseconds(at) if at else None

    def split(data: Any, seed: int) -> tuple[dict[str, Any], Sequence[Any]]:
        from datetime import UTC, datetime

        time_split = importlib.import_module("trainer.evaluation.time_split")
        cut_ms = time_split.time_of(data, share) if at_ms is None else at_ms
        holdout = time_split.split(data, cut_ms)
        told = {
            "at": datetime.fromtimestamp(cut_ms / 1000, UTC).isoformat(),
            "fitted": len(holdout.train),
        }
        return told, [holdout]

    judgements.run(file, reading, catalogue, model or [], k, split, blends=True, json=json)


def _milliseconds(text: str) -> int:
    from datetime import UTC, datetime

    from rheos.cli.error import WRONG_USAGE, CommandError

    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(f"--at {text}: a time like 2011-11-01T12:00", WRONG_USAGE) from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
