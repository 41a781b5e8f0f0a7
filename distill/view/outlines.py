"""Masks on a picture: the outline of each class in its colour, the truth's beneath in white dashes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from contourpy import LineType, contour_generator

from distill.view.boxes import Area, Style
from distill.view.canvas import Page
from distill.view.exhibit import TRUTH, Exhibit, Sample

TRUTH_INK, TRUTH_DASHES = "#ffffff", (0, (2.5, 1.5))
THIN, THICK = 0.9, 1.4


def outlines(labels: np.ndarray, number: int) -> list[np.ndarray]:
    """The closed lines (n, 2), as x, y in pixels, around the pixels of this class (h, w).

    They run along the pixels' edges, corners cut; pixel j covers [j, j + 1). A class that is not there has none.
    """
    member = np.pad(labels == number, 1).astype(np.float32)
    found: Any = contour_generator(z=member, line_type=LineType.Separate).lines(0.5)
    return [line - 0.5 for line in found]  # a pixel's centre, of index 1 behind the padding, lies at 0.5


def draw_masks(
    page: Page, panel: Area, exhibit: Exhibit, sample: Sample, key: str, look: Mapping[str, Style], thin: bool = False
) -> None:
    """The masks under `key` on a panel that shows the picture: a network's, with the truth beneath, or the truth's own.

    `thin` draws the truth alone, as a guide over a map.
    """
    scale = np.array((panel.width / sample.picture.shape[1], panel.height / sample.picture.shape[0]))
    corner = np.array((panel.x, panel.y))

    def lines(mask: str, number: int) -> list[np.ndarray]:
        return [points * scale + corner for points in outlines(sample.masks[mask], number)]

    for number, name in enumerate(exhibit.classes):
        if number and TRUTH in sample.masks and (thin or key != TRUTH):
            page.outlines(lines(TRUTH, number), TRUTH_INK, TRUTH_DASHES, THIN)
        if number and not thin and key in sample.masks:
            page.outlines(lines(key, number), look[name][0], "-", THICK)
