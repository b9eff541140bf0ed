"""How long to wait before a child that ended is started again."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Doubling pauses; a child that was ready for `healthy_after_s` begins anew with the first."""

    first_s: float = 0.5
    longest_s: float = 30.0
    healthy_after_s: float = 10.0

    def pause_s(self, failures: int) -> float:
        """Return the pause after so many failures in a row (1, 2, …)."""
        return min(self.first_s * 2.0 ** min(failures - 1, 30), self.longest_s)
