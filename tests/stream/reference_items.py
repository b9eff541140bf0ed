"""The items fold said slowly: row by row with Python floats, nothing shared with stream/."""

from collections import defaultdict
from typing import Any


def grown(weight: float, time_ms: int, epoch: int, half_life_ms: int) -> float:
    span = 64 * half_life_ms
    own = time_ms // span
    return weight * 2.0 ** ((time_ms - own * span) / half_life_ms) * 2.0 ** (64 * (own - epoch))


class ReferenceItems:
    """``items`` maps an item to its interactions, popularity and neighbours."""

    def __init__(
        self,
        near_window: int,
        far_window: int,
        far_half_steps: float,
        half_life_ms: int,
        trend_half_lives_ms: list[int],
        kept: int,
    ) -> None:
        self.near_window, self.far_window = near_window, far_window
        self.far_half_steps, self.half_life_ms = far_half_steps, half_life_ms
        self.trend_half_lives_ms, self.kept = trend_half_lives_ms, kept
        self.items: dict[str, dict[str, Any]] = defaultdict(
            lambda: {
                "interactions": 0,
                "popularity": [[0, 0.0] for _ in trend_half_lives_ms],
                "epoch": 0,
                "neighbours": {},
            }
        )

    def apply(self, source: str, target: str, distance: int, weight: float, time_ms: int) -> None:
        item = self.items[source]
        if distance == 0:
            item["interactions"] += 1
            for place, half_life_ms in enumerate(self.trend_half_lives_ms):
                epoch, total = item["popularity"][place]
                new = max(epoch, time_ms // (64 * half_life_ms))
                total *= 2.0 ** (64 * (epoch - new))
                total += grown(max(weight, 0.0), time_ms, new, half_life_ms)
                item["popularity"][place] = [new, total]
            return
        new = max(item["epoch"], time_ms // (64 * self.half_life_ms))
        table = item["neighbours"]
        for counts in table.values():
            counts[0] *= 2.0 ** (64 * (item["epoch"] - new))
            counts[1] *= 2.0 ** (64 * (item["epoch"] - new))
        item["epoch"] = new
        steps = abs(distance)
        near = (1.0 / steps if steps <= self.near_window else 0.0) * weight
        near *= 1.0 if distance > 0 else 0.5
        far = 2.0 ** (-(steps - 1) / self.far_half_steps) * weight
        far = far if steps <= self.far_window else 0.0
        value = table.setdefault(target, [0.0, 0.0])
        value[0] += grown(near, time_ms, new, self.half_life_ms)
        value[1] += grown(far, time_ms, new, self.half_life_ms)
        if len(table) > 2 * self.kept:
            strongest = sorted(table, key=lambda other: (-table[other][1], -table[other][0], other))
            stay = set(strongest[: self.kept])
            item["neighbours"] = {other: table[other] for other in table if other in stay}
