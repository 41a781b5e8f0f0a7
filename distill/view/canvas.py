"""A figure laid out in pixels: pictures unscaled, texts measured so that they fit, colour bars with their range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.image import AxesImage
from matplotlib.patches import Polygon
from PIL import Image

from distill.view.scale import Scale, lut

DPI = 100
FONT, MONO = "DejaVu Sans", "DejaVu Sans Mono"  # matplotlib brings them, so a page looks alike everywhere
INK, GREY, WARNING = "#1a1a1a", "#6b6b6b", "#b00020"
ELLIPSIS, MISSING = "…", "□"
DIM = 0.75  # of the picture's brightness remains under a map
STEP = 4  # of a colour's 256 values: no eye sees it, and the file is a third smaller
BAR = 9  # pixels, the height of a colour bar


class Page:
    """One matplotlib figure of `width` x `height` pixels, with the origin at the top left.

    It belongs to no global state, so pages may be drawn in threads. Everything lies in one axes: panels are images in
    it, named by their `gid`.
    """

    def __init__(self, width: int, height: int) -> None:
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self.axes.set(xlim=(0, width), ylim=(height, 0))

    def picture(self, x: float, y: float, pixels: np.ndarray, name: str = "") -> None:
        """Pixels (h, w, 3) uint8 as they are, their top left corner at (x, y)."""
        height, width = pixels.shape[:2]
        image = AxesImage(self.axes, extent=(x, x + width, y + height, y), origin="upper", interpolation="nearest")
        image.set_data(pixels)
        image.set_gid(name)
        image.set_clip_path(self.axes.patch)
        self.axes.add_image(image)

    def text(self, x: float, y: float, text: str, size: float = 8.5, width: float = math.inf, **style: Any) -> float:
        """One line, `y` its top; cut in its middle to `width` pixels. Returns the x at which it ends.

        `style` goes to matplotlib; "family", "weight" and "color" are the usual ones.
        """
        style = {"family": FONT, "color": INK, **style}
        shown = fit(text, width, size, style["family"], style.get("weight", "normal"))
        bottom = y + pixels_of(size)
        self.axes.text(x, bottom, shown, size=size, va="baseline", parse_math=False, usetex=False, **style)
        return x + measure(shown, size, style["family"], style.get("weight", "normal"))

    def outline(self, points: np.ndarray, colour: str, dashes: str = "-", width: float = 1.3) -> None:
        """A closed line through points (n, 2) with a dark edge, so that it stands out on any picture."""
        for thick, paint, dash in ((width + 1.4, "#000000b0", "-"), (width, colour, dashes)):
            line = Polygon(points, fill=False, edgecolor=paint, linewidth=thick, linestyle=dash, joinstyle="miter")
            self.axes.add_patch(line)

    def outlines(self, lines: Sequence[np.ndarray], colour: str, dashes: Any = "-", width: float = 1.3) -> None:
        """Lines through points (n, 2), each with a dark edge, all of one look."""
        for thick, paint, dash in ((width + 1.2, "#000000a0", "-"), (width, colour, dashes)):
            self.axes.add_collection(
                LineCollection(lines, colors=paint, linewidths=thick, linestyles=[dash], zorder=1.5)
            )

    def fill(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """A filled rectangle, above outlines and below texts."""
        corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
        self.axes.add_patch(Polygon(corners, facecolor=colour, edgecolor="none", zorder=2))

    def bar(self, x: float, y: float, width: int, scale: Scale) -> None:
        """A colour bar with its ends' values beside it and its label below; 30 pixels high."""
        low, high = number(scale.low), number(scale.high)
        start = self.text(x, y - 2, low, 8) + 5
        stop = x + width - measure(high, 8) - 5
        ramp = np.linspace(0, 255, max(round(stop - start), 2)).astype(np.uint8)
        self.picture(round(start), y, np.repeat(lut(scale.colours)[ramp][None], BAR, axis=0), "bar")
        self.text(stop + 5, y - 2, high, 8)
        self.text(x, y + 14, scale.label, 8, width, color=GREY)


def number(value: float) -> str:
    """A value in few characters, with a true minus sign: three significant digits."""
    return f"{value:.3g}".replace("-", "−")


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture (h, w, 3) uint8 at `size` (rows, columns)."""
    rows, columns = size
    return np.asarray(Image.fromarray(picture).resize((columns, rows), Image.Resampling.LANCZOS))


def backdrop(picture: np.ndarray) -> np.ndarray:
    """The grey, dimmed copy of a picture on which maps are laid; (h, w, 3) uint8."""
    grey = np.asarray(Image.fromarray(picture).convert("L"), dtype=np.float32) * DIM
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def blend(under: np.ndarray, over: np.ndarray, opacity: float) -> np.ndarray:
    """Two pictures (h, w, 3) uint8, the upper one with this opacity everywhere, in steps of `STEP`."""
    mixed = under.astype(np.float32) * (1 - opacity) + over.astype(np.float32) * opacity
    return np.minimum(np.rint(mixed / STEP) * STEP, 255).astype(np.uint8)


def fit(text: str, width: float, size: float, family: str = FONT, weight: str = "normal") -> str:
    """The text on one line, its middle replaced by an ellipsis where it is wider than `width` pixels."""
    shown = "".join(char if char.isprintable() and _drawable(char, family, weight) else MISSING for char in text)
    if measure(shown, size, family, weight) <= width:
        return shown
    few, many = 0, len(shown)  # characters kept: `few` fit, `many` do not
    while many - few > 1:
        keep = (few + many) // 2
        few, many = (keep, many) if measure(_shortened(shown, keep), size, family, weight) <= width else (few, keep)
    return _shortened(shown, few)


def wrapped(text: str, width: float, size: float) -> list[str]:
    """The text on lines of at most `width` pixels, broken between words; a word that is wider has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and measure(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _shortened(text: str, keep: int) -> str:
    return text[: (keep + 1) // 2] + ELLIPSIS + text[len(text) - keep // 2 :]


@lru_cache(maxsize=4096)
def measure(text: str, size: float, family: str = FONT, weight: str = "normal") -> float:
    """The width of a line in pixels, as it is drawn, for a font size in points."""
    font = FontProperties(family=[family], weight=weight, size=size)
    return float(RendererAgg(1, 1, DPI).get_text_width_height_descent(text, font, False)[0])


def pixels_of(size: float) -> float:
    """A font size in points as pixels."""
    return size * DPI / 72


@lru_cache(maxsize=4096)
def _drawable(char: str, family: str, weight: str) -> bool:
    return bool(get_font(findfont(FontProperties(family=[family], weight=weight))).get_char_index(ord(char)))
