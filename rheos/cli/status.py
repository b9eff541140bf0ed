"""``rheos status``: what runs, what it serves and how far behind it is."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from rheos.cli.probe import WorkerStatus


def command(*, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Show what runs, what is served and what lags.

    Asks Kafka and each worker where the settings put it, on this machine. The exit status is 1
    unless all of them are ready.

    Example: `rheos status --demo`

    Parameters
    ----------
    json
        Print JSON: Kafka, the workers, and the API's own status.
    """
    from rheos.cli import broker
    from rheos.cli.answer import api_url, print_json
    from rheos.cli.probe import probe
    from rheos.cli.worker import ports
    from rheos.client import ApiError, Client
    from rheos.settings import load

    settings = load()
    problem = broker.unreachable(settings.kafka.bootstrap)
    workers = [probe(port) for port in ports(settings)]
    api: dict[str, Any] = {}
    if workers[0].state != "away":
        with Client(api_url(settings)) as client:
            try:
                api = client.status()
            except ApiError as error:
                api = {"error": {"code": error.code, "message": str(error)}}
    if json:
        print_json(
            {
                "kafka": {
                    "bootstrap": settings.kafka.bootstrap,
                    "prefix": settings.kafka.prefix,
                    "problem": problem,
                },
                "workers": [worker._asdict() for worker in workers],
                "api": api,
            }
        )
    else:
        _print(settings.kafka.bootstrap, problem, workers, api)
    return 0 if problem is None and all(worker.state == "ready" for worker in workers) else 1


def _print(
    bootstrap: str, problem: str | None, workers: Sequence["WorkerStatus"], api: Mapping[str, Any]
) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for heading in ("what", "state", "where", "generation", "lag, messages"):
        table.add_column(heading)
    table.add_row("kafka", f"away: {problem}" if problem else "ready", bootstrap, "", "")
    for worker in workers:
        state = f"{worker.state}: {worker.text}" if worker.text else worker.state
        fit = api.get("fit")
        if worker.worker == "trainer" and fit:
            state += f", fits {fit['model']}: {fit['stage']} {fit['done']:,} of {fit['total']:,}"
        generation = str(worker.generation_number or "")
        if worker.worker == "indexer" and api.get("generation"):
            generation = str(api["generation"]["name"])
        lag = ", ".join(f"{topic} {count:,}" for topic, count in worker.lag_messages.items())
        where = worker.address.removeprefix("http://")
        table.add_row(worker.worker, state, where, generation, lag)
    Console().print(table)
