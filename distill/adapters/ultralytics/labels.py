"""The labels that lie beside a data set's images, read for pictures: no cache is written or read."""

from __future__ import annotations

import glob
import math
import os
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
            pattern = os.path.join(glob.escape(str(entry)), "**", "*.*")  # linked folders too, which rglob passes by
            found += [Path(file) for file in glob.iglob(pattern, recursive=True)]
        else:
            lines = entry.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            found += [_listed(line.strip(), entry.parent) for line in lines]
    return sorted(file for file in found if file.suffix[1:].lower() in IMG_FORMATS)


def _listed(line: str, folder: Path) -> Path:
    """A line of a list of images, as Ultralytics reads it: only `./` means the list's own folder."""
    return folder / line[2:] if line.startswith("./") else Path(line)


def need_labels(data: Mapping[str, Any], task: str, where: str) -> None:
    """Raises InputError where no training image has a label file: Ultralytics finds out late."""
    images = [str(image) for image in images_of(data, "train")]  # not made absolute, as Ultralytics does not
    if images and not any(map(os.path.isfile, img2label_paths(images))):
        masks = "; masks instead of boxes are for U-Nets: --student attention-unet:8" if task == "detect" else ""
        raise InputError(
            f"{where}: none of its {len(images)} training images has labels; the first one's would be "
            f"{img2label_paths(images[:1])[0]}{masks}"
        )


def labels_of(
    file: Path, size: tuple[int, int], data: Mapping[str, Any], task: str, listed: bool
) -> tuple[Object, ...] | None:
    """The labelled objects of an image of `size` (h, w), in its pixels.

    Without a label file: none at all where the data set lists the image (`listed`), not known (None) elsewhere, nor
    where labels are no boxes (masks of semantic segmentation, folders of classification). Of what cannot be read, such
    as a damaged line, the image counts as not labelled.
    """
    if task == "classify":
        return None
    path = Path(img2label_paths([os.path.abspath(file)])[0])  # it looks for `/images/`, which a relative path may lack
    if not path.is_file():
        return () if listed and task != "semantic" else None
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        rows = [[float(word) for word in line.split()] for line in lines if line.strip()]
        return tuple(_object(row, size, data["names"], task) for row in rows)
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _object(row: Sequence[float], size: tuple[int, int], names: Mapping[int, str], task: str) -> Object:
    """One line: the class, then a box (centre and size) or a polygon, in shares of the picture's sides."""
    if not all(map(math.isfinite, row)):
        raise ValueError("a label that is no number")
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
