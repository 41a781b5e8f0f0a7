"""Every form in which a data set may be described, and what is said of one that is not usable."""

import json
import os

import numpy as np
import pytest

from distill.adapters.segment.data import HELD_OUT, read_data
from distill.adapters.segment.files import find_images, is_volume, read_labels, read_size, stem
from distill.errors import InputError

from .kit import noise, picture, pictures, square, volume, volumes


def folder(root, count=10, split="", masks="masks", value=1):
    for i in range(count):
        picture(root / "images" / split / f"c{i:02}.jpg", noise(16, 20, 3, seed=i))
        picture(root / masks / split / f"c{i:02}.png", square((16, 20), (3, 4), 5, value))
    return root


def names_of(cases):
    return [case.name for case in cases]


# ---- the forms


def test_a_data_yaml(tmp_path):
    file = pictures(tmp_path, train=3, val=2)
    data = read_data(str(file))
    assert names_of(data.train) == ["train0", "train1", "train2"] and names_of(data.val) == ["val0", "val1"]
    assert (data.dims, data.channels, data.names, data.file) == (2, 3, ("background", "cell"), str(file))
    for case in (*data.train, *data.val):
        assert case.image.is_file() and case.mask.is_file() and case.image != case.mask
        assert case.mask.parts[-3] == "masks" and case.mask.parts[-2:] == case.image.parts[-2:]
    assert read_data(str(tmp_path)) == data  # its folder means the same


@pytest.mark.parametrize("where", ["truth", "deep/truth"])
def test_masks_dir_and_path_of_a_data_yaml(tmp_path, where):
    file = pictures(tmp_path / "set", masks=where, masks_dir=where)
    assert read_data(str(file)).val[0].mask == tmp_path / "set" / where / "val" / "val0.png"
    moved = tmp_path / "elsewhere.yaml"
    moved.write_text(file.read_text() + f"path: {tmp_path / 'set'}\n")
    assert read_data(str(moved)).train == read_data(str(file)).train


def test_names_may_be_a_list_or_missing(tmp_path):
    assert read_data(str(pictures(tmp_path / "a", names=["nothing", "cell"]))).names == ("nothing", "cell")
    assert read_data(str(pictures(tmp_path / "b", names=None))).names == ("background", "class 1")


@pytest.mark.parametrize("masks", ["masks", "labels", "semantic"])
def test_a_folder_with_train_and_val(tmp_path, masks):
    folder(tmp_path, 3, "train", masks)
    folder(tmp_path, 1, "val", masks)
    data = read_data(str(tmp_path))
    assert (names_of(data.train), names_of(data.val)) == (["c00", "c01", "c02"], ["c00"])
    assert data.val[0].mask == tmp_path / masks / "val" / "c00.png"
    assert data.names == ("background", "class 1")


def test_of_a_flat_folder_every_fifth_case_validates(tmp_path):
    data = read_data(str(folder(tmp_path, 11)))
    assert names_of(data.val) == ["c04", "c09"] and HELD_OUT == 5
    assert names_of(data.train) == [f"c{i:02}" for i in (0, 1, 2, 3, 5, 6, 7, 8, 10)]


def test_the_decathlons_form(tmp_path):
    file = volumes(tmp_path, count=6)
    data = read_data(str(file))
    assert (data.dims, data.channels, data.names) == (3, 1, ("background", "front", "back"))
    assert names_of(data.val) == ["v4"] and names_of(data.train) == ["v0", "v1", "v2", "v3", "v5"]
    assert data.val[0].mask == tmp_path / "labelsTr" / "v4.nii.gz"
    assert read_data(str(tmp_path)) == data


def test_the_decathlons_form_with_a_validation_list(tmp_path):
    file = volumes(tmp_path, count=4)
    entries = json.loads(file.read_text())
    file.write_text(json.dumps({**entries, "training": entries["training"][:3], "validation": entries["training"][3:]}))
    data = read_data(str(file))
    assert names_of(data.train) == ["v0", "v1", "v2"] and names_of(data.val) == ["v3"]


def test_train_and_val_as_names_under_images_and_labels(tmp_path):
    for i in range(3):
        volume(tmp_path / "images" / f"v{i}.nii", noise(8, 8, 8).astype(np.float32))
        volume(tmp_path / "labels" / f"v{i}.nii", square((8, 8, 8), (1, 1, 1), 3))
    (tmp_path / "dataset.json").write_text(json.dumps({"train": ["v0.nii", "v2.nii"], "val": ["v1.nii"]}))
    data = read_data(str(tmp_path))
    assert (names_of(data.train), names_of(data.val)) == (["v0", "v2"], ["v1"])
    assert data.names == ("background", "class 1")


def test_volumes_of_several_channels(tmp_path):
    file = volumes(tmp_path, count=5)
    for i in range(5):
        volume(tmp_path / "imagesTr" / f"v{i}.nii.gz", noise(12, 10, 8, 4, seed=i).astype(np.float32))
    assert read_data(str(file)).channels == 4


def test_a_file_that_is_no_image_is_passed_over(tmp_path):
    folder(tmp_path, 5)
    (tmp_path / "images" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "masks" / "notes.txt").write_text("x")
    assert len(read_data(str(tmp_path)).train) == 4


# ---- masks


def test_labels_as_they_are_stored(tmp_path):
    mask = square((16, 20), (3, 4), 5, 2)
    assert np.array_equal(read_labels(picture(tmp_path / "grey.png", mask)), mask)
    assert np.array_equal(read_labels(picture(tmp_path / "palette.png", mask, "P")), mask)  # not the palette's colours
    assert np.array_equal(read_labels(picture(tmp_path / "bits.png", mask > 0)), mask > 0)
    assert read_labels(picture(tmp_path / "deep.png", mask.astype(np.uint16) * 300)).max() == 600
    cube = square((8, 9, 10), (1, 2, 3), 4, 3)
    for name, values in (("whole.nii", cube), ("real.nii.gz", cube.astype(np.float32) - 0.0001)):
        assert np.array_equal(read_labels(volume(tmp_path / name, values)), cube)


def test_classes_nobody_names_are_counted(tmp_path):
    """Black and white masks have one class, not 255; empty ones one, too."""
    for value, count in ((1, 1), (3, 3), (255, 1), (0, 1)):
        data = read_data(str(folder(tmp_path / str(value), 5, value=value)))
        assert data.names == ("background", *(f"class {i}" for i in range(1, count + 1)))


def test_stems_and_kinds(tmp_path):
    assert [stem(tmp_path / name) for name in ("a.b.nii.gz", "a.b.PNG", "a")] == ["a.b", "a.b", "a"]
    assert is_volume(tmp_path / "x.NII.GZ") and not is_volume(tmp_path / "x.png")


# ---- what is refused, in one line


def test_what_is_not_there(tmp_path, refused):
    refused(lambda: read_data(str(tmp_path / "nowhere.yaml")), "--data", "nowhere.yaml", "no such file")
    refused(lambda: read_data(str(tmp_path)), "'images' and 'masks'", "data.yaml")
    file = pictures(tmp_path, val=1)
    os.rename(tmp_path / "masks", tmp_path / "others")
    refused(lambda: read_data(str(file)), "data.yaml", "masks", "is no folder")


def test_a_mask_that_is_missing(tmp_path, refused):
    file = pictures(tmp_path)
    (tmp_path / "masks" / "train" / "train1.png").unlink()
    refused(lambda: read_data(str(file)), "1 of 3 images have no mask", "train1.png", str(tmp_path / "masks" / "train"))


def test_a_listed_file_that_is_missing(tmp_path, refused):
    file = volumes(tmp_path)
    (tmp_path / "labelsTr" / "v2.nii.gz").unlink()
    refused(lambda: read_data(str(file)), "dataset.json", str(tmp_path / "labelsTr" / "v2.nii.gz"), "not there")


@pytest.mark.parametrize(("split", "word"), [("train", "training"), ("val", "validation")])
def test_an_empty_split(tmp_path, refused, split, word):
    file = pictures(tmp_path, **{split: 0})
    refused(lambda: read_data(str(file)), "data.yaml", f"no {word} images")


def test_of_few_cases_the_last_one_validates(tmp_path, refused):
    found = read_data(str(folder(tmp_path / "three", 3)))
    assert [case.name for case in found.val] == [sorted(case.name for case in (*found.train, *found.val))[-1]]
    assert len(found.train) == 2
    refused(lambda: read_data(str(folder(tmp_path / "one", 1))), "no validation images")


def test_pictures_and_volumes_are_not_mixed(tmp_path, refused):
    file = pictures(tmp_path)
    volume(tmp_path / "images" / "val" / "x.nii.gz", noise(8, 8, 8).astype(np.float32))
    volume(tmp_path / "masks" / "val" / "x.nii.gz", square((8, 8, 8), (1, 1, 1), 3))
    refused(lambda: read_data(str(file)), "data.yaml", "mixed")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text", "train: [", "\x00\x01"])
def test_a_data_yaml_that_is_none(tmp_path, refused, text):
    (tmp_path / "data.yaml").write_text(text)
    refused(lambda: read_data(str(tmp_path / "data.yaml")), "--data", "data.yaml")


@pytest.mark.parametrize("text", ["{", "[]", '{"training": 3}', '{"training": [{"image": "a"}]}', '{"labels": {}}'])
def test_a_dataset_json_that_is_none(tmp_path, refused, text):
    (tmp_path / "dataset.json").write_text(text)
    refused(lambda: read_data(str(tmp_path / "dataset.json")), "--data", "dataset.json")


@pytest.mark.parametrize("train", [None, ["images/train"], 3])
def test_a_split_that_is_no_folder_of_images(tmp_path, refused, train):
    file = pictures(tmp_path, train=1)
    text = file.read_text().replace("train: images/train", f"train: {json.dumps(train)}")
    file.write_text(text)
    refused(lambda: read_data(str(file)), "'train' must name a folder")


@pytest.mark.parametrize(
    "names",
    [{1: "cell"}, {0: "background", 2: "cell"}, {"background": 0, "cell": "x"}, ["background"], {0: "cell"}, "cell"],
)
def test_names_that_are_wrong(tmp_path, refused, names):
    file = pictures(tmp_path, names=names)
    refused(lambda: read_data(str(file)), "--data", "data.yaml", "background")


def test_two_classes_of_one_name(tmp_path, refused):
    file = pictures(tmp_path, names=["background", "cell", "cell"])
    refused(lambda: read_data(str(file)), "--data", "two classes are called 'cell'")


def test_sizes_are_those_of_the_labels(tmp_path, refused):
    for mask in (
        picture(tmp_path / "m.png", square((9, 14), (1, 2), 3)),
        picture(tmp_path / "p.png", square((9, 14), (1, 2), 3), "P"),
        volume(tmp_path / "m.nii.gz", square((5, 6, 7), (1, 1, 1), 2)),
    ):
        assert read_size(mask) == read_labels(mask).shape
    four = volume(tmp_path / "four.nii", np.zeros((4, 4, 4, 2), np.uint8))
    refused(lambda: read_size(four), "four.nii", "(4, 4, 4, 2)")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    refused(lambda: read_size(tmp_path / "broken.png"), "broken.png", "not readable as a mask")


def test_files_that_are_damaged_are_named(tmp_path, refused):
    file = volumes(tmp_path / "v")
    (tmp_path / "v" / "imagesTr" / "v0.nii.gz").write_bytes(b"no volume")
    refused(lambda: read_data(str(file)), "v0.nii.gz", "not readable")
    pictures(tmp_path / "p", names=None)
    (tmp_path / "p" / "masks" / "train" / "train1.png").write_bytes(b"no picture")
    refused(lambda: read_data(str(tmp_path / "p")), "train1.png", "not readable")


def test_a_mask_of_colours_is_none(tmp_path, refused):
    file = picture(tmp_path / "colours.png", noise(16, 20, 3))
    refused(lambda: read_labels(file), "colours.png", "class numbers")


# ---- images to look at


def test_images_of_a_file_a_folder_a_pattern_or_several(tmp_path, monkeypatch):
    folder(tmp_path, 3)
    volume(tmp_path / "v.nii.gz", noise(8, 8, 8))
    three = [tmp_path / "images" / f"c0{i}.jpg" for i in range(3)]
    assert find_images(str(three[1])) == [three[1]]
    assert find_images(str(tmp_path / "images")) == three
    assert find_images(str(tmp_path / "images" / "*.jpg")) == three
    assert find_images([str(tmp_path / "v.nii.gz"), str(tmp_path / "images")]) == [tmp_path / "v.nii.gz", *three]
    monkeypatch.chdir(tmp_path)
    assert [file.name for file in find_images("images/*1.jpg")] == ["c01.jpg"]


@pytest.mark.parametrize("source", ["nowhere", "*.jpg", "empty"])
def test_no_images_at_all(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no images or volumes there \(.png"):
        find_images(source)
