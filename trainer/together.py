"""``torchrun --nproc-per-node N -m trainer.together``: one cycle, fitted by several processes.

The first process runs the cycle as ``rheos train`` does and hands each fit to the others, which
wait for it: the data set goes to them over the process group, whose members trust each other. Only
the first process reads Kafka, judges and publishes. GPUs talk by NCCL, one a process; CPUs by gloo.
"""

import logging
import os
import sys
from datetime import timedelta
from typing import NamedTuple

import msgspec
import torch
import torch.distributed as dist

from rheos.settings import SettingsError, load
from trainer.cycle import train_once
from trainer.data_set import DataSet
from trainer.distributed import leave
from trainer.fitting import FitError, fit
from trainer.models import model_of, model_of_settings
from trainer.models.model import Fitted, Model, Run, silent

PATIENCE = timedelta(hours=12)
"""How long the others wait for the next fit: gates and blends take their time."""

log = logging.getLogger(__name__)


class Task(NamedTuple):
    """A fit, as it is handed to the other processes."""

    model: str
    parameters: dict[str, object]
    data: DataSet
    run: Run


def fit_together(model: Model, data: DataSet, run: Run) -> Fitted:
    """``fitting.fit`` in all processes at once; called by the first. Raises FitError."""
    quiet = run._replace(progress=silent)  # the screen is the first's alone
    _tell(Task(model.name, msgspec.to_builtins(model), data, quiet))
    return fit(model, data, run)


def follow() -> None:
    """What the other processes do: fit what they are handed, until the first has finished."""
    while (task := _tell(None)) is not None:
        try:
            fit(model_of(task.model, task.parameters), task.data, task.run)
        except FitError as error:
            # The first process fails alike, on the same numbers, and says so in its outcome.
            log.error("process %d: %s", dist.get_rank(), error)


def _tell(task: Task | None) -> Task | None:
    """The first process's ``task``, in all processes. None ends it."""
    told = [task]
    dist.broadcast_object_list(told, src=0)
    return told[0]


def main() -> int:
    """Runs the cycle; the first process prints its outcome as JSON.

    Returns where there is nothing to run; processes that ran end here.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("kafka").setLevel(logging.ERROR)
    if "RANK" not in os.environ:
        print("start this with torchrun --nproc-per-node N -m trainer.together", file=sys.stderr)
        return 2
    try:
        settings = load()
        model = model_of_settings(settings)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    if "distributed" not in model.can:
        print(f"{model.name} is fitted by one process: rheos train", file=sys.stderr)
        return 2
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # what "cuda" means from here on
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    if dist.get_rank() > 0:
        follow()
        leave(0)
    try:
        outcome = train_once(settings, fit=fit_together)
    finally:
        _tell(None)
    print(msgspec.json.encode(outcome).decode())
    leave(0 if outcome.kind in ("promoted", "waiting") else 1)


if __name__ == "__main__":
    sys.exit(main())
