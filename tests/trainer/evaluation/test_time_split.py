"""A split in time: nothing later is known, and no basket is cut in two or told in its order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data_set import of_interactions
from trainer.evaluation import time_split

ROWS = st.lists(
    st.tuples(
        st.integers(0, 3), st.integers(0, 5), st.integers(0, 8), st.sampled_from([-1.0, 1.0])
    ),
    min_size=1,
    max_size=40,
)


def data_of(rows):
    users, items, times, weights = zip(*rows, strict=True)
    return of_interactions([f"u{n}" for n in users], [f"i{n}" for n in items], times, weights)


@given(rows=ROWS, at_ms=st.integers(0, 9))
def test_a_split_is_what_a_loop_over_the_rows_would_make_it(rows, at_ms):
    before = [row for row in rows if row[2] < at_ms]
    had = {(f"u{user}", f"i{item}") for user, item, _, _ in before}
    wanted: dict[str, set[str]] = {}
    for user, item, time_ms, weight in rows:
        is_new = (f"u{user}", f"i{item}") not in had
        if time_ms >= at_ms and weight > 0 and is_new:
            wanted.setdefault(f"u{user}", set()).add(f"i{item}")
    if not wanted or not any(row[3] > 0 for row in before):
        with pytest.raises(ValueError, match="leaves nothing"):
            time_split.split(data_of(rows), at_ms)
        return
    found = time_split.split(data_of(rows), at_ms)
    assert {user: set(items) for user, items in found.wanted.items()} == wanted
    assert all(len(items) == len(set(items)) for items in found.wanted.values())
    assert len(found.train) == len(before)
    assert len(found.known) == len(before)
    assert found.activity() == [
        sum(f"u{user}" == name for user, _, _, _ in before) for name in found.wanted
    ]


@given(rows=ROWS, share=st.floats(0, 1))
def test_a_share_never_cuts_a_time_in_two_and_never_takes_more(rows, share):
    data = data_of(rows)
    try:
        at_ms = time_split.time_of(data, share)
    except ValueError:
        return
    assert 0 < (data.times_ms < at_ms).sum() <= share * len(data)


@pytest.mark.parametrize("share", [0.0, 1.0, 2.0, -1.0])
def test_a_share_that_leaves_a_side_empty_is_refused(share):
    with pytest.raises(ValueError, match="cannot be cut in time"):
        time_split.time_of(data_of([(0, n, n, 1.0) for n in range(5)]), share)


def test_data_of_one_time_cannot_be_cut():
    with pytest.raises(ValueError, match="5 interactions cannot be cut"):
        time_split.time_of(data_of([(0, n, 7, 1.0) for n in range(5)]), 0.5)


def test_a_history_is_the_newest_before_the_cut_whatever_the_rows_order():
    rows = [(0, item, item, 1.0) for item in (4, 0, 3, 1, 2)] + [(1, 0, 9, 1.0), (0, 5, 9, 1.0)]
    found = time_split.split(data_of(rows), 9)
    old, new = found.histories(3)
    assert old.item_ids == ["i2", "i3", "i4"]
    assert new.item_ids == []
    assert found.activity() == [5, 0]


def test_the_order_of_a_baskets_lines_is_not_the_files():
    rows = [(user, item, 1, 1.0) for user in range(30) for item in range(6)]
    rows += [(user, 9, 5, 1.0) for user in range(30)]
    histories = time_split.split(data_of(rows), 5).histories(6)
    orders = {tuple(history.item_ids) for history in histories}
    assert {frozenset(order) for order in orders} == {frozenset(f"i{n}" for n in range(6))}
    assert len(orders) > 20
