"""Ids at their limits, and partitions by Java's rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheos.ids import id_from_number, id_problem, partition_of


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("u1", None),
        ("ünïcödé 東京", None),
        ("a" * 256, None),
        ("é" * 128, None),
        ("", "empty_id"),
        ("a" * 257, "long_id"),
        ("é" * 129, "long_id"),
        ("a\x00b", "control_character"),
        ("a\nb", "control_character"),
        ("a\x7fb", "control_character"),
        ("\x85", "control_character"),
        ("\ud800", "not_unicode"),
    ],
)
def test_an_id_is_1_to_256_bytes_of_utf8_without_controls(value: str, problem: str | None) -> None:
    assert id_problem(value) == problem


@given(st.text(max_size=300))
def test_every_text_is_an_id_or_has_a_reason(value: str) -> None:
    problem = id_problem(value)
    if problem is None:
        assert 1 <= len(value.encode()) <= 256


@pytest.mark.parametrize(
    ("key", "partition"),
    # org.apache.kafka.common.utils.Utils.murmur2 of its own test, UtilsTest.testMurmur2
    [
        ("21", -973932308 & 0x7FFFFFFF),
        ("foobar", -790332482 & 0x7FFFFFFF),
        ("a-little-bit-long-string", -985981536 & 0x7FFFFFFF),
    ],
)
def test_partitions_follow_javas_murmur2(key: str, partition: int) -> None:
    assert partition_of(key, 1 << 31) == partition


@pytest.mark.parametrize(
    ("cell", "name"),
    [("17850.0", "17850"), ("17850.00", "17850"), ("-3.0", "-3"), ("17850", "17850"),
     ("1.5", "1.5"), ("a.0", "a.0"), (".0", ".0"), ("85123A", "85123A")],
)  # fmt: skip
def test_whole_number_floats_lose_their_fraction(cell: str, name: str) -> None:
    assert id_from_number(cell) == name
