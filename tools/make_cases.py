"""Small sets of labelled images, cut out of larger ones, for the benches of docs/results.md.

    python tools/make_cases.py --data ../shared/data --out cases

`--data` holds `raccoon`, `deeppcb` and `nuclei` as docs/design.md names them. Each becomes three sets of image lists:

    NAME/full      all training images, the validation images: for teachers
    NAME/report    the first 20 (raccoon), 100 (deeppcb) or 40 (nuclei) training images, the validation images
    NAME/tune      as many of those training images that do not validate; every fifth training image validates

The boxes of nuclei are those of the connected parts of its masks.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from scipy import ndimage

LABELLED = {"raccoon": 20, "deeppcb": 100, "nuclei": 40}
SMALLEST = 12  # pixels of a nucleus; smaller parts are specks of the mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="where the sets lie")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder to make")
    arguments = parser.parse_args()
    for name, count in LABELLED.items():
        images, classes = linked(arguments.data / name, arguments.out.absolute() / name)
        train, val = (sorted((images / part).iterdir()) for part in ("train", "val"))
        rest = [file for i, file in enumerate(train, 1) if i % 5]
        for kind, shown, judged in (
            ("full", train, val),
            ("report", train[:count], val),
            ("tune", rest[:count], train[4::5]),
        ):
            write(images.parent / kind, shown, judged, classes)
            print(f"{images.parent / kind / 'data.yaml'}: {len(shown)} training, {len(judged)} validation images")


def linked(source: Path, out: Path) -> tuple[Path, list[str]]:
    """Links to a set's images, so that caches are written beside them, with their labels; and its classes."""
    said = yaml.safe_load((source / "data.yaml").read_text(encoding="utf-8"))
    names = list(said["names"].values() if isinstance(said["names"], dict) else said["names"])
    for part in ("train", "val"):
        images, labels = out / "images" / part, out / "labels" / part
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for file in sorted((source / "images" / part).iterdir()):
            (images / file.name).symlink_to(file.absolute())
            label = labels / f"{file.stem}.txt"
            if masks := said.get("masks_dir"):
                label.write_text(boxes(source / masks / part / f"{file.stem}.png"), encoding="utf-8")
            elif (given := source / "labels" / part / label.name).exists():
                label.symlink_to(given.absolute())
    return out / "images", names[1:] if said.get("masks_dir") else names


def boxes(mask: Path) -> str:
    """A YOLO label line for each connected part of a mask."""
    parts, _ = ndimage.label(np.asarray(Image.open(mask)) > 0)
    height, width = parts.shape
    sizes = np.bincount(parts.ravel())
    lines = []
    for i, found in enumerate(ndimage.find_objects(parts), 1):
        if sizes[i] >= SMALLEST:
            (y, x) = found
            centre = (x.start + x.stop) / 2 / width, (y.start + y.stop) / 2 / height
            sides = (x.stop - x.start) / width, (y.stop - y.start) / height
            lines.append("0 " + " ".join(f"{value:.6f}" for value in (*centre, *sides)) + "\n")
    return "".join(lines)


def write(folder: Path, train: list[Path], val: list[Path], names: list[str]) -> None:
    """Two lists of images and the data.yaml that names them."""
    folder.mkdir()
    for name, files in (("train", train), ("val", val)):
        (folder / f"{name}.txt").write_text("".join(f"{file}\n" for file in files), encoding="utf-8")
    said = {"path": str(folder), "train": "train.txt", "val": "val.txt", "names": dict(enumerate(names))}
    (folder / "data.yaml").write_text(yaml.safe_dump(said, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    main()
