"""A row of the papers' tables: how to train it, how to evaluate it, and what it owes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


class Train(Protocol):
    def __call__(self, folder: Path, *, seed: int, threads: int) -> dict[str, Any]:
        """Trains and leaves in ``folder`` all that evaluating needs; tells the settings."""


class PaperRow(NamedTuple):
    """``data``: the folder below DATA that it reads. ``evaluate`` reads what ``train`` left.

    ``shortfalls`` says of the figures what they owe to the table, nothing when it is met;
    ``most_seconds`` is how long training may take, counted in CPU seconds: one core's.
    """

    name: str
    data: str
    split: str
    model: str
    train: Train
    evaluate: Callable[[Path], dict[str, Any]]
    shortfalls: Callable[[dict[str, Any]], list[str]]
    most_seconds: float | None = None


def at_least(**limits: float) -> Callable[[dict[str, Any]], list[str]]:
    """Shortfalls of figures with fixed limits; ``hr_10`` is the figure named ``hr@10``."""

    def shortfalls(figures: dict[str, Any]) -> list[str]:
        wanted = {name.replace("_", "@"): limit for name, limit in limits.items()}
        return [
            f"{name} {figures[name]:.4f} is below {limit}"
            for name, limit in wanted.items()
            if not figures[name] >= limit
        ]

    return shortfalls
