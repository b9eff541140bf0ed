"""The ratings of MovieLens-1M, as far as they lie in the shared data: the first half, by user."""

import gzip
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.paper_rows.row import DATA

FOLDER = DATA / "ml-1m"


class Rating(NamedTuple):
    user: str
    movie: str
    stars: float
    time_ms: int


def ratings() -> Iterator[Rating]:
    """In the file's order; the last user's may be cut off. Raises OSError."""
    with gzip.open(FOLDER / "ratings.first-487650.dat.gz", "rt", encoding="latin-1") as lines:
        for line in lines:
            user, movie, stars, second = line.rstrip().split("::")
            yield Rating(user, movie, float(stars), 1000 * int(second))
