"""The figures of one image and pair as lines of text in a monospaced font."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from distill.view.exhibit import Exhibit, Row, Sample

FIGURES = {
    "distance": "distance",
    "cosine": "cosine",
    "spearman": "Spearman",
    "overlap": "top-10 % overlap",
    "area": "effective area",
    "reference_area": "  the teacher's",
}
CONTROLS = {"shuffled": "  others", "flat": "    flat", "untrained": " untrained"}  # of `shuffled_distance` and so on
MISSING = "–"


def lines(exhibit: Exhibit, sample: Sample, row: Row) -> list[str]:
    """A block for each network compared (or the only one): a heading, then a line per figure that exists.

    Controls stand beside their figure: the distance to the teacher's maps of other images, and those of a flat map and
    of the network before training to its map of this one. Columns of which nothing is known are left out.
    """
    found: list[str] = []
    for network in exhibit.others:
        if (figures := exhibit.numbers.of(sample.name, row.name, network.key)) is not None:
            title = f"{network.key} to {exhibit.reference.key}" if exhibit.reference else network.key
            found += [""] * bool(found) + _block(title, figures)
    return found


def _block(title: str, figures: Mapping[str, Any]) -> list[str]:
    shown = [name for name in FIGURES if _known(figures.get(name))]
    if not shown:
        return []
    controls = [name for name in CONTROLS if any(_known(figures.get(f"{name}_{figure}")) for figure in shown)]
    head = f"{title:<20.20}{'this':>7}" + "".join(CONTROLS[name] for name in controls)
    return [head, *(_line(name, figures, controls) for name in shown)]


def _line(name: str, figures: Mapping[str, Any], controls: list[str]) -> str:
    own = f"{FIGURES[name]:<20}{_number(figures.get(name)):>7}"
    values = {control: figures.get(f"{control}_{name}") for control in controls}
    if not any(map(_known, values.values())):  # a figure without controls, such as an area
        return own
    return own + "".join(f"{_number(value):>{len(CONTROLS[control])}}" for control, value in values.items())


def _known(value: Any) -> bool:
    return isinstance(value, (int, float)) and not math.isnan(value)


def _number(value: Any) -> str:
    return f"{value:.3f}".replace("-", "−") if _known(value) else MISSING
