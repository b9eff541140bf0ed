"""Plots as SVG: where the marks stand, and what no number can break."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluation import plot
from trainer.evaluation.plot import Interval, Series

NUMBERS = st.floats(0, 1e9) | st.sampled_from([math.nan, math.inf, -math.inf])
OURS = [Series("ours", 0), Series("<theirs> & others", 1)]


def parsed(svg):
    assert "nan" not in svg.replace("<title>", "")
    assert not re.search(r"\d+e\d", svg)
    return ElementTree.fromstring(svg)


def test_a_greater_value_stands_further_right_and_its_whisker_around_it():
    values = [[Interval(0.2, 0.05), Interval(0.4, 0.0)]]
    tree = parsed(plot.intervals("t", ["c"], OURS, values, "axis"))
    dot = float(tree.find(".//circle").get("cx"))
    square = tree.find(".//rect")
    assert dot < float(square.get("x"))
    low, high = map(
        float, re.findall(r"M([\d.]+) [\d.]+H([\d.]+)", tree.find(".//g/path").get("d"))[0]
    )
    assert low < dot < high
    assert dot - low == pytest.approx(high - dot, abs=0.2)


def test_a_plot_is_an_image_with_a_name():
    tree = parsed(plot.bars("events & time", [1, 5, 2], ("then", "now"), 0.5, "judged"))
    assert tree.get("role") == "img"
    assert tree.get("aria-label") == "events & time"
    heights = [float(bar.get("height")) for bar in tree.findall(".//rect[@class='bar']")]
    assert heights[1] == max(heights)
    assert heights[1] == pytest.approx(5 * heights[0], abs=0.5)


@given(st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=3), max_size=4))
def test_no_number_breaks_intervals(rows):
    series = [Series(f"s{n}", n) for n in range(3)]
    values = [[Interval(*pair) for pair in row] + [None] * (3 - len(row)) for row in rows]
    parsed(plot.intervals("t", [f"c{n}" for n in range(len(rows))], series, values, "axis"))


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=6), st.booleans())
def test_no_number_breaks_lines(points, marks):
    parsed(plot.lines("t", OURS, [points, []], ("x", "y"), diagonal=True, marks=marks))


@given(st.lists(st.integers(0, 10**9), max_size=70), st.floats(-5, 5))
def test_no_count_breaks_bars(counts, share):
    parsed(plot.bars("t", counts, ("a", "b"), share, "c"))


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_ticks_are_few_and_reach_around(one, other):
    low, high = sorted((one, other))
    if high - low < 1e-6 * max(1.0, abs(low), abs(high)):
        return
    ticks = plot._ticks(low, high)
    assert 2 <= len(ticks) <= 9
    slack = 1e-6 * (high - low)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
