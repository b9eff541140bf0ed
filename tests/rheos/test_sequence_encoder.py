"""The sequence encoder against the paper's equations written down place by place."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rheos.encoder import EncoderContext
from rheos.sequence_encoder import EPSILON, GAPS, Block, SequenceEncoder, gaps_of
from rheos.state import Float32s, History

N, D, HEADS, LAST, BLOCKS = 30, 8, 2, 6, 2
RANDOM = np.random.default_rng(5)
VECTORS = RANDOM.normal(0, D**-0.5, (N, D)).astype(np.float32)
CONTEXT = EncoderContext({f"i{row}": row for row in range(N)}, VECTORS)


def tensors() -> dict[str, Float32s]:
    random = np.random.default_rng(9)
    shapes = {
        **{"gain": (D,), "shift": (D,), "attend": (D, 3 * D), "distance": (HEADS, LAST)},
        "gap": (HEADS, GAPS),
        **{"mix": (D, D), "second_gain": (D,), "second_shift": (D,), "widen": (D, D)},
        **{"widen_bias": (D,), "narrow": (D, D), "narrow_bias": (D,)},
    }
    made = {
        f"encoder.{name}.{block}": random.normal(0, 0.5, shape).astype(np.float32)
        for block in range(BLOCKS)
        for name, shape in shapes.items()
    }
    ends = {"encoder.gain": np.ones(D, np.float32), "encoder.shift": np.zeros(D, np.float32)}
    return made | ends


PARAMETERS = {"kind": "transformer", "blocks": BLOCKS}
ENCODER = SequenceEncoder.load(PARAMETERS, tensors(), CONTEXT)


def normalised(x: np.ndarray, gain: Float32s, shift: Float32s) -> np.ndarray:
    return (x - x.mean()) / np.sqrt(x.var() + EPSILON) * gain + shift


def by_the_book(history: History) -> np.ndarray:
    """Every place by itself, in float64."""
    read = [
        (CONTEXT.row_of[item], time_ms)
        for item, weight, time_ms in zip(*map(list, history), strict=True)
        if item in CONTEXT.row_of and weight > 0
    ][-LAST:]
    if not read:
        return np.zeros(D)
    x = [VECTORS[row].astype(np.float64) * D**0.5 for row, _ in read]
    times = [time_ms for _, time_ms in read]
    for number in range(BLOCKS):
        block = Block(*(tensors()[f"encoder.{name}.{number}"] for name in Block._fields))
        inputs = [normalised(place, block.gain, block.shift) @ block.attend for place in x]
        after = []
        for place in range(len(x)):
            heads = []
            for head in range(HEADS):
                own = slice(head * D // HEADS, (head + 1) * D // HEADS)
                logits = [
                    inputs[place][:D][own] @ inputs[other][D : 2 * D][own] / (D / HEADS) ** 0.5
                    + block.distance[head, place - other]
                    + block.gap[head, int(np.log2(1 + (times[place] - times[other]) / 1000))]
                    for other in range(place + 1)
                ]
                shares = np.exp(logits) / np.exp(logits).sum()
                values = [inputs[other][2 * D :][own] for other in range(place + 1)]
                heads.append(sum(s * v for s, v in zip(shares, values, strict=True)))
            y = x[place] + np.concatenate(heads) @ block.mix
            inner = normalised(y, block.second_gain, block.second_shift) @ block.widen
            hidden = np.maximum(inner + block.widen_bias, 0)
            after.append(y + hidden @ block.narrow + block.narrow_bias)
        x = after
    return normalised(x[-1], tensors()["encoder.gain"], tensors()["encoder.shift"])


def history(pairs: Sequence[tuple[str, float]]) -> History:
    return History(
        [item for item, _ in pairs],
        np.array([weight for _, weight in pairs], np.float32),
        1000 * np.arange(len(pairs)) ** 2,  # 1 s, 3 s, 5 s, … after each other
    )


def liked(*items: str) -> History:
    return history([(item, 1.0) for item in items])


pairs = st.lists(
    st.tuples(st.integers(0, N + 5).map(lambda row: f"i{row}"), st.sampled_from([1.0, 0.4, -1.0])),
    max_size=12,
)


@given(st.lists(pairs, max_size=5))
@hypothesis_settings(deadline=None, max_examples=40)
def test_every_vector_equals_the_equations(drawn: list[list[tuple[str, float]]]) -> None:
    histories = [history(one) for one in drawn]
    vectors = ENCODER.encode(histories)
    assert vectors.shape == (len(drawn), D)
    assert vectors.dtype == np.float32
    for vector, one in zip(vectors, histories, strict=True):
        np.testing.assert_allclose(vector, by_the_book(one), atol=1e-5)


def test_batch_mates_do_not_move_a_vector() -> None:
    random = np.random.default_rng(1)
    histories = [
        liked(*(f"i{row}" for row in random.integers(0, N, length)))
        for length in random.integers(1, 12, 200)
    ]
    together = ENCODER.encode(histories)
    for place in range(0, 200, 7):
        alone = ENCODER.encode([histories[place]])[0]
        np.testing.assert_allclose(together[place], alone, atol=1e-6)


def test_only_the_latest_interactions_within_the_window_count() -> None:
    long = liked("i20", "i21", "i1", "i2", "i3", "i4", "i5", "i6")
    short = liked("i1", "i2", "i3", "i4", "i5", "i6")._replace(times_ms=long.times_ms[2:])
    np.testing.assert_allclose(*ENCODER.encode([long, short]), atol=1e-6)


def test_unknown_items_and_those_turned_down_take_no_place_in_the_window() -> None:
    with_others = history(
        [("i1", 1.0), ("?", 1.0), ("i2", 1.0), ("i9", -1.0), ("i3", 1.0), ("i8", 0.0)]
    )
    alone = liked("i1", "i2", "i3")._replace(times_ms=with_others.times_ms[[0, 2, 4]])
    np.testing.assert_allclose(*ENCODER.encode([with_others, alone]), atol=1e-6)


def test_an_item_twice_in_a_row_is_read_twice() -> None:
    once, twice = ENCODER.encode([liked("i1", "i2"), liked("i1", "i2", "i2")])
    assert np.abs(once - twice).max() > 1e-3


def test_the_time_gone_by_counts() -> None:
    soon = liked("i1", "i2", "i3")
    late = soon._replace(times_ms=np.array([0, 1000, 3_600_000]))
    vectors = ENCODER.encode([soon, late])
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


@given(st.lists(st.integers(-(1 << 52), 1 << 52), min_size=1, max_size=6))
def test_gaps_are_logarithms_of_seconds_rounded_down(times: list[int]) -> None:
    array = np.array([times], np.int64)
    for later, row in zip(times, gaps_of(array, array)[0].tolist(), strict=True):
        for earlier, gap in zip(times, row, strict=True):
            seconds = max(later - earlier, 0) / 1000
            assert gap == GAPS - 1 or 2**gap <= 1 + seconds < 2 ** (gap + 1)


def test_the_order_counts() -> None:
    forth, back = ENCODER.encode([liked("i1", "i2", "i3"), liked("i3", "i2", "i1")])
    assert np.abs(forth - back).max() > 1e-3


def test_nothing_to_read_gives_zeros() -> None:
    vectors = ENCODER.encode([liked(), liked("?"), history([("i1", -1.0)])])
    assert not vectors.any()
    assert ENCODER.encode([]).shape == (0, D)


@pytest.mark.parametrize("name", sorted(tensors()))
def test_a_tensor_of_another_shape_is_refused(name: str) -> None:
    for wrong in (np.zeros(3, np.float32), np.zeros((0, 0), np.float32), np.zeros((), np.float32)):
        with pytest.raises(ValueError):
            SequenceEncoder.load(PARAMETERS, tensors() | {name: wrong}, CONTEXT)


def test_tensors_that_are_missing_or_belong_to_other_items_are_refused() -> None:
    with pytest.raises(KeyError):
        SequenceEncoder.load({"blocks": BLOCKS + 1}, tensors(), CONTEXT)
    with pytest.raises(ValueError):
        SequenceEncoder.load({"blocks": 0}, tensors(), CONTEXT)
    with pytest.raises((TypeError, ValueError)):
        SequenceEncoder.load({"blocks": "two"}, tensors(), CONTEXT)
    other = EncoderContext(CONTEXT.row_of, VECTORS[:, :6])
    with pytest.raises(ValueError):
        SequenceEncoder.load(PARAMETERS, tensors(), other)
    uneven = tensors() | {"encoder.distance.1": np.zeros((HEADS, LAST + 1), np.float32)}
    with pytest.raises(ValueError, match="windows"):
        SequenceEncoder.load(PARAMETERS, uneven, CONTEXT)
