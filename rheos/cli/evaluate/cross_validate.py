"""``rheos evaluate cross-validate``: each part of the events is held out once."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from rheos.cli.evaluate import judgements
from rheos.cli.evaluate.catalogue_files import CatalogueFiles
from rheos.cli.evaluate.event_file import Reading, Words


def command(
    file: Path,
    *,
    reading: Reading = Reading(),
    catalogue: CatalogueFiles = CatalogueFiles(),
    folds: int = 5,
    by: Literal["users", "interactions"] = "interactions",
    model: Words | None = None,
    k: int = 20,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Divide the events into parts; fit on all but one and find that one, for each in turn.

    It ignores time, so that a model may learn from what came later than what it must find: good for
    small data, while `time-split` and `prequential` say what to expect in service. Events of one
    user and time stay together. Models are judged alone: next-lists, trend and blends say what
    comes next in time, which folds cut to pieces.

    Example: `rheos evaluate cross-validate clicks.tsv --map user=SessionId item=ItemId time=Time
    --time-unit s --folds 5 --by users --model als`

    Parameters
    ----------
    file
        CSV, TSV or JSON lines, plain, .gz or .xz.
    folds
        How many parts.
    by
        What is divided: interactions, or users, who are strangers to the fit then; the earliest
        80 % of each stranger's events are the history, and the rest is to be found.
    model
        The models; by default the setting `trainer.model`. Its parameters are those of
        `trainer.parameters`; other models have their defaults.
    k
        How many recommendations.
    json
        Print the results as JSON.
    """

    def split(data: Any, seed: int) -> tuple[dict[str, Any], Sequence[Any]]:
        cross_validation = importlib.import_module("trainer.evaluation.cross_validation")
        return {"folds": folds, "by": by}, list(cross_validation.folds(data, folds, by, seed))

    judgements.run(file, reading, catalogue, model or [], k, split, blends=False, json=json)
