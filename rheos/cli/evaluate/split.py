"""``rheos evaluate split``: a model on a published split."""

import importlib
import time
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from rheos.cli.evaluate.conditions import conditions, cores

Flag = Annotated[bool, Parameter(negative="")]


def command(
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
            settings.trainer.threads or cores(),
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
        **conditions(started),
    }
    if json:
        answer.print_json(result)
    else:
        print(
            f"{name} on {folder.name} ({format}): HR@{k} {found.hit_rate:.4f},"
            f" NDCG@{k} {found.ndcg:.4f}, {found.cases:,} users, {result['seconds']:.0f} s"
        )
