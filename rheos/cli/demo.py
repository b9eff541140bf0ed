"""The demo's settings: its own prefix, folder and clock, apart from whatever else runs here."""

import os

import platformdirs

PREFIX = "demo"


def environment() -> dict[str, str]:
    """The settings in which the demo differs, as environment variables, which win over files."""
    return {
        "RHEOS_DATA_DIR": str(platformdirs.user_data_path("rheos") / "demo"),
        "RHEOS_KAFKA_PREFIX": PREFIX,
        # Its data are of 2010 and 2011: "now" is the newest event's time.
        "RHEOS_CLOCK": "stream",
        # Its invoices are baskets: docs/evaluation.md. Who chose otherwise for a try gets that.
        "RHEOS_TRAINER_ITEM_WEIGHTS": os.environ.get("RHEOS_TRAINER_ITEM_WEIGHTS", "ease"),
    }
