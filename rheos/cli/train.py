"""``rheos train``: one cycle of the trainer, now."""

from typing import Annotated

from cyclopts import Parameter


def command(*, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Archive, fit, judge and, if the gate lets it pass, publish a generation now.

    The model and its parameters are the settings' (`trainer.model`, `trainer.parameters`). The
    trainer worker may be running; while it is fitting, this command says so and ends. The exit
    status is 0 when a generation was promoted, 3 when there are too few new events to judge one,
    and 1 when it was refused or failed; the serving generation stays then. What was promoted or
    refused has a report, whose page is named.

    Example: `RHEOS_TRAINER_MODEL=neumf rheos train`

    Parameters
    ----------
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
    broker.require(settings)
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    cycle = importlib.import_module("trainer.cycle")
    try:
        with Stages() as stages, cycle.stdout_for_the_answer():
            outcome = cycle.train_once(settings, stages)
    except (cycle.TrainerBusyError, cycle.ArchiveError) as error:
        raise CommandError(str(error)) from None
    if json:
        answer.print_json(outcome)
    else:
        name = f" {outcome.generation}" if outcome.generation else ""
        print(
            f"{outcome.kind}{name}: {outcome.reason} ({outcome.model},"
            f" {outcome.interactions:,} interactions, {outcome.seconds:.1f} s)"
        )
        for trouble in outcome.troubles:
            print(f"gone on with {trouble}")
        if outcome.report:
            print(f"report: {outcome.report}")
    return {"promoted": 0, "waiting": 3}.get(outcome.kind, 1)
