"""SASRec's encoder in NumPy: a transformer over the history, whose last vector is the user's.

Kang & McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018), section III, with the
normalisation before each part, and in place of absolute positions a bias per distance and per time
gone by. The trainer's network in PyTorch gives the same vectors within 1e-4.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from rheos.catalogue import UserAttributes
from rheos.encoder import EncoderContext
from rheos.state import Float32s, History, Int64s

AT_ONCE = 16
"""Histories taken together: (16, 50, 192) float32 is 0.6 MB and stays in cache."""

EPSILON = 1e-5  # of layer normalisation, as in PyTorch
NEVER = np.float32(-1e9)
GAPS = 32
"""Kinds of time gone by between two interactions: gap g has from 2^g - 1 to below 2^(g+1) - 1 s."""


class Block(NamedTuple):
    """One block's tensors. Attention, ``distance`` and ``gap`` being its bias per head and steps or
    time back; then two layers; before each of both a normalisation."""

    gain: Float32s  # (d,)
    shift: Float32s  # (d,)
    attend: Float32s  # (d, 3 d): queries, keys, values
    distance: Float32s  # (heads, last)
    gap: Float32s  # (heads, GAPS)
    mix: Float32s  # (d, d)
    second_gain: Float32s  # (d,)
    second_shift: Float32s  # (d,)
    widen: Float32s  # (d, d)
    widen_bias: Float32s  # (d,)
    narrow: Float32s  # (d, d)
    narrow_bias: Float32s  # (d,)

    def check(self, d: int) -> None:
        """Raises ValueError for shapes that do not follow on each other."""
        heads, last = self.distance.shape if self.distance.ndim == 2 else (0, 0)
        expected = (
            *((d,), (d,), (d, 3 * d), (heads, last), (heads, GAPS), (d, d), (d,), (d,)),
            *((d, d), (d,), (d, d), (d,)),
        )
        for name, tensor, shape in zip(self._fields, self, expected, strict=True):
            if tensor.shape != shape:
                raise ValueError(f"sequence encoder: {name} is {tensor.shape}, not {shape}")
        if not (heads and last) or d % heads:
            raise ValueError(f"sequence encoder: {heads} heads of vectors of {d}, window {last}")

    def run(self, x: Float32s, times_ms: Int64s, *, newest: Int64s | None) -> Float32s:
        """The block on x (B, n, d): (B, n, d), or (B, 1, d) at the places ``newest`` (B,) alone.

        The last block owes no other place than those, which saves most of its work.
        """
        batch, length, d = x.shape
        heads = len(self.distance)
        places = np.arange(length)
        flat = _normalised(x, self.gain, self.shift).reshape(-1, d)
        if newest is None:
            q, k, v = self._heads(flat @ self.attend, (batch, length, 3, heads))
            steps = (places[:, None] - places)[None]  # (1, n, n)
            gaps = gaps_of(times_ms, times_ms)  # (B, n, n)
        else:
            own = np.arange(batch) * length + newest  # places in flat
            q = self._heads(flat[own] @ self.attend[:, :d], (batch, 1, 1, heads))[0]
            k, v = self._heads(flat @ self.attend[:, d:], (batch, length, 2, heads))
            x = x.reshape(-1, d)[own][:, None, :]
            steps = newest[:, None, None] - places  # (B, 1, n)
            gaps = gaps_of(times_ms.reshape(-1)[own][:, None], times_ms)  # (B, 1, n)
        bias = self.distance[:, np.maximum(steps, 0)] + self.gap[:, gaps]  # (heads, B, …, n)
        bias[:, np.broadcast_to(steps < 0, gaps.shape)] = NEVER
        scores = q @ k.transpose(0, 1, 3, 2) * np.float32((d // heads) ** -0.5)
        shares = _softmax(scores + bias.swapaxes(0, 1))
        attended = (shares @ v).transpose(0, 2, 1, 3).reshape(-1, d)
        x = x + (attended @ self.mix).reshape(x.shape)
        flat = _normalised(x, self.second_gain, self.second_shift).reshape(-1, d)
        hidden = np.maximum(flat @ self.widen + self.widen_bias, 0.0)
        out: Float32s = x + (hidden @ self.narrow + self.narrow_bias).reshape(x.shape)
        return out

    def _heads(self, flat: Float32s, shape: tuple[int, int, int, int]) -> Float32s:
        """(B n, parts d) as (parts, B, heads, n, d / heads)."""
        return flat.reshape(*shape, -1).transpose(2, 0, 3, 1, 4)


def gaps_of(later_ms: Int64s, earlier_ms: Int64s) -> Int64s:
    """The kind of time gone by (B, m, n) to each of (B, m) from each of (B, n); 0 backwards."""
    seconds = np.maximum(later_ms[:, :, None] - earlier_ms[:, None, :], 0) / 1000.0
    # frexp: 1 + s = m 2^e with m in [0.5, 1), so e - 1 is the logarithm, rounded down, exactly.
    exponents: Int64s = np.frexp(seconds + 1.0)[1].astype(np.int64)
    return np.minimum(exponents - 1, GAPS - 1)


class SequenceEncoder:
    """Reads the latest ``last`` interactions of known items that were not turned down.

    Items enter by the generation's own item vectors.
    """

    def __init__(
        self,
        context: EncoderContext,
        blocks: Sequence[Block],
        gain: Float32s,
        shift: Float32s,
    ) -> None:
        d = context.item_vectors.shape[1]
        if not blocks or gain.shape != (d,) or shift.shape != (d,):
            raise ValueError("sequence encoder: blocks, or the last normalisation, are missing")
        for block in blocks:
            block.check(d)
        if len({block.distance.shape[1] for block in blocks}) > 1:
            raise ValueError("sequence encoder: the blocks read windows of different lengths")
        self._row_of = context.row_of
        self._scaled = context.item_vectors * np.float32(d**0.5)
        self._blocks = list(blocks)
        self._gain, self._shift = gain, shift
        self._last = blocks[0].distance.shape[1]

    @classmethod
    def load(
        cls,
        parameters: Mapping[str, Any],
        tensors: Mapping[str, Float32s],
        context: EncoderContext,
    ) -> Self:
        blocks = [
            Block(*(tensors[f"encoder.{name}.{number}"] for name in Block._fields))
            for number in range(parameters["blocks"])
        ]
        return cls(context, blocks, tensors["encoder.gain"], tensors["encoder.shift"])

    @property
    def dimensions(self) -> int:
        return int(self._scaled.shape[1])

    @property
    def reads_attributes(self) -> bool:
        return False

    def encode(
        self,
        histories: Sequence[History],
        attributes: Sequence[UserAttributes | None] | None = None,
    ) -> Float32s:
        windows = [self._window(history) for history in histories]
        out = np.zeros((len(windows), self.dimensions), np.float32)
        # Histories of about one length together: the rest of a row is work for nothing.
        order = sorted(
            (place for place, window in enumerate(windows) if window),
            key=lambda place: len(windows[place]),
        )
        for start in range(0, len(order), AT_ONCE):
            places = order[start : start + AT_ONCE]
            out[places] = self._forward([windows[place] for place in places])
        return out

    def terms(self, history: History, item_ids: Sequence[str]) -> list[list[tuple[str, float]]]:
        return [[] for _ in item_ids]

    def _window(self, history: History) -> list[tuple[int, int]]:
        """Rows and times of the latest interactions, oldest first."""
        found: list[tuple[int, int]] = []
        weights, times_ms = history.weights.tolist(), history.times_ms.tolist()
        for place in range(len(weights) - 1, -1, -1):
            row = self._row_of.get(history.item_ids[place])
            if row is not None and weights[place] > 0:
                found.append((row, times_ms[place]))
                if len(found) == self._last:
                    break
        return found[::-1]

    def _forward(self, windows: Sequence[Sequence[tuple[int, int]]]) -> Float32s:
        """Vectors (B, d) of windows of at least one interaction each."""
        lengths: Int64s = np.array([len(window) for window in windows], np.int64)
        padded = np.zeros((len(windows), int(lengths.max()), 2), np.int64)
        for place, window in enumerate(windows):
            padded[place, : len(window)] = window
        rows, times_ms = padded[:, :, 0], padded[:, :, 1]
        x = self._scaled[rows]  # (B, n, d)
        for block in self._blocks[:-1]:
            x = block.run(x, times_ms, newest=None)
        x = self._blocks[-1].run(x, times_ms, newest=lengths - 1)
        return _normalised(x[:, 0], self._gain, self._shift)


def _normalised(x: Float32s, gain: Float32s, shift: Float32s) -> Float32s:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.einsum("...d,...d->...", centred, centred)[..., None] / np.float32(x.shape[-1])
    out: Float32s = centred / np.sqrt(variance + np.float32(EPSILON)) * gain + shift
    return out


def _softmax(scores: Float32s) -> Float32s:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: Float32s = powers / powers.sum(axis=-1, keepdims=True)
    return shares
