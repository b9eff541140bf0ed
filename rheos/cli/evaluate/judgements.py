"""Models fitted and judged on holdouts of a file of events: what two commands share."""

import importlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rheos.cli.evaluate import event_file
from rheos.cli.evaluate.catalogue_files import CatalogueFiles, with_catalogue
from rheos.cli.evaluate.conditions import conditions, cores
from rheos.cli.evaluate.event_file import Reading

_LABELS = {
    **{"hit_rate": "HR", "recall": "recall", "precision": "precision", "f1": "F1"},
    **{"mrr": "MRR", "map": "MAP", "ndcg": "NDCG"},
}


def run(
    file: Path,
    reading: Reading,
    catalogue: CatalogueFiles,
    models: Sequence[str],
    k: int,
    split: Callable[[Any, int], tuple[dict[str, Any], Sequence[Any]]],
    *,
    blends: bool,
    json: bool,
) -> None:
    """Reads, splits, fits, judges and prints.

    ``split`` takes the DataSet and the seed and gives what is to be told of it, and the Holdouts;
    its ValueErrors are for a person. ``models`` empty: the setting ``trainer.model``. ``blends``:
    models are judged as they are served too, where the setting ``trainer.blend`` asks for one.
    """
    from rheos.cli import answer
    from rheos.cli.error import WRONG_USAGE, CommandError
    from rheos.cli.progress import Stages
    from rheos.settings import load

    if k < 1:
        raise CommandError(f"--k {k}: at least 1", WRONG_USAGE)
    settings = load()
    trainer = settings.trainer
    known = importlib.import_module("trainer.models")
    chosen = [
        known.model_of(name, trainer.parameters if name == trainer.model else {})
        for name in dict.fromkeys(models or [trainer.model])
    ]
    if blends:
        importlib.import_module("trainer.blending.learning").check(settings)
    started = time.perf_counter()
    with Stages() as stages:
        stages("read", 0, 0)
        rules = settings.event_rules()
        log = event_file.read(file, reading, rules)
        data = importlib.import_module("trainer.evaluation.event_log").interactions(log, rules)
        data = with_catalogue(data, catalogue, settings.features)
        fit = importlib.import_module("trainer.models.model").Run(
            trainer.seed, trainer.threads or cores(), stages, trainer.device
        )
        try:
            told, holdouts = split(data, trainer.seed)
        except ValueError as error:
            raise CommandError(f"{file.name}: {error}", WRONG_USAGE) from None
        judgement = importlib.import_module("trainer.evaluation.judgement")
        judged = judgement.compare(
            *(holdouts, chosen, k, settings, fit), as_served=blends and trainer.blend != "none"
        )
    result = {
        **event_file.described(file, log),
        "split": told,
        "k": k,
        "seed": trainer.seed,
        "models": {model.name: model for model in chosen},
        "judgements": judged,
        **conditions(started),
    }
    if json:
        answer.print_json(result)
    else:
        _print(result, judged, k)


def _print(result: dict[str, Any], judged: dict[str, Any], k: int) -> None:
    from rich.console import Console
    from rich.table import Table

    split = ", ".join(f"{name} {value}" for name, value in result["split"].items())
    first = next(iter(judged.values()))
    console = Console()
    table = Table(
        title=f"{result['file']}: {result['events']:,} events; {split};"
        f" {first.all.cases:,} users judged (± one standard error)",
        title_justify="left",
    )
    table.add_column(f"at {k}")
    for name in judged:
        table.add_column(name, justify="right")
    for measure in first.all.measures:
        table.add_row(
            _LABELS[measure], *(_shown(one.all.measures[measure]) for one in judged.values())
        )
    table.add_section()
    for what, bands in (("user", "by_activity"), ("item", "by_item")):
        for band in getattr(first, bands):
            # All recommenders are judged on the same cases, so that their bands are the same.
            found = [
                next(other for other in getattr(one, bands) if other.name == band.name)
                for one in judged.values()
            ]
            table.add_row(
                f"NDCG, {what}s with {band.name} before ({band.cases:,})",
                *(_shown(other.measures["ndcg"]) for other in found),
            )
        table.add_section()
    for part in ("beyond_accuracy", "pointwise"):
        fields = getattr(first, part).__struct_fields__[:-1]
        for field in fields:
            figures = [getattr(getattr(one, part), field) for one in judged.values()]
            if any(figure == figure for figure in figures):
                table.add_row(field.replace("_", " "), *map(_figure, figures))
    console.print(table)
    for name, one in judged.items():
        if one.blend:
            print(f"{name}: {one.blend}")
    print(f"{result['seconds']:.0f} s")


def _shown(estimate: Any) -> str:
    if estimate.standard_error != estimate.standard_error:
        return _figure(estimate.mean)
    return f"{estimate.mean:.4f} ± {estimate.standard_error:.4f}"


def _figure(value: float) -> str:
    return "–" if value != value else f"{value:.4f}" if abs(value) < 100 else f"{value:,.0f}"
