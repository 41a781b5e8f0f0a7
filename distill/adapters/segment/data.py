"""Which images and masks a data set has, in whichever of the usual forms it is described."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import yaml

from distill.adapters.segment.files import is_volume, read_labels, stem, suffix_of
from distill.errors import InputError
from distill.text import one_line

MASKS = ("masks", "labels", "semantic")  # folders of masks beside `images`, the first that is there
HELD_OUT = 5  # where no split is named, every fifth case in the order of names validates


@dataclass(frozen=True)
class Case:
    """An image and its mask: whole numbers, 0 for the background."""

    image: Path
    mask: Path

    @property
    def name(self) -> str:
        return stem(self.image)


@dataclass(frozen=True)
class Data:
    """The cases of both splits; `names` are the classes', background first; `dims` 2 for pictures, 3 for volumes.

    `channels` is what a network reads: 3 of pictures, whatever is in the file; of volumes as many as they have.
    """

    file: str
    train: tuple[Case, ...]
    val: tuple[Case, ...]
    names: tuple[str, ...]
    dims: int
    channels: int


def read_data(given: str) -> Data:
    """The data set that `--data` names: a data.yaml, a Decathlon's dataset.json, or a folder of images and masks.

    A data.yaml has `train`, `val` (folders of images), `names`, and `masks_dir` (`masks` if it does not say): masks lie
    there as the images do under `images`. A folder has `images` and `masks`, each with `train` and `val`, or flat: then
    every fifth case validates. Raises InputError for what is missing, empty or mixed.
    """
    path = Path(given).expanduser()
    if path.is_dir():
        described = [path / name for name in ("data.yaml", "dataset.json") if (path / name).is_file()]
        path = described[0] if described else path
    if not path.exists():
        raise InputError(f"--data {given}: no such file or folder")
    if path.is_dir():
        train, val, names = _of_folder(path, given)
    else:
        entries = _entries(path, given)
        train, val, names = (_of_json if path.suffix == ".json" else _of_yaml)(path, entries, given)
    for split, cases in (("training", train), ("validation", val)):
        if not cases:
            raise InputError(f"--data {given}: it has no {split} images")
    dims, channels = _form([*train, *val], given)
    names = names or _found_names([*train, *val])
    return Data(str(path.absolute()), tuple(train), tuple(val), tuple(names), dims, channels)


def _entries(path: Path, given: str) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        entries = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"--data {given}: not readable ({one_line(error)})") from error
    if not isinstance(entries, dict):
        raise InputError(f"--data {given}: must be a mapping, of 'train', 'val' and 'names' for instance")
    return entries


def _of_yaml(path: Path, entries: Mapping[str, Any], given: str) -> tuple[list[Case], list[Case], list[str]]:
    root = (path.parent / str(entries.get("path") or "")).resolve()
    splits = []
    for split in ("train", "val"):
        if not isinstance(entries.get(split), str):
            raise InputError(f"--data {given}: '{split}' must name a folder of images")
        images = root / entries[split]
        inside = images.relative_to(root) if images.is_relative_to(root) else Path(images.name)
        masks = root / str(entries.get("masks_dir") or "masks") / Path(*inside.parts[1:])
        splits.append(_paired(images, masks, given))
    return splits[0], splits[1], _names(entries.get("names"), given)


def _of_json(path: Path, entries: Mapping[str, Any], given: str) -> tuple[list[Case], list[Case], list[str]]:
    """The Decathlon's form (`training`: pairs of files), or `train` and `val` as names under images/ and labels/."""

    def case(entry: Any) -> Case:
        if isinstance(entry, str):
            return Case(path.parent / "images" / entry, path.parent / "labels" / entry)
        return Case(path.parent / entry["image"], path.parent / entry["label"])

    try:
        train = [case(entry) for entry in entries.get("training") or entries["train"]]
        val = [case(entry) for entry in entries.get("validation") or entries.get("val") or ()]
    except (KeyError, TypeError) as error:
        raise InputError(f"--data {given}: 'training' must list pairs of 'image' and 'label'") from error
    for file in (file for one in (*train, *val) for file in (one.image, one.mask)):
        if not file.is_file():
            raise InputError(f"--data {given}: it lists {file}, which is not there")
    train, val = (train, val) if val else _split(train)
    return train, val, _names(entries.get("labels"), given)


def _of_folder(root: Path, given: str) -> tuple[list[Case], list[Case], list[str]]:
    masks = next((root / name for name in MASKS if (root / name).is_dir()), None)
    if masks is None or not (root / "images").is_dir():
        raise InputError(f"--data {given}: a folder needs 'images' and 'masks' in it, or a data.yaml")
    if (root / "images" / "train").is_dir():
        train, val = (_paired(root / "images" / split, masks / split, given) for split in ("train", "val"))
        return train, val, []
    return *_split(_paired(root / "images", masks, given)), []


def _paired(images: Path, masks: Path, given: str) -> list[Case]:
    """Each image with the mask of the same stem."""
    for folder in (images, masks):
        if not folder.is_dir():
            raise InputError(f"--data {given}: {folder} is no folder")
    by_stem = {stem(file): file for file in sorted(masks.iterdir()) if suffix_of(file)}
    files = [file for file in sorted(images.iterdir()) if suffix_of(file)]
    if alone := [file for file in files if stem(file) not in by_stem]:
        raise InputError(
            f"--data {given}: {len(alone)} of {len(files)} images have no mask in {masks}, such as {alone[0].name}"
        )
    return [Case(file, by_stem[stem(file)]) for file in files]


def _split(cases: list[Case]) -> tuple[list[Case], list[Case]]:
    ordered = sorted(cases, key=lambda case: case.name)
    every = min(HELD_OUT, max(2, len(ordered)))  # of fewer the last one
    return [c for i, c in enumerate(ordered) if (i + 1) % every], ordered[every - 1 :: every]


def _form(cases: Sequence[Case], given: str) -> tuple[int, int]:
    """Dimensions and channels, which all cases must share."""
    kinds = {is_volume(case.image) for case in cases}
    if len(kinds) > 1:
        raise InputError(f"--data {given}: pictures and volumes are mixed")
    if not kinds.pop():
        return 2, 3
    try:
        shape = nibabel.load(cases[0].image).shape
    except Exception as error:  # as in `read_labels`
        raise InputError(f"{cases[0].image}: not readable as a volume: {one_line(error)}") from error
    return 3, shape[3] if len(shape) > 3 else 1


def _names(entries: Any, given: str) -> list[str]:
    """Background first; empty where nobody names them."""
    if not entries:
        return []
    wanted = "the classes' names must be numbered 0 (background), 1 and so on, or a list that begins with background"
    table = dict(enumerate(entries)) if isinstance(entries, list) else entries
    by_number = {str(number): str(name) for number, name in table.items()} if isinstance(table, dict) else {}
    numbers = [str(number) for number in range(max(2, len(by_number)))]
    if set(by_number) != set(numbers):
        raise InputError(f"--data {given}: {wanted}")
    names = [by_number[number] for number in numbers]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"--data {given}: two classes are called '{twice[0]}'")
    return names


def _found_names(cases: Sequence[Case]) -> list[str]:
    """Where nobody names them: as many classes as the masks hold. Black and white masks (0 and 255) have one."""
    highest = max(int(values.max()) for values in map(read_labels, (case.mask for case in cases)))
    count = 1 if highest == 255 else max(1, highest)
    return ["background", *(f"class {number}" for number in range(1, count + 1))]
