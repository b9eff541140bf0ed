"""The kinds of features: a value of a record becomes rows of a table with weights.

A kind is fitted on the values of training and then fixed; it takes whatever a record holds. A value
that is missing, or nothing that the kind can read, is row 0, *unknown*. ``size`` is the number of
rows, ``parameters`` what ``load`` of FEATURE_KINDS restores it from.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from rheos.feature_text import (
    MODEL_DIMENSIONS,
    bucket,
    folded,
    grams,
    language_model,
    words,
)
from rheos.settings import FeatureDeclaration

Rows = tuple[Sequence[int], Sequence[float]]
"""Rows of a feature's own table and their weights."""

UNKNOWN: Rows = ((0,), (1.0,))
SHARES = 16
"""Quantiles of a number: enough to bend, few enough that each has its examples."""
LEAST_RECORDS = 2
"""A value that stands in one record alone teaches nothing about others: it goes to a bucket."""
MOST_VALUES = 64
"""Of a bag."""
LARGEST = 1e30
"""Beyond it sums of squares would leave the range of numbers."""


class Kind(Protocol):
    """A fitted feature. Pure and thread-safe."""

    @property
    def size(self) -> int: ...

    @property
    def parameters(self) -> dict[str, Any]: ...

    def rows(self, value: object) -> Rows:
        """At least one row. Never raises, whatever the value."""


class Shares:
    """A number by the quantile that it falls into: row 1 + the number of edges at or below it."""

    def __init__(self, edges: Sequence[float]) -> None:
        self._edges = [float(edge) for edge in edges]
        if not all(map(math.isfinite, self._edges)) or self._edges != sorted(self._edges):
            raise ValueError(f"feature: quantiles {self._edges} do not ascend")
        self.size = len(self._edges) + 2
        self.parameters = {"fitted": "shares", "edges": self._edges}

    @classmethod
    def fit(cls, declared: FeatureDeclaration, values: Iterable[object]) -> "Shares":
        numbers = _numbers(values)
        if not numbers:
            return cls([])
        inner = np.arange(1, SHARES) / SHARES
        return cls(np.unique(np.quantile(numbers, inner, method="higher")).tolist())

    def rows(self, value: object) -> Rows:
        found = number(value)
        if found is None:
            return UNKNOWN
        return (1 + int(np.searchsorted(self._edges, found, side="right")),), (1.0,)


class Standard:
    """A number clipped to [low, high] and standardised: row 1 with weight (x - mean) / spread.

    Row 2 tells a known number from an unknown one.
    """

    def __init__(self, low: float, high: float, mean: float, spread: float) -> None:
        fit = all(map(math.isfinite, (low, high, mean, spread))) and low <= high and spread > 0
        if not fit:
            raise ValueError(f"feature: no scale: {low}, {high}, {mean}, {spread}")
        self._low, self._high, self._mean, self._spread = low, high, mean, spread
        self.size = 3
        self.parameters = {
            "fitted": "standard",
            **{"low": low, "high": high, "mean": mean, "spread": spread},
        }

    @classmethod
    def fit(cls, declared: FeatureDeclaration, values: Iterable[object]) -> "Standard":
        numbers = np.array(_numbers(values))
        if not len(numbers):
            return cls(0.0, 0.0, 0.0, 1.0)
        low, high = np.quantile(numbers, [0.01, 0.99])
        clipped = np.clip(numbers, low, high)
        spread = float(clipped.std())
        return cls(
            float(low),
            float(high),
            float(clipped.mean()),
            spread if math.isfinite(spread) and spread > 0 else 1.0,
        )

    def rows(self, value: object) -> Rows:
        found = number(value)
        if found is None:
            return UNKNOWN
        clipped = min(self._high, max(self._low, found))
        return (1, 2), ((clipped - self._mean) / self._spread, 1.0)


class Values:
    """One of several values, or the mean of several: rows 1 … V by vocabulary, then buckets."""

    def __init__(self, vocabulary: Sequence[str], buckets: int, bag: bool) -> None:
        if buckets < 1 or len(set(vocabulary)) != len(vocabulary):
            raise ValueError("feature: no bucket, or a value stands twice in a vocabulary")
        self._row_of = {value: row for row, value in enumerate(vocabulary, 1)}
        self._buckets = buckets
        self._bag = bag
        self.size = 1 + len(vocabulary) + buckets
        self.parameters = {
            "fitted": "values",
            **{"vocabulary": list(vocabulary), "buckets": buckets, "bag": bag},
        }

    @classmethod
    def fit(cls, declared: FeatureDeclaration, values: Iterable[object]) -> "Values":
        bag = declared.kind == "bag"
        counts: Counter[str] = Counter()
        for value in values:
            counts.update(set(_texts(value, bag)))
        common = [text for text, count in counts.items() if count >= LEAST_RECORDS]
        common.sort(key=lambda text: (-counts[text], text))
        return cls(common[: declared.vocabulary], declared.buckets, bag)

    def rows(self, value: object) -> Rows:
        texts = _texts(value, self._bag)
        if not texts:
            return UNKNOWN
        rows = [self._row(text) for text in texts]
        return rows, [1.0 / len(rows)] * len(rows)

    def _row(self, text: str) -> int:
        row = self._row_of.get(text)
        return 1 + len(self._row_of) + bucket(text, self._buckets) if row is None else row


class Grams:
    """A text's words and their n-grams, hashed; n of them weigh 1/√n each."""

    def __init__(self, buckets: int) -> None:
        if buckets < 1:
            raise ValueError("feature: a text needs a bucket")
        self._buckets = buckets
        self.size = 1 + buckets
        self.parameters = {"fitted": "grams", "buckets": buckets}

    @classmethod
    def fit(cls, declared: FeatureDeclaration, values: Iterable[object]) -> "Grams":
        return cls(declared.buckets)

    def rows(self, value: object) -> Rows:
        rows = [1 + gram for word in words(_joined(value)) for gram in grams(word, self._buckets)]
        if not rows:
            return UNKNOWN
        return rows, [len(rows) ** -0.5] * len(rows)


class Vectors:
    """A text's vector by a language model: row 1 + k weighs its k-th number."""

    size = 1 + MODEL_DIMENSIONS

    def __init__(self) -> None:
        self._model = language_model()
        self.parameters = {"fitted": "vectors"}

    @classmethod
    def fit(cls, declared: FeatureDeclaration, values: Iterable[object]) -> "Vectors":
        return cls()

    def rows(self, value: object) -> Rows:
        vector = self._model.vector(_joined(value))
        if not vector.any():
            return UNKNOWN
        return range(1, self.size), vector.tolist()


FEATURE_KINDS: dict[str, Callable[..., Kind]] = {
    "shares": Shares,
    "standard": Standard,
    "values": Values,
    "grams": Grams,
    "vectors": Vectors,
}
"""What restores a fitted feature from its parameters."""


def fit_kind(declared: FeatureDeclaration, values: Iterable[object]) -> Kind:
    """Fits a feature on the values of training. Raises ValueError where a package is missing."""
    if declared.kind == "numeric":
        fit: Callable[..., Kind] = Standard.fit if declared.scale == "standard" else Shares.fit
    elif declared.kind == "text":
        fit = Vectors.fit if declared.vectors == "wordllama" else Grams.fit
    else:
        fit = Values.fit
    return fit(declared, values)


def load_kind(parameters: Mapping[str, Any]) -> Kind:
    """Raises KeyError, TypeError or ValueError for parameters that are none of a kind."""
    rest = dict(parameters)
    return FEATURE_KINDS[rest.pop("fitted")](**rest)


def number(value: object) -> float | None:
    """A finite number in a value, cut to ± LARGEST, or None."""
    if not isinstance(value, str | int | float):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return min(LARGEST, max(-LARGEST, found)) if math.isfinite(found) else None


def _numbers(values: Iterable[object]) -> list[float]:
    return [found for found in map(number, values) if found is not None]


def _texts(value: object, bag: bool) -> list[str]:
    """The folded texts in a value; none where it holds nothing of the kind."""
    if bag and isinstance(value, list):
        return [text for each in value[:MOST_VALUES] for text in _texts(each, False)]
    if isinstance(value, bool):
        return ["true" if value else "false"]
    if isinstance(value, int | float):
        found = number(value)
        return [] if found is None else [f"{found:.15g}"]
    text = folded(value) if isinstance(value, str) else ""
    return [text] if text else []


def _joined(value: object) -> str:
    if isinstance(value, list):
        return " ".join(each for each in value[:MOST_VALUES] if isinstance(each, str))
    return value if isinstance(value, str) else ""
