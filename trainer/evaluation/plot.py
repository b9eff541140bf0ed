"""Small plots as SVG text, for a page without scripts.

A series has a colour (the page's ``--series-N``) and a mark of its own, so that colour alone tells
nothing. Numbers that are not finite are left out. A plot is an image with a title for a reader who
does not see it; the page gives the same numbers as a table.
"""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

WIDTH = 640
_LEFT, _RIGHT, _TOP, _BOTTOM = 132, 20, 10, 42
_ROW = 17  # of one series in a category, in pixels
_GAP = 16


class Interval(NamedTuple):
    """A value and how far it may be off to either side."""

    value: float
    margin: float


class Series(NamedTuple):
    """``number`` from 0 chooses colour and mark."""

    name: str
    number: int


def intervals(
    title: str,
    categories: Sequence[str],
    series: Sequence[Series],
    values: Sequence[Sequence[Interval | None]],
    axis: str,
) -> str:
    """A dot with a whisker for each of ``values``: (categories, series). The axis begins at 0."""
    top = max(
        (
            v.value + _finite(v.margin)
            for row in values
            for v in row
            if v and math.isfinite(v.value)
        ),
        default=1.0,
    )
    ticks = _ticks(0.0, top)
    block = _ROW * len(series) + _GAP
    height = _TOP + block * len(categories) + _BOTTOM
    x = _scale(0.0, ticks[-1], _LEFT, WIDTH - _RIGHT)
    parts = _grid_of_columns(ticks, x, height)
    for place, (category, row) in enumerate(zip(categories, values, strict=True)):
        start = _TOP + block * place
        parts.append(_text(_LEFT - 12, start + block / 2 + 4, category, "end"))
        for order, (one, value) in enumerate(zip(series, row, strict=True)):
            if value is None or not math.isfinite(value.value):
                continue
            y = start + _GAP / 2 + _ROW * (order + 0.5)
            margin = _finite(value.margin)
            told = f"{one.name}, {category}: {value.value:.4f} ± {margin:.4f}"
            low, high = x(max(0.0, value.value - margin)), x(value.value + margin)
            whisker = f'<path class="whisker" d="M{low:.1f} {y:.1f}H{high:.1f}"/>'
            mark = _mark(one.number, x(value.value), y)
            parts.append(_group(one, f"<title>{escape(told)}</title>{whisker}{mark}"))
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, height - 6, axis, "middle"))
    return _svg(title, height, parts)


def lines(
    title: str,
    series: Sequence[Series],
    points: Sequence[Sequence[tuple[float, float]]],
    axes: tuple[str, str],
    *,
    diagonal: bool = False,
    marks: bool = False,
) -> str:
    """A line a series through its ``points`` (x, y); ``diagonal`` draws y = x beside them."""
    kept = [[(a, b) for a, b in line if math.isfinite(a) and math.isfinite(b)] for line in points]
    xs = [a for line in kept for a, _ in line] or [0.0, 1.0]
    ys = [b for line in kept for _, b in line] or [0.0, 1.0]
    x_ticks, y_ticks = _ticks(min(xs), max(xs)), _ticks(min(0.0, *ys), max(ys))
    height = 300
    x = _scale(x_ticks[0], x_ticks[-1], _LEFT, WIDTH - _RIGHT)
    y = _scale(y_ticks[0], y_ticks[-1], height - _BOTTOM, _TOP)
    parts = _grid_of_columns(x_ticks, x, height) + _grid_of_rows(y_ticks, y)
    if diagonal:
        parts.append(f'<path class="diagonal" d="M{x(0):.1f} {y(0):.1f}L{x(1):.1f} {y(1):.1f}"/>')
    for one, line in zip(series, kept, strict=True):
        path = "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in line)
        drawn = f'<path class="line" d="M{path}"/>' if line else ""
        # One mark each, at different places, where all of them would hide each other.
        place = int(len(line) * (0.97 - 0.05 * one.number))
        chosen = line if marks else line[place : place + 1]
        drawn += "".join(_mark(one.number, x(a), y(b)) for a, b in chosen)
        parts.append(_group(one, f"<title>{escape(one.name)}</title>{drawn}"))
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, height - 6, axes[0], "middle"))
    parts.append(_text(4, height / 2, axes[1], "start", "axis"))
    return _svg(title, height, parts)


def bars(
    title: str, counts: Sequence[int], ends: tuple[str, str], shaded_from: float, shade: str
) -> str:
    """A bar for each of ``counts``, even steps of time between the two ``ends``.

    What is right of the share ``shaded_from`` of the width is shaded and called ``shade``.
    """
    ticks = _ticks(0.0, float(max(counts, default=1)))
    height = 190
    y = _scale(0.0, ticks[-1], height - _BOTTOM, _TOP)
    left, right = _LEFT, WIDTH - _RIGHT
    step = (right - left) / max(1, len(counts))
    parts = _grid_of_rows(ticks, y)
    begin = left + (right - left) * min(1.0, max(0.0, shaded_from))
    area = height - _BOTTOM - _TOP
    parts.append(
        f'<rect class="shade" x="{begin:.1f}" y="{_TOP}" width="{right - begin:.1f}"'
        f' height="{area}"><title>{escape(shade)}</title></rect>'
    )
    for place, count in enumerate(counts):
        top = y(float(count))
        parts.append(
            f'<rect class="bar" x="{left + step * place + 0.5:.1f}" y="{top:.1f}"'
            f' width="{max(0.5, step - 1):.1f}" height="{height - _BOTTOM - top:.1f}">'
            f"<title>{count:,}</title></rect>"
        )
    parts.append(_text(left, height - 22, ends[0], "start", "tick"))
    parts.append(_text(right, height - 22, ends[1], "end", "tick"))
    return _svg(title, height, parts)


def legend_mark(number: int) -> str:
    """The mark of a series alone, for a legend."""
    return (
        '<svg class="mark" viewBox="0 0 14 14" aria-hidden="true">'
        f'<g class="series series-{number}">{_mark(number, 7, 7)}</g></svg>'
    )


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height:.0f}" role="img"'
        f' aria-label="{escape(title)}"><title>{escape(title)}</title>{"".join(parts)}</svg>'
    )


def _group(one: Series, inner: str) -> str:
    return f'<g class="series series-{one.number}">{inner}</g>'


def _mark(number: int, x: float, y: float) -> str:
    """A circle, a square, a diamond, and so on in turn."""
    kind = number % 3
    if kind == 0:
        return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4.6"/>'
    if kind == 1:
        return f'<rect class="dot" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
    path = f"M{x:.1f} {y - 5.6:.1f}l5.6 5.6l-5.6 5.6l-5.6 -5.6z"
    return f'<path class="dot" d="{path}"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "label") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}"'
    return f'<text class="{kind}" {place} text-anchor="{anchor}">{escape(text)}</text>'


def _grid_of_columns(
    ticks: Sequence[float], x: Callable[[float], float], height: float
) -> list[str]:
    bottom = height - _BOTTOM
    parts = [f'<path class="grid" d="M{x(tick):.1f} {_TOP}V{bottom}"/>' for tick in ticks]
    return parts + [_text(x(tick), bottom + 16, _number(tick), "middle", "tick") for tick in ticks]


def _grid_of_rows(ticks: Sequence[float], y: Callable[[float], float]) -> list[str]:
    right = WIDTH - _RIGHT
    parts = [f'<path class="grid" d="M{_LEFT} {y(tick):.1f}H{right}"/>' for tick in ticks]
    return parts + [_text(_LEFT - 8, y(tick) + 4, _number(tick), "end", "tick") for tick in ticks]


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers from at most ``low`` to at least ``high``."""
    size = max(1.0, abs(low), abs(high))
    if high - low < 1e-9 * size:  # nothing that a plot could tell apart
        high = low + size
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * place for place in range(first, last + 1)]


def _scale(low: float, high: float, begin: float, end: float) -> Callable[[float], float]:
    return lambda value: begin + (value - low) / (high - low) * (end - begin)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0
