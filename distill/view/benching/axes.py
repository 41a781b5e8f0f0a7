"""Axes of a chart as SVG: round ticks, and where a value lies in pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460.0, 300.0  # units of the viewBox: nearly pixels on a phone, where text must stay legible
LEFT, RIGHT, TOP, BOTTOM = 52.0, 14.0, 14.0, 44.0
TICKS = 5


@dataclass(frozen=True)
class Span:
    """Values from `low` to `high` on pixels from `start` to `stop`."""

    low: float
    high: float
    start: float
    stop: float

    @classmethod
    def over(cls, values: Iterable[float], start: float, stop: float, zero: bool = False) -> Span:
        """Room for all the values that are finite, and for 0 if asked."""
        known = [value for value in values if math.isfinite(value)] + ([0.0] if zero else [])
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        room = 0.05 * (high - low) or abs(high) * 0.1 or 1.0
        return cls(low - room * (low != 0), high + room, start, stop)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)

    def ticks(self, least: float = 0.0) -> list[float]:
        """Round values, at most `TICKS` + 1, at least so far apart."""
        step = max(round_step((self.high - self.low) / TICKS), least)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def round_step(least: float) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that is at least so much."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= least * (1 - 1e-9))


def spoken(value: float) -> str:
    """A tick's number."""
    return f"{value:.6g}".replace("-", "−") if abs(value) > 1e-12 else "0"


def frame(x: Span, y: Span, titles: tuple[str, str], whole: bool = False) -> list[str]:
    """Grid, numbers and titles of both axes; only `whole` numbers along x if asked."""
    bottom, parts = y.start, []
    for tick in y.ticks():
        parts += [line(x.start, y(tick), x.stop, y(tick), "grid"), text(x.start - 6, y(tick) + 4, spoken(tick), "end")]
    for tick in x.ticks(1.0 if whole else 0.0):
        parts += [
            line(x(tick), bottom, x(tick), bottom + 4, "grid"),
            text(x(tick), bottom + 17, spoken(tick), "middle"),
        ]
    parts.append(text((x.start + x.stop) / 2, bottom + 36, titles[0], "middle", "faint"))
    return [*parts, text(0, y.stop - 4, titles[1], "start", "faint")]


def line(x1: float, y1: float, x2: float, y2: float, look: str) -> str:
    """A straight line."""
    return f'<line class="{look}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def text(x: float, y: float, words: str, anchor: str, look: str = "") -> str:
    """One line of text; `anchor` is start, middle or end."""
    return f'<text class="{look}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def path(points: Sequence[tuple[float, float]], look: str, close: bool = False) -> str:
    """Straight lines through points, or the area inside them."""
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path class="{look}" d="M{steps}{"Z" if close else ""}"/>'


def svg(parts: Sequence[str], width: float, height: float, label: str) -> str:
    """The element; `label` is what it is called for those who do not see it."""
    inner = "".join(parts)
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label, quote=True)}">{inner}</svg>'
    )
