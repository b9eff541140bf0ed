"""The demo's settings: its own prefix, folder and clock, apart from whatever else runs here."""

import json
import os
from collections.abc import Mapping

import platformdirs

PREFIX = "demo"

PARAMETERS: Mapping[str, Mapping[str, float]] = {
    "bpr": {"epochs": 8},
    "gmf": {"epochs": 8},
    "mlp": {"epochs": 8},
    "neumf": {"gmf_epochs": 60},
    "two_tower": {"epochs": 3},
}
"""Where a model's defaults, meant for more data, let who tries the demo wait: less work, which
finds about as much at its gate. Not those of a file that sets ``trainer.model``."""


def environment() -> dict[str, str]:
    """The settings in which the demo differs, as environment variables, which win over files."""
    own = {
        "RHEOS_DATA_DIR": str(platformdirs.user_data_path("rheos") / "demo"),
        "RHEOS_KAFKA_PREFIX": PREFIX,
        # Its data are of 2010 and 2011: "now" is the newest event's time.
        "RHEOS_CLOCK": "stream",
    }
    tries = {
        # Its invoices are baskets: docs/evaluation.md.
        "RHEOS_TRAINER_ITEM_WEIGHTS": "ease",
        # A core is Kafka's and the workers': the threads of a fit wait for each other, and one that
        # gets no core holds up all.
        "RHEOS_TRAINER_THREADS": str(max(1, len(os.sched_getaffinity(0)) - 1)),
    }
    model = os.environ.get("RHEOS_TRAINER_MODEL", "")
    if model in PARAMETERS:
        tries["RHEOS_TRAINER_PARAMETERS"] = json.dumps(PARAMETERS[model])
    # Who chose otherwise for a try gets that.
    return own | {name: os.environ.get(name, text) for name, text in tries.items()}
