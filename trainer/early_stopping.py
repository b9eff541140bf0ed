"""When to end a fit: no gain for a while, or a loss that says that nothing is learned any more.

stopping = EarlyStopping(patience=3)
for epoch in range(epochs):
    stopping.check(loss)                       # raises DivergedError
    if stopping.improved(epoch, ndcg):
        best = copy of the weights
    if stopping.is_over:
        break
"""

import math

EXPLODED = 10.0
"""A loss of so many times the first one's size has left the problem: a step too long."""


class DivergedError(ArithmeticError):
    """A fit went astray: its loss is not finite or explodes. The text names the figures."""


class EarlyStopping:
    """Pure bookkeeping, no clock and no I/O. ``value`` is of any measure where higher is better.

    A gain counts from ``least_gain`` above the best so far. ``best`` is -inf and ``best_step`` -1
    before the first. ``losses`` and ``values`` keep all that was told, in order.
    """

    def __init__(self, patience: int, least_gain: float = 0.0) -> None:
        if patience < 1:
            raise ValueError(f"patience = {patience}: at least 1")
        self.best = -math.inf
        self.best_step = -1
        self._patience = patience
        self._least_gain = least_gain
        self._idle = 0
        self._first_loss: float | None = None
        self.losses: list[float] = []
        self.values: list[float] = []

    def check(self, loss: float) -> None:
        """Told the loss of a step or an epoch, always of the same kind (a mean per example).

        Raises DivergedError where it is not finite, or EXPLODED times as large as the first.
        """
        if not math.isfinite(loss):
            raise DivergedError(f"the loss is {loss}; a smaller learning rate may help")
        self.losses.append(loss)
        if self._first_loss is None:
            self._first_loss = abs(loss)
        elif abs(loss) > EXPLODED * self._first_loss > 0:
            raise DivergedError(
                f"the loss is {loss:.4g}, at first it was {self._first_loss:.4g};"
                " a smaller learning rate may help"
            )

    def improved(self, step: int, value: float) -> bool:
        """Told the measure after a step; whether it is the best so far: then keep the weights.

        Raises DivergedError where it is not finite.
        """
        if not math.isfinite(value):
            raise DivergedError(f"the validation's measure is {value} after step {step}")
        self.values.append(value)
        if value > self.best + self._least_gain:
            self.best, self.best_step, self._idle = value, step, 0
            return True
        self._idle += 1
        return False

    def curve(self, measure: str) -> dict[str, list[float]]:
        """How the fit went, for its report: losses and values, the latter called ``measure``."""
        return {"loss": self.losses, measure: self.values}

    @property
    def is_over(self) -> bool:
        """Whether the last ``patience`` values brought no gain."""
        return self._idle >= self._patience
