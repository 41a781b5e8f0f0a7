"""Objects in a picture: labelled ones and predicted ones."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Object:
    """One object: `box` x1, y1, x2, y2 in picture pixels, its class by name, and the score if it was predicted.

    `corners` are the four corners (x, y) of an oriented box, whose bounds are then `box`.
    """

    box: tuple[float, float, float, float]
    name: str
    score: float | None = None
    corners: tuple[tuple[float, float], ...] = ()
