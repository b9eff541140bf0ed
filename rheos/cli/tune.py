"""``rheos tune``: better parameters for the model."""

from typing import Annotated

from cyclopts import Parameter


def command(
    *,
    trials: int = 20,
    fresh: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Search better parameters for the model of the settings.

    Each trial is fitted on all but the newest events and judged on those as a candidate at the gate
    is; nothing is published. All trials are kept, and a second call goes on where the first ended.
    The best parameters are printed as they belong into the settings file. Needs `rheos[tune]`.

    Example: `RHEOS_TRAINER_MODEL=neumf rheos tune --trials 50`

    Parameters
    ----------
    trials
        How many more.
    fresh
        Forget the trials so far, and judge by the newest events.
    json
        Print the outcome as JSON.
    """
    import importlib
    import logging

    from rheos.cli import answer, broker
    from rheos.cli.error import CommandError
    from rheos.cli.progress import Stages
    from rheos.settings import load

    settings = load()
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    cycle = importlib.import_module("trainer.cycle")
    try:
        tuning = importlib.import_module("trainer.tuning")
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise CommandError("rheos tune needs Optuna: pip install 'rheos[tune]'") from None
    try:
        tuning.check(settings)
        broker.require(settings)
        with Stages() as stages, cycle.stdout_for_the_answer():
            found = tuning.tune(settings, trials, fresh=fresh, progress=stages)
    except tuning.TuneError as error:
        raise CommandError(str(error)) from None
    if json:
        answer.print_json(found)
        return
    before = "" if found.first_ndcg is None else f", {found.first_ndcg:.4f} of the settings' own"
    failed = f", {found.failed} failed" if found.failed else ""
    print(f"NDCG@20 {found.best_ndcg:.4f}{before}, on {found.queries:,} events")
    print(f"({found.trials} trials{failed}, kept in {found.file})")
    print("[trainer.parameters]")
    for key, value in found.best.items():
        print(f"{key} = {_toml(value)}")


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else f"{value!r}"
