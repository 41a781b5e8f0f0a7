"""The labels that lie beside a data set's images, read for pictures: no cache is written or read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ultralytics.data.utils import IMG_FORMATS, img2label_paths

from distill.attention.objects import Object
from distill.errors import InputError


def images_of(data: Mapping[str, Any], split: str) -> list[Path]:
    """The image files of a split of a data set that `read_data` resolved. Raises InputError for a split it lacks."""
    entries = data.get(split)
    if not entries:
        have = [name for name in ("train", "val", "test") if data.get(name)]
        raise InputError(f"--split {split}: the data set has no '{split}'; it has {', '.join(have)}")
    found: list[Path] = []
    for entry in map(Path, entries if isinstance(entries, list) else [entries]):
        if entry.is_dir():
            found += [file for file in entry.rglob("*.*") if file.suffix[1:].lower() in IMG_FORMATS]
        else:
            lines = entry.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            found += [entry.parent / line.strip().removeprefix("./") for line in lines if line.strip()]
    return sorted(found)


def labels_of(
    file: Path, size: tuple[int, int], data: Mapping[str, Any], task: str, listed: bool
) -> tuple[Object, ...] | None:
    """The labelled objects of an image of `size` (h, w), in its pixels.

    Without a label file: none at all where the data set lists the image (`listed`), not known (None) elsewhere. Of
    what cannot be read, such as a damaged line, the image counts as not labelled.
    """
    if task == "classify":
        return None
    path = Path(img2label_paths([file])[0])
    if not path.is_file():
        return () if listed else None
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        rows = [[float(word) for word in line.split()] for line in lines if line.strip()]
        return tuple(_object(row, size, data["names"], task) for row in rows)
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _object(row: Sequence[float], size: tuple[int, int], names: Mapping[int, str], task: str) -> Object:
    """One line: the class, then a box (centre and size) or a polygon, in shares of the picture's sides."""
    height, width = size
    name, values = str(names[int(row[0])]), row[1:]
    if len(values) == 4 or task == "pose":
        x, y, w, h = values[:4]
        box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
        return Object(box, name)
    points = [(x * width, y * height) for x, y in zip(values[::2], values[1::2], strict=True)]
    xs, ys = zip(*points, strict=True)
    corners = tuple(points) if task == "obb" and len(points) == 4 else ()
    return Object((min(xs), min(ys), max(xs), max(ys)), name, corners=corners)
