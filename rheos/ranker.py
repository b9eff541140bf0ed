"""The ranker: a second opinion on retrieved candidates; some generations carry one."""

from typing import Protocol

from rheos.state import Float32s, Int64s


class Ranker(Protocol):
    """Pure and thread-safe."""

    def score(self, user_vector: Float32s, rows: Int64s) -> Float32s:
        """Scores (n,) of the items in ``rows`` (n,) for one encoded user (dimensions,)."""
