"""What the page of a bench shows: words, tables, and the numbers behind its charts. Text is escaped by the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """The first column names the rows; `words` are the numbers of the columns that hold text."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[int] = (0,)


@dataclass(frozen=True)
class Line:
    """Means of arm number `arm` against `xs`, with a band from `low` to `high` (the means where there is none)."""

    name: str
    arm: int
    xs: Sequence[float]
    means: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval, where there is one, and the values it comes from."""

    name: str
    arm: int
    mean: float
    low: float | None
    high: float | None
    values: Sequence[float]
    label: str


@dataclass(frozen=True)
class Dot:
    """A run in a scatter plot."""

    name: str
    arm: int
    x: float
    y: float


@dataclass(frozen=True)
class Chart:
    """A chart's title and axes, and an SVG's content: lines, estimates or dots."""

    title: str
    x: str
    y: str
    marks: Sequence[Line] | Sequence[Estimate] | Sequence[Dot]


@dataclass(frozen=True)
class Section:
    """A heading, what to know before reading on, then charts and tables, which are opened on demand if `folded`."""

    title: str
    lead: str
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    folded: bool = False


@dataclass(frozen=True)
class Content:
    """The whole page: the verdicts come first."""

    title: str
    subject: str
    verdicts: Sequence[str]
    notes: Sequence[str]
    arms: Sequence[str]
    sections: Sequence[Section]
