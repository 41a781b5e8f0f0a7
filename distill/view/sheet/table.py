"""The figures of one image and pair as lines of text in a monospaced font."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from distill.view.exhibit import Exhibit, Network, Row, Sample

FIGURES = {
    "distance": "distance",
    "cosine": "cosine",
    "spearman": "Spearman",
    "overlap": "top-10 % overlap",
    "area": "effective area",
    "reference_area": "  the teacher's",
    "foreground_energy": "energy in foreground",
    "foreground_share": "  its share of area",
    "foreground_ratio": "  their ratio",
    "alpha_mean": "alpha, mean",
    "alpha_std": "  std over places",
    "alpha_r": "  r with foreground",
}
CONTROLS = {"shuffled": "  others", "flat": "    flat", "untrained": " untrained"}  # of `shuffled_distance` and so on
MISSING = "–"
NOT_BESIDE_MASKS = ("spearman", "overlap")  # left out where masks bring figures of their own


def lines(exhibit: Exhibit, sample: Sample, row: Row) -> list[str]:
    """A block for each network compared (or the only one): a heading, then a line per figure that exists.

    Controls stand beside their figure: the distance to the teacher's maps of other images, and those of a flat map and
    of the network before training to its map of this one. Columns of which nothing is known are left out.
    """
    found: list[str] = []
    for network in exhibit.others:
        if block := lines_of(exhibit, sample, row, network):
            found += [""] * bool(found) + block
    return found


def lines_of(exhibit: Exhibit, sample: Sample, row: Row, network: Network) -> list[str]:
    """The block of one network; empty where it has no figures."""
    figures = exhibit.numbers.of(sample.figured, row.name, network.key)
    if figures is None:
        return []
    reference = exhibit.reference
    compared = reference is not None and reference.key in row.sides
    return _block(f"{network.key} to {reference.key}" if reference and compared else network.key, figures)


def _block(title: str, figures: Mapping[str, Any]) -> list[str]:
    left_out = NOT_BESIDE_MASKS if _known(figures.get("foreground_ratio")) else ()
    shown = [name for name in FIGURES if _known(figures.get(name)) and name not in left_out]
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
