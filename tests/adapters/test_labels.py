"""Labels lie where the data set has them, whatever the user's way of naming the images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from distill import InputError, compare
from distill.adapters.ultralytics.labels import images_of, labels_of, need_labels

DATA = {"names": {0: "cat", 1: "dog"}}


def labelled(folder: Path, text: str) -> Path:
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "labels" / "a.txt").write_text(text)
    cv2.imwrite(str(folder / "images" / "a.png"), np.zeros((40, 80, 3), np.uint8))
    return folder / "images" / "a.png"


def test_a_box_on_a_picture_that_is_not_square(tmp_path: Path) -> None:
    (thing,) = labels_of(labelled(tmp_path, "1 0.5 0.25 0.25 0.5\n"), (40, 80), DATA, "detect", True)
    assert (thing.name, thing.box) == ("dog", (30, 0, 50, 20))


def test_polygons_and_oriented_boxes(tmp_path: Path) -> None:
    file = labelled(tmp_path, "0 0.25 0.5 0.5 0.25 0.75 0.5 0.5 0.75\n")
    (polygon,) = labels_of(file, (40, 80), DATA, "segment", True)
    assert polygon.box == (20, 10, 60, 30) and polygon.corners == ()
    (turned,) = labels_of(file, (40, 80), DATA, "obb", True)
    assert turned.box == (20, 10, 60, 30)
    assert turned.corners == ((20, 20), (40, 10), (60, 20), (40, 30))


@pytest.mark.parametrize("damaged", ["inf 0.5 0.5 0.1 0.1", "0 nan 0.5 0.1 0.1", "7 0.5 0.5 0.1 0.1", "0 0.5", "cat"])
def test_a_damaged_line_leaves_the_image_unlabelled(tmp_path: Path, damaged: str) -> None:
    assert labels_of(labelled(tmp_path, damaged), (40, 80), DATA, "detect", True) is None


def test_without_a_label_file(tmp_path: Path) -> None:
    file = labelled(tmp_path, "")
    assert labels_of(file, (40, 80), DATA, "detect", True) == ()
    (tmp_path / "labels" / "a.txt").unlink()
    assert labels_of(file, (40, 80), DATA, "detect", True) == ()
    assert labels_of(file, (40, 80), DATA, "detect", False) is None  # not of the data set: nothing is known
    assert labels_of(file, (40, 80), DATA, "semantic", True) is None  # its labels may be masks
    assert labels_of(file, (40, 80), DATA, "classify", True) is None


def test_a_relative_path_without_a_leading_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled(tmp_path, "0 0.5 0.5 0.5 0.5\n")
    monkeypatch.chdir(tmp_path)
    assert labels_of(Path("images/a.png"), (40, 80), DATA, "detect", False)


def test_lists_of_images_are_read_as_ultralytics_reads_them(tmp_path: Path) -> None:
    labelled(tmp_path, "")
    (tmp_path / "val.txt").write_text("./images/a.png\nelsewhere/b.jpg\n\nnotes.md\n")
    found = images_of({"val": str(tmp_path / "val.txt")}, "val")
    assert sorted(found) == sorted([tmp_path / "images" / "a.png", Path("elsewhere/b.jpg")])
    with pytest.raises(InputError, match="--split test: the data set has no 'test'; it has val"):
        images_of({"val": str(tmp_path)}, "test")


def test_a_data_set_to_train_on_has_labels(tmp_path: Path) -> None:
    """Ultralytics ends in a traceback, long after; one labelled image is enough for it."""
    file = labelled(tmp_path, "0 0.5 0.5 0.5 0.5\n")
    cv2.imwrite(str(file.with_name("b.png")), np.zeros((8, 8, 3), np.uint8))
    data = {"train": str(file.parent)}
    need_labels(data, "detect", "--data d.yaml")
    (tmp_path / "labels" / "a.txt").unlink()
    with pytest.raises(InputError, match=r"--data d.yaml: none of its 2 training images has labels.*labels/a.txt"):
        need_labels(data, "detect", "--data d.yaml")


def test_labels_are_looked_for_where_ultralytics_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In linked folders too, and beside the path as it is listed."""
    far = labelled(tmp_path / "far", "0 0.5 0.5 0.5 0.5\n").parents[1]
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    for kind in ("images", "labels"):
        (tmp_path / "near" / kind).mkdir(parents=True)
        (tmp_path / "near" / kind / "linked").symlink_to(far / kind)
    (tmp_path / "a.png").rename(tmp_path / "near" / "images" / "a.png")
    need_labels({"train": str(tmp_path / "near" / "images")}, "detect", "--data d.yaml")
    listed = tmp_path / "train.txt"
    listed.write_text("a.png\n")  # what lies beside it is its label, whatever folder this is run in
    monkeypatch.chdir(far / "images")
    with pytest.raises(InputError, match=r"would be a\.txt"):
        need_labels({"train": str(listed)}, "detect", "--data d.yaml")
    Path("a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    need_labels({"train": str(listed)}, "detect", "--data d.yaml")


def test_images_beside_the_data_set_are_not_taken_as_empty(checkpoint, scenes: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "other.png"), np.zeros((64, 64, 3), np.uint8))
    found = compare(student=checkpoint("yolo11n.yaml"), images=tmp_path, data=scenes, imgsz=64, device="cpu")
    assert found.exhibit.samples[0].labels is None
    assert "1 of 1 images without labels where --data" in str(found)
