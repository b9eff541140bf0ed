"""Adam in NumPy: Kingma & Ba, "Adam: A Method for Stochastic Optimization" (ICLR 2015), alg. 1."""

import numpy as np

from rheos.state import Float32s


class Adam:
    """Moves one array; β₁ = .9, β₂ = .999, ε = 1e-8."""

    def __init__(self, like: Float32s, learning_rate: float) -> None:
        self._m = np.zeros_like(like)
        self._v = np.zeros_like(like)
        self._learning_rate = learning_rate
        self._t = 0

    def step(self, parameters: Float32s, gradient: Float32s) -> None:
        """Moves ``parameters`` in place, against ``gradient`` of the same shape."""
        self._t += 1
        self._m += 0.1 * (gradient - self._m)
        self._v += 0.001 * (gradient**2 - self._v)
        length = np.sqrt(self._v / (1 - 0.999**self._t)) + 1e-8
        parameters -= self._learning_rate * self._m / (1 - 0.9**self._t) / length
