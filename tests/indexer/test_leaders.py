"""The highest of many values, held against a full sort."""

from hypothesis import given
from hypothesis import strategies as st

from indexer.leaders import Leaders


@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 25), st.integers(0, 1000)),
            st.just("halve"),
        ),
        max_size=150,
    ),
    st.integers(1, 8),
)
def test_leaders_are_the_beginning_of_a_full_sort(
    moves: list[tuple[int, int] | str], size: int
) -> None:
    values: dict[int, float] = {}
    leaders: Leaders[int] = Leaders(size, lambda: list(values.items()))
    for move in moves:
        if isinstance(move, str):
            values = {key: value * 0.5 for key, value in values.items()}
            leaders.scale(0.5)
        else:
            # Distinct values: at the edge the key of equal ones is not defined.
            key, value = move[0], float(move[1] * 32 + move[0]) if move[1] else 0.0
            values[key] = value
            leaders.put(key, value)
        wanted = sorted(
            (key for key, value in values.items() if value > 0),
            key=lambda key: (-values[key], key),
        )
        for count in (1, size):
            if len({values[key] for key in wanted}) == len(wanted):
                assert leaders.top(count) == wanted[:count]


def test_asking_for_more_than_are_kept_gives_what_is_kept() -> None:
    leaders: Leaders[int] = Leaders(3, lambda: [])
    for key in range(5):
        leaders.put(key, key + 1.0)
    assert leaders.top(100) == [4, 3, 2]
