"""Pictures from wherever the user has them: files, folders, patterns, videos."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path

import cv2
import numpy as np

from distill.errors import InputError
from distill.text import given, one_line, plain

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
LONGEST_NAME = 60  # characters; a file's name has at most 255 bytes, and more is added to it
USUAL = 16  # frames of a video, unless the user says
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".gif")


@dataclass(frozen=True)
class Picture:
    """`pixels` (h, w, 3) uint8, RGB; `name` is unique in its source and safe as a file's name."""

    name: str
    file: str
    pixels: np.ndarray


@dataclass
class Source:
    """Pictures, read one after the other; a broken one is left out and named in `skipped` with the reason.

    `frames` lists (file, frame number) of videos, (file, None) of images.
    """

    frames: Sequence[tuple[Path, int | None]]
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[Picture]:
        taken: set[str] = set()
        for file, number in self.frames:
            label = f"{file}" if number is None else f"{file} frame {number}"
            pixels = _image(file) if number is None else _video_frame(file, number)
            if pixels is None:
                self.skipped.append((plain(label), "not readable as an image"))
                continue
            name = unused_name(file.stem if number is None else f"{file.stem}_{number:06}", taken)
            taken.add(name)
            yield Picture(name, label, pixels)


Given = str | Path | Iterable[str | Path]


def find_pictures(source: Given, most: int | None = None, every: int | None = None) -> Source:
    """The pictures that a file, a folder, a glob, a video, a text file of paths, or a list of these stand for.

    Of a video every `every`-th frame is taken, of everything together at most `most`, evenly spread. Raises InputError
    when there is nothing to be had.
    """
    entries = [source] if isinstance(source, (str, Path)) else list(source)
    frames = [frame for entry in entries for frame in _frames(str(entry), every, most)]
    if not frames:
        raise InputError("--source: no images were given")
    return Source(spread(frames, most))


def spread(items: Sequence[tuple[Path, int | None]], most: int | None) -> list[tuple[Path, int | None]]:
    """At most `most` of the items, at even distances, the first among them."""
    if most is None or len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]


def _frames(text: str, every: int | None, most: int | None) -> list[tuple[Path, int | None]]:
    where = given("--source", text)
    path = Path(text).expanduser()
    if path.is_dir():
        files = sorted(
            f for f in path.iterdir() if f.suffix.lower() in PICTURES + VIDEOS and not f.name.startswith(".")
        )
        if not files:
            raise InputError(f"{where}: no images in this folder (those in folders below: '{text}/**/*.jpg')")
    elif path.is_file():
        files = [path]
    else:
        files = sorted(map(Path, glob(str(path), recursive=True)))
        if not files:
            raise InputError(f"{where}: no such file, folder or pattern")
    found: list[tuple[Path, int | None]] = []
    for file in files:
        suffix = file.suffix.lower()
        if suffix in VIDEOS:
            found += [(file, number) for number in _numbers(file, every, most) or (0,)]  # a broken one fails when read
        elif suffix in PICTURES:
            found.append((file, None))
        elif suffix == ".txt" and file == path:  # a pattern's may be anything
            found += [(file.parent / line, None) for line in file.read_text("utf-8", "replace").split("\n") if line]
        elif len(files) == 1:
            raise InputError(f"{where}: neither an image ({' '.join(PICTURES)}) nor a video ({' '.join(VIDEOS)})")
    if not found:
        raise InputError(f"{where}: no images among what it matches")
    return found


def _numbers(file: Path, every: int | None, most: int | None) -> range:
    """The frames to take of a video; none where it cannot be read."""
    video = cv2.VideoCapture(str(file))
    count = max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT))) if video.isOpened() else 0
    video.release()
    return range(0, count, every or max(1, count // (most or USUAL)))


def _image(file: Path) -> np.ndarray | None:
    try:  # not cv2.imread: it cannot open every path on every system, and it complains on the terminal
        pixels = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        return None
    return None if pixels is None else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _video_frame(file: Path, number: int) -> np.ndarray | None:
    video = cv2.VideoCapture(str(file))
    video.set(cv2.CAP_PROP_POS_FRAMES, number)
    _, pixels = video.read()
    video.release()
    return None if pixels is None else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def unused_name(stem: str, taken: set[str]) -> str:
    """A name made of this one that is safe as a file's name and not among those taken."""
    safe = re.sub(r"[^\w.-]+", "_", one_line(stem)).strip("._")[:LONGEST_NAME] or "image"
    names = (safe if n == 1 else f"{safe}-{n}" for n in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)
