"""Run by torchrun in test_together.py: its processes fit one model and write what each has."""

import sys
from datetime import timedelta

import msgspec
import numpy as np
import torch.distributed as dist

from tests.trainer.shop import taste
from trainer.data_set import DataSet, of_interactions
from trainer.distributed import leave
from trainer.models import model_of
from trainer.models.model import Run


def some_data() -> DataSet:
    events = taste(600)
    return of_interactions(
        [event.user_id for event in events],
        [event.item_id for event in events],
        [event.time_ms for event in events],
    )


def main() -> None:
    name, parameters, folder = sys.argv[1], msgspec.json.decode(sys.argv[2]), sys.argv[3]
    dist.init_process_group("gloo", timeout=timedelta(seconds=600))
    fitted = model_of(name, parameters).fit(some_data(), Run(seed=5, device="cpu"))
    np.savez(
        f"{folder}/{dist.get_rank()}.npz", items=fitted.item_vectors, users=fitted.user_vectors
    )
    leave(0)


if __name__ == "__main__":
    main()
