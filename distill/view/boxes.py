"""Objects on a picture: outlines in the colours of their classes, captions where there is room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distill.attention.objects import Object
from distill.view.canvas import Page, measure, pixels_of
from distill.view.exhibit import Exhibit

# Okabe and Ito, "Color Universal Design" (2008), without black: apart for colour-blind eyes too. Beyond seven classes
# the same colours come back with other dashes.
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
DASHES = ("-", "--", ":")
BRIGHT = {"#E69F00", "#56B4E9", "#F0E442", "#CC79A7"}  # on these, black text; white on the others
CAPTION = 7.5  # points
LONGEST = 110  # pixels of a caption

OVER_MAPS = tuple(PALETTE[i] for i in (1, 2, 6, 3, 4, 0, 5))  # for masks: first what is not among a map's own colours

Style = tuple[str, str]  # colour, dashes


@dataclass(frozen=True)
class Area:
    """A rectangle on a page, in pixels."""

    x: float
    y: float
    width: float
    height: float

    def overlaps(self, other: Area) -> bool:
        apart = self.x + self.width <= other.x or other.x + other.width <= self.x
        return not (apart or self.y + self.height <= other.y or other.y + other.height <= self.y)

    def contains(self, other: Area) -> bool:
        across = self.x <= other.x and other.x + other.width <= self.x + self.width
        return across and self.y <= other.y and other.y + other.height <= self.y + self.height


def styles(exhibit: Exhibit) -> dict[str, Style]:
    """The style of every class in the exhibit, the same on all its sheets; those of masks in the order of numbers."""
    found = {
        thing.name
        for sample in exhibit.samples
        for things in (sample.labels or (), *sample.predictions.values())
        for thing in things
    }
    names, palette = (exhibit.classes[1:], OVER_MAPS) if exhibit.classes else (tuple(sorted(found)), PALETTE)
    return {name: (palette[i % len(palette)], DASHES[i // len(palette) % len(DASHES)]) for i, name in enumerate(names)}


def draw(page: Page, panel: Area, objects: Iterable[Object], scale: float, style: Mapping[str, Style]) -> int:
    """The objects on the panel, which shows the picture `scale` times as large; returns how many have no caption.

    A caption is the class and the score. It stays away where it would cover another, so that those that are there can
    be read. Confident objects come first.
    """
    taken: list[Area] = []
    hidden = 0
    for thing in sorted(objects, key=lambda one: -(one.score or 0)):
        colour, dashes = style[thing.name]
        points = np.array(corners(thing), dtype=float) * scale
        points = np.clip(points, 0, (panel.width, panel.height)) + np.array((panel.x, panel.y))
        page.outline(points, colour, dashes)
        text = thing.name if thing.score is None else f"{thing.name} {thing.score:.2f}"
        place = _place(panel, points, min(measure(text, CAPTION), LONGEST) + 4, taken)
        if place is None:
            hidden += 1
            continue
        taken.append(place)
        page.fill(place.x, place.y, place.width, place.height, colour)
        ink = "black" if colour in BRIGHT else "white"
        _caption(page, place, thing, ink)
    return hidden


def _caption(page: Page, place: Area, thing: Object, ink: str) -> None:
    """The class, cut where it is long, and the score, which never is."""
    score = "" if thing.score is None else f" {thing.score:.2f}"
    room = place.width - 4 - measure(score, CAPTION)
    end = page.text(place.x + 2, place.y, thing.name, CAPTION, room + 0.5, color=ink)
    if score:
        page.text(end, place.y, score, CAPTION, color=ink)


def _place(panel: Area, points: np.ndarray, width: float, taken: Sequence[Area]) -> Area | None:
    """The first free place for a caption: above the object, below it, or inside at its top."""
    height = pixels_of(CAPTION) + 3
    left = float(np.clip(points[:, 0].min(), panel.x, max(panel.x, panel.x + panel.width - width)))
    top, bottom = float(points[:, 1].min()), float(points[:, 1].max())
    for y in (top - height, bottom, top):
        place = Area(left, y, width, height)
        if panel.contains(place) and not any(place.overlaps(other) for other in taken):
            return place
    return None


def corners(thing: Object) -> tuple[tuple[float, float], ...]:
    """The four corners (x, y) of an object's box, which may be oriented."""
    x1, y1, x2, y2 = thing.box
    return thing.corners or ((x1, y1), (x2, y1), (x2, y2), (x1, y2))
