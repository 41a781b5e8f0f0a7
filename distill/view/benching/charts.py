"""The charts of a bench as SVG, coloured by the page's style so that they suit its light and its dark theme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from distill.view.benching.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Span, frame, line, path, svg, text
from distill.view.benching.content import Chart, Dot, Estimate, Line

LOOKS = 8  # colours and dashes that the style knows
ROW = 42.0  # of an interval
NAMES = 22  # characters of a name that have room


def draw(chart: Chart) -> str:
    """The chart as an SVG element."""
    lines = [mark for mark in chart.marks if isinstance(mark, Line)]
    dots = [mark for mark in chart.marks if isinstance(mark, Dot)]
    rows = [mark for mark in chart.marks if isinstance(mark, Estimate)]
    if rows:
        return _intervals(chart, rows)
    return _curves(chart, lines) if lines else _scatter(chart, dots)


def look(arm: int) -> str:
    """The class that gives an arm its colour."""
    return f"arm{arm % LOOKS}"


def _curves(chart: Chart, lines: Sequence[Line]) -> str:
    x = Span.over((v for one in lines for v in one.xs), LEFT, WIDTH - RIGHT, zero=True)
    y = Span.over((v for one in lines for side in (one.low, one.high) for v in side), HEIGHT - BOTTOM, TOP + 14)
    parts = frame(x, y, (chart.x, chart.y), whole=all(v == int(v) for one in lines for v in one.xs))
    for one in lines:
        up, down = (_points(one.xs, side, x, y) for side in (one.high, one.low))
        if up and one.high != one.low:
            parts.append(path([*up, *reversed(down)], f"band {look(one.arm)}", close=True))
    for one in lines:
        if points := _points(one.xs, one.means, x, y):
            parts.append(path(points, f"curve {look(one.arm)}"))
            parts += [_circle(*point, 2.5, f"solid {look(one.arm)}") for point in points[-1:]]
    return svg(parts, WIDTH, HEIGHT, chart.title)


def _scatter(chart: Chart, dots: Sequence[Dot]) -> str:
    x = Span.over((dot.x for dot in dots), LEFT, WIDTH - RIGHT)
    y = Span.over((dot.y for dot in dots), HEIGHT - BOTTOM, TOP + 14, zero=True)
    parts = [*frame(x, y, (chart.x, chart.y)), line(x.start, y(0), x.stop, y(0), "axis")]
    parts += [_circle(x(dot.x), y(dot.y), 4, f"solid {look(dot.arm)}", dot.name) for dot in dots]
    return svg(parts, WIDTH, HEIGHT, chart.title)


def _intervals(chart: Chart, rows: Sequence[Estimate]) -> str:
    """A row for each mean: its interval, and a tick for each value that it comes from."""
    height = TOP + ROW * len(rows) + BOTTOM
    bottom = height - BOTTOM
    values = [v for one in rows for v in (*one.values, one.mean, one.low, one.high) if v is not None]
    x = Span.over(values, RIGHT, WIDTH - RIGHT, zero=True)
    parts = [line(x(tick), TOP, x(tick), bottom, "grid") for tick in x.ticks()]
    parts += [*_below(x, bottom, chart.x), line(x(0), TOP - 8, x(0), bottom, "axis")]
    for number, one in enumerate(rows):
        middle, colour = TOP + ROW * number + 30, look(one.arm)
        parts.append(text(x.start, middle - 14, one.name[:NAMES], "start", "name"))
        parts.append(text(x.stop, middle - 14, one.label, "end"))
        parts += [line(x(v), middle - 7, x(v), middle + 7, f"tick {colour}") for v in one.values]
        if one.low is not None and one.high is not None:
            parts.append(line(x(one.low), middle, x(one.high), middle, f"range {colour}"))
        parts.append(_circle(x(one.mean), middle, 5, f"solid {colour}", one.name))
    return svg(parts, WIDTH, height, chart.title)


def _below(x: Span, bottom: float, title: str) -> list[str]:
    """Numbers and title of an axis below the rows."""
    numbers = [
        text(x(tick), bottom + 17, f"{tick:+.4g}".replace("-", "−") if tick else "0", "middle") for tick in x.ticks()
    ]
    return [*numbers, text((x.start + x.stop) / 2, bottom + 36, title, "middle", "faint")]


def _points(xs: Sequence[float], ys: Sequence[float], x: Span, y: Span) -> list[tuple[float, float]]:
    return [(x(a), y(b)) for a, b in zip(xs, ys, strict=True) if math.isfinite(a) and math.isfinite(b)]


def _circle(x: float, y: float, r: float, look: str, title: str = "") -> str:
    inner = f"<title>{escape(title)}</title>" if title else ""
    return f'<circle class="{look}" cx="{x:.1f}" cy="{y:.1f}" r="{r:g}">{inner}</circle>'
