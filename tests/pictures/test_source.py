"""Pictures are found wherever they are, in order, and broken ones cost only themselves."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from distill.errors import InputError
from distill.pictures.source import find_pictures, spread


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, name in enumerate(("b.png", "a.jpg", "c d.png")):
        cv2.imwrite(str(tmp_path / name), np.full((8, 12, 3), 10 * i, np.uint8))
    (tmp_path / "notes.md").write_text("no image")
    return tmp_path


def names(source: object) -> list[str]:
    return [picture.name for picture in find_pictures(source)]  # type: ignore[arg-type]


def test_a_folder_a_file_a_pattern_a_list_and_a_text_file(folder: Path) -> None:
    assert names(folder) == ["a", "b", "c_d"]
    assert names(str(folder / "b.png")) == ["b"]
    assert names(str(folder / "*.png")) == ["b", "c_d"]
    assert names([folder / "c d.png", folder / "a.jpg"]) == ["c_d", "a"]
    (folder / "list.txt").write_text("b.png\na.jpg\n")
    assert names(folder / "list.txt") == ["b", "a"]


def test_pixels_are_rgb(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "red.png"), np.full((4, 6, 3), (0, 0, 255), np.uint8))
    (picture,) = find_pictures(tmp_path)
    assert picture.pixels.shape == (4, 6, 3)
    assert picture.pixels[0, 0].tolist() == [255, 0, 0]


def test_two_files_of_one_name_get_names_of_their_own(folder: Path) -> None:
    (folder / "below").mkdir()
    cv2.imwrite(str(folder / "below" / "b.jpg"), np.zeros((4, 4, 3), np.uint8))
    assert names([folder / "b.png", folder / "below"]) == ["b", "b-2"]


def test_a_broken_image_is_left_out_and_named(folder: Path) -> None:
    (folder / "b.png").write_bytes(b"no image")
    source = find_pictures(folder)
    assert [picture.name for picture in source] == ["a", "c_d"]
    assert [(Path(file).name, why) for file, why in source.skipped] == [("b.png", "not readable as an image")]


def test_at_most_so_many_evenly_spread(folder: Path) -> None:
    assert len(find_pictures(folder, most=2)) == 2
    files = [(Path(str(i)), None) for i in range(10)]
    assert [int(file.name) for file, _ in spread(files, 4)] == [0, 2, 5, 7]
    assert spread(files, None) == spread(files, 99) == files


def test_every_nth_frame_of_a_video(tmp_path: Path) -> None:
    file = tmp_path / "clip.avi"
    video = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 24))
    for i in range(10):
        video.write(np.full((24, 32, 3), 20 * i, np.uint8))
    video.release()
    pictures = list(find_pictures(file, every=4))
    assert [picture.name for picture in pictures] == ["clip_000000", "clip_000004", "clip_000008"]
    assert [round(float(picture.pixels.mean()), -1) for picture in pictures] == [0, 80, 160]
    assert len(find_pictures(file, most=5)) == 5


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: folder / "missing.png", "no such file, folder or pattern"),
        (lambda folder: folder / "*.tga", "no such file, folder or pattern"),
        (lambda folder: folder / "notes.md", "neither an image"),
        (lambda folder: [], "no images were given"),
    ],
)
def test_what_is_not_there_is_refused(folder: Path, make: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        find_pictures(make(folder))  # type: ignore[operator]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no images in this folder"):
        find_pictures(tmp_path)


def test_a_broken_video_costs_only_itself(folder: Path) -> None:
    (folder / "clip.mp4").write_bytes(b"no video")
    source = find_pictures(folder)
    assert [picture.name for picture in source] == ["a", "b", "c_d"]
    assert [Path(file.split()[0]).name for file, _ in source.skipped] == ["clip.mp4"]


def test_a_pattern_does_not_read_labels_as_lists(folder: Path) -> None:
    (folder / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    assert names(str(folder / "*")) == ["a", "b", "c_d"]


def test_names_that_command_a_terminal_are_told_plainly(tmp_path: Path) -> None:
    (tmp_path / "\x1b]0;evil\x07.png").write_bytes(b"no image")
    source = find_pictures(tmp_path)
    assert list(source) == []
    assert all(file.isprintable() for file, _ in source.skipped)


def test_a_very_long_name_is_cut(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / f"{'x' * 240}.png"), np.zeros((4, 4, 3), np.uint8))
    assert len(names(tmp_path)[0]) == 60
