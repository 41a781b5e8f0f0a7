"""How pictures, maps and text travel inside the page: JPEG, float16 and JSON that cannot end its script element."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from distill.attention.geometry import Lattice
from distill.attention.maps import AttentionMap
from distill.attention.objects import Object

LONGEST = 960  # pixels of a picture's longer side; a larger one only weighs more
FINEST = 160  # cells along each side of a map: what stride 8 gives at 1280 pixels
SMALL = 200  # of a thumbnail's
QUALITY = 85
FULL = 32768.0  # where a map's peak lies in float16: under its largest value, with 29 powers of two beneath

MARK = "#1fa800"  # green, as the page marks the chosen object; dark enough for bright pictures


def picture(image: np.ndarray, longest: int = LONGEST) -> str:
    """A picture (h, w, 3), uint8, as a data URI of a JPEG whose longer side is at most `longest` pixels."""
    drawn = Image.fromarray(np.ascontiguousarray(image))
    drawn.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    drawn.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{_text(buffer.getvalue())}"


def crop(image: np.ndarray, box: tuple[float, ...], least: int = 48) -> str:
    """The part of a picture around a box x1, y1, x2, y2, which is marked: thrice its size, at least `least` pixels.

    A data URI.
    """
    height, width = image.shape[:2]
    half = max(1.5 * (box[2] - box[0]), 1.5 * (box[3] - box[1]), least / 2)
    spans = []
    for centre, limit in (((box[1] + box[3]) / 2, height), ((box[0] + box[2]) / 2, width)):
        low = min(max(0, round(centre - half)), limit - 1)
        spans.append(slice(low, max(low + 1, min(limit, round(centre + half)))))
    part = Image.fromarray(image[spans[0], spans[1]])
    left, top = spans[1].start, spans[0].start
    place = (box[0] - left, box[1] - top, max(box[0], box[2]) - left, max(box[1], box[3]) - top)
    ImageDraw.Draw(part).rectangle(place, outline=MARK, width=max(1, round(max(part.size) / 60)))
    return picture(np.asarray(part), SMALL)


def mask(labels: np.ndarray, classes: int) -> str:
    """Class numbers (h, w) as a data URI of a grey PNG: each number times as much as lets the last one fit into a byte.

    At most `LONGEST` pixels on the longer side, as its picture has.
    """
    step = 255 // max(1, classes - 1)
    drawn = Image.fromarray((labels * step).astype(np.uint8))
    factor = min(1.0, LONGEST / max(drawn.size))
    width, height = (max(1, round(side * factor)) for side in drawn.size)
    buffer = io.BytesIO()
    drawn.resize((width, height), Image.Resampling.NEAREST).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{_text(buffer.getvalue())}"


def half(values: np.ndarray) -> dict[str, Any]:
    """A map (h, w) as float16: its `shape`, base64 `data` (little-endian, row by row) and the `factor` to multiply by.

    The factor puts the peak where float16 has room, for energies reach beyond its largest value.
    """
    finite = np.abs(values[np.isfinite(values)].astype(np.float64))
    factor = float(finite.max(initial=0.0)) / FULL or 1.0
    packed = (values.astype(np.float64) / factor).astype("<f2")
    return {"shape": list(values.shape), "factor": factor, "data": _text(packed.tobytes())}


def coarse(values: np.ndarray, lattice: Lattice) -> tuple[np.ndarray, Lattice]:
    """A map (h, w) with its lattice, on a grid of at most `FINEST` cells a side: area means where it has more.

    A U-Net's finest maps have a cell for each pixel, megabytes for each picture and epoch; no screen shows them.
    """
    size = tuple(min(FINEST, cells) for cells in values.shape)
    if size == values.shape:
        return values, lattice
    found = AttentionMap(torch.from_numpy(values[None].astype(np.float32)), "").resize(size).values[0].numpy()
    return found, lattice.moved(values.shape, size)


def thing(item: Object) -> dict[str, Any]:
    """A labelled or predicted object."""
    found: dict[str, Any] = {"box": item.box, "name": item.name, "score": item.score}
    return found | ({"corners": item.corners} if item.corners else {})


def dumps(value: Any) -> str:
    """JSON for a script element: no `<` in it, and no NaN or infinity, which become null."""
    text = json.dumps(_plain(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
