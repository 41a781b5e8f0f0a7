"""Generated scenes: the same for the same arguments, labels that agree with the pixels, folders whole or absent."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from distill.errors import InputError
from distill.scenes import CLASSES, folders, make_scene, scenes_data, write_scenes


@pytest.fixture(scope="module")
def sample():
    """Sixty scenes of the training split at a size that is quick to make."""
    return [make_scene(index, size=96) for index in range(60)]


def inside(polygon, height, width):
    """(H, W) bool: pixels whose centre lies in a polygon (K, 2), by counting the edges left of it. Not OpenCV's way."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    odd = np.zeros((height, width), bool)
    for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        if y1 != y2:
            odd ^= ((y1 <= y) != (y2 <= y)) & (x1 + (y - y1) * (x2 - x1) / (y2 - y1) < x)
    return odd


def test_a_scene_depends_on_its_arguments_only(sample):
    again = make_scene(7, size=96)
    assert np.array_equal(again.image, sample[7].image)
    assert np.array_equal(again.masks, sample[7].masks)
    for other in (make_scene(8, size=96), make_scene(7, "val", size=96), make_scene(7, seed=1, size=96)):
        assert not np.array_equal(other.image, again.image)


def test_no_scene_of_one_split_is_in_the_other(sample):
    train = {scene.image.tobytes() for scene in sample}
    val = {make_scene(index, "val", size=96).image.tobytes() for index in range(60)}
    assert len(train) == len(val) == 60 and not train & val


def test_types_and_shapes():
    scene = make_scene(3, size=128)
    count = len(scene.classes)
    assert scene.image.shape == (128, 128, 3) and scene.image.dtype == np.uint8
    assert scene.boxes.shape == (count, 4) and len(scene.polygons) == count
    assert scene.masks.shape == (count, 128, 128) and scene.masks.dtype == bool
    assert scene.semantic.shape == (128, 128) and scene.semantic.dtype == np.uint8


def test_boxes_are_the_bounds_of_the_visible_masks(sample):
    for scene in sample:
        for box, mask in zip(scene.boxes, scene.masks, strict=True):
            y, x = np.nonzero(mask)
            assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_polygons_enclose_exactly_the_visible_masks(sample):
    for scene in sample[:20]:
        for polygon, mask in zip(scene.polygons, scene.masks, strict=True):
            assert np.array_equal(inside(polygon, *mask.shape), mask)


def test_masks_are_apart_and_make_the_semantic_image(sample):
    for scene in sample:
        assert scene.masks.sum(0).max() == 1
        expected = np.zeros_like(scene.semantic)
        for kind, mask in zip(scene.classes, scene.masks, strict=True):
            expected[mask] = kind + 1
        assert np.array_equal(scene.semantic, expected)


def test_shapes_differ_from_what_surrounds_them(sample):
    """The labels lie where the shapes were drawn: colours change more across an outline than beside it."""
    ratios = []
    for scene in sample:
        image = cv2.GaussianBlur(scene.image, (0, 0), 1).astype(np.float32)
        steps = np.abs(np.diff(image, axis=1)).max(-1)  # (H, W - 1)
        edges = np.diff(scene.semantic.astype(int), axis=1) != 0
        ratios.append(steps[edges].mean() / steps[~edges].mean())
    assert np.median(ratios) > 3


def test_every_class_many_scales_and_occlusion_occur(sample):
    counts = np.bincount(np.concatenate([scene.classes for scene in sample]), minlength=len(CLASSES))
    assert counts.min() > 0.5 * counts.mean()
    boxes = np.concatenate([scene.boxes for scene in sample])
    sides = (boxes[:, 2:] - boxes[:, :2]).max(1) / 96
    assert sides.min() < 0.17 and sides.max() > 0.4
    grown = [np.array([cv2.dilate(m.astype(np.uint8), np.ones((3, 3))) for m in scene.masks]) for scene in sample]
    touching = [masks.sum(0).max() > 1 for masks in grown]  # visible parts that meet: one lies over the other
    assert 0.2 < np.mean(touching) < 0.95


def test_colour_does_not_give_the_class_away(sample):
    colours = np.concatenate([[s.image[m].mean(0) for m in s.masks] for s in sample])  # (objects, 3)
    kinds = np.concatenate([scene.classes for scene in sample])
    distances = np.linalg.norm(colours[:, None] - colours, axis=-1) + np.diag(np.full(len(kinds), np.inf))
    hits = (kinds[distances.argmin(1)] == kinds).mean()
    assert hits < 0.35  # the class of the object of the nearest colour; by chance 1 / 6


@pytest.mark.parametrize("wrong", [{"split": "test"}, {"index": -1}, {"seed": -1}, {"size": 16}])
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(InputError, match=str(next(iter(wrong.values())))):
        make_scene(**{"index": 0, **wrong})


def test_a_written_folder_holds_what_was_made(tmp_path):
    data = write_scenes(tmp_path / "set", train=3, val=2, size=96, seed=5)
    assert data == tmp_path / "set" / "data.yaml"
    text = data.read_text()
    assert "download" not in text and "path:" not in text  # Ultralytics would run the one and misplace the other
    assert [f"  {i}: {name}" for i, name in enumerate(CLASSES)] == text.splitlines()[-len(CLASSES) :]
    for split, count in (("train", 3), ("val", 2)):
        for index in range(count):
            scene = make_scene(index, split, 5, 96)
            files = [data.parent / kind / split / f"{index:05}" for kind in ("images", "semantic", "labels")]
            assert np.array_equal(cv2.imread(f"{files[0]}.png"), scene.image)
            assert np.array_equal(cv2.imread(f"{files[1]}.png", cv2.IMREAD_UNCHANGED), scene.semantic)
            rows = [line.split() for line in Path(f"{files[2]}.txt").read_text().splitlines()]
            assert [int(row[0]) for row in rows] == scene.classes.tolist()
            for row, polygon in zip(rows, scene.polygons, strict=True):
                points = np.array(row[1:], float).reshape(-1, 2)
                assert len(points) >= 3 and points.min() >= 0 and points.max() <= 1
                assert np.allclose(points * 96, polygon, atol=1e-3)
        assert len(list((data.parent / "images" / split).iterdir())) == count


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_midway_leaves_nothing(tmp_path, monkeypatch, error):
    calls = []

    def fail_at_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise error
        return make_scene(*arguments)

    monkeypatch.setattr(folders, "make_scene", fail_at_third)
    with pytest.raises(InputError if isinstance(error, OSError) else KeyboardInterrupt):
        write_scenes(tmp_path / "set", train=3, val=1, size=64)
    assert len(calls) == 3 and not list(tmp_path.iterdir())


def test_an_image_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(folders.cv2, "imwrite", lambda *_: False)  # all that OpenCV says of a full disk
    with pytest.raises(InputError, match="00000.png"):
        write_scenes(tmp_path / "set", train=1, val=1, size=64)


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="exists"):
        write_scenes(tmp_path, train=1, val=1)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_the_cache_is_used_again_and_kept_apart_by_arguments(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    data = scenes_data(train=2, val=1, size=64)
    stamps = {path: path.stat().st_mtime_ns for path in data.parent.rglob("*")}
    monkeypatch.setattr(folders, "write_scenes", lambda *_: pytest.fail("generated again"))
    assert scenes_data(train=2, val=1, size=64) == data
    assert {path: path.stat().st_mtime_ns for path in data.parent.rglob("*")} == stamps
    with pytest.raises(pytest.fail.Exception):
        scenes_data(train=2, val=1, size=64, seed=1)


def test_the_cache_honours_xdg(tmp_path, monkeypatch):
    monkeypatch.delenv("DISTILL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert scenes_data(train=1, val=1, size=64).is_relative_to(tmp_path / "distill")


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="file"):
        scenes_data(train=1, val=1, size=64)


def test_processes_that_generate_at_once_get_one_whole_set(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path))
    code = "from distill.scenes import scenes_data; print(scenes_data(train=12, val=4, size=64))"
    root = Path(folders.__file__).parents[2]
    jobs = [subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=-1, stderr=-1, text=True) for _ in range(3)]
    results = [job.communicate(timeout=300) for job in jobs]
    assert all(job.returncode == 0 for job in jobs), results
    data = Path(results[0][0].strip())
    assert {out.strip() for out, _ in results} == {str(data)}
    assert [path.name for path in tmp_path.iterdir()] == [data.parent.name]  # no half-made sibling is left
    assert len(list(data.parent.glob("images/*/*.png"))) == len(list(data.parent.glob("labels/*/*.txt"))) == 16


def test_the_slower_of_two_processes_takes_the_folder_of_the_faster(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path))

    def overtaken(part, folder, counts, size, seed):
        part.joinpath("slow").touch()
        folder.mkdir()
        (folder / "data.yaml").write_text("faster")

    monkeypatch.setattr(folders, "_write_splits", overtaken)
    assert scenes_data(train=1, val=1, size=64).read_text() == "faster"
    assert len(list(tmp_path.iterdir())) == 1
