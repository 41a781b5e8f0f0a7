"""What a run leaves behind appears whole or not at all, and is read back as it was written."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from distill import records
from distill.errors import InputError
from distill.records import (
    MANIFEST,
    SETTINGS,
    keep_epochs,
    new_folder,
    next_folder,
    numbered_folder,
    put_back,
    read_manifest,
    read_settings,
    set_aside,
    sha256,
    versions,
    whole_folder,
    write_manifest,
    write_settings,
    write_whole,
)

# ---- whole or not at all


def test_a_file_is_written_with_its_folders_and_replaced(tmp_path):
    file = tmp_path / "a" / "b.txt"
    write_whole(file, "first, longer\n")
    write_whole(file, "zweites ü\n")
    assert file.read_text(encoding="utf-8") == "zweites ü\n"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("where", ["write", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, where):
    file = tmp_path / "results.csv"
    write_whole(file, "old")

    def fails(*_args, **_options):
        raise OSError("no space left on device")

    def half(path, text, **_options):
        path.write_bytes(text[:1].encode())
        fails()

    if where == "write":
        monkeypatch.setattr(Path, "write_text", half)
    else:
        monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="no space"):
        write_whole(file, "new")
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]


def test_nobody_sees_a_part(tmp_path, monkeypatch):
    """At the moment of the exchange the old file is still there, and the new one complete beside it."""
    file = tmp_path / "x.txt"
    write_whole(file, "old")
    seen = []
    replace = os.replace
    monkeypatch.setattr(
        os, "replace", lambda a, b: seen.append((Path(a).read_text(), Path(b).read_text())) or replace(a, b)
    )
    write_whole(file, "new")
    assert seen == [("new", "old")]


def test_what_cannot_be_encoded_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_manifest(tmp_path, {"weights": object()})
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "x.txt", "\udcff")
    assert not list(tmp_path.iterdir())


def test_the_manifest_comes_back(tmp_path):
    entries = {"pairs": [{"name": "P3", "weight": 1.0}], "student": "größe.pt", "teacher": None, "finished": False}
    write_manifest(tmp_path, entries)
    assert read_manifest(tmp_path) == entries == json.loads((tmp_path / MANIFEST).read_text(encoding="utf-8"))
    assert list(read_manifest(tmp_path)) == list(entries)
    assert read_manifest(tmp_path / "nowhere") == {}


def test_the_settings_come_back_in_their_order(tmp_path):
    settings = {"student": "größe.yaml", "layers": ["P3", "16:15@2"], "share": 0.2, "weight": None, "trust": False}
    write_settings(tmp_path, settings)
    assert read_settings(tmp_path) == settings and list(read_settings(tmp_path)) == list(settings)
    assert "größe" in (tmp_path / SETTINGS).read_text(encoding="utf-8")


# ---- the table of epochs

HEADER = "epoch,time,loss\n"


def kept(tmp_path, text, last):
    table = tmp_path / "results.csv"
    table.write_text(text, encoding="utf-8")
    keep_epochs(table, last)
    return table.read_text(encoding="utf-8") if table.exists() else None


@pytest.mark.parametrize(
    ("rows", "last", "left"),
    [
        ("1,9,0.5\n2,9,0.4\n3,9,0.3\n", 3, "1,9,0.5\n2,9,0.4\n3,9,0.3\n"),  # nothing to do
        ("1,9,0.5\n2,9,0.4\n3,9,0.3\n", 2, "1,9,0.5\n2,9,0.4\n"),  # epoch 3 has no checkpoint
        ("1,9,0.5\n2,9,0.4\n", 0, ""),
        ("1,9,0.5\n2,9,0.", 2, "1,9,0.5\n"),  # half-written, all cells there
        ("1,9,0.5\n2,9", 2, "1,9,0.5\n"),
        ("1,9,0.5\n2,9\n", 2, "1,9,0.5\n"),  # too few cells
        ("1,9,0.5\n2,92,9,0.4\n", 2, "1,9,0.5\n"),  # a half row with the next one glued to it
        ("1,9,0.5\n2,9,0.4\n2,9,0.7\n3,9,0.3\n", 3, "1,9,0.5\n2,9,0.7\n3,9,0.3\n"),  # listed twice: the later one
        ("1,9,0.5\n2,9,0.4\n3,9,0.3\n2,9,0.7\n", 2, "1,9,0.5\n2,9,0.7\n"),
        ("  1, 9, 0.5\n 10, 9, 0.4\n", 9, "  1, 9, 0.5\n"),  # numbers, not text
        ("1,9,0.5\nepoch,time,loss\n\n2,9,0.4\n", 2, "1,9,0.5\n2,9,0.4\n"),
    ],
)
def test_rows_that_stay(tmp_path, rows, last, left):
    assert kept(tmp_path, HEADER + rows, last) == HEADER + left


@pytest.mark.parametrize("text", ["", "epoch,ti"])
def test_a_table_without_a_whole_header_is_removed_for_the_trainer_to_begin_anew(tmp_path, text):
    assert kept(tmp_path, text, 3) is None


def test_no_table_is_no_error(tmp_path):
    keep_epochs(tmp_path / "results.csv", 3)
    assert not list(tmp_path.iterdir())


# ---- a run in a folder that exists


@pytest.fixture
def folder(tmp_path):
    run = tmp_path / "run"
    (run / "weights").mkdir(parents=True)
    for name in ("notes.txt", MANIFEST, "weights/last.pt"):
        (run / name).write_text("old")
    return run


def test_a_run_that_never_began_leaves_the_folder_as_it_was(folder):
    set_aside(folder)
    assert not folder.exists()
    (folder / "weights").mkdir(parents=True)
    (folder / "args.yaml").write_text("new")
    put_back(folder)
    assert sorted(p.name for p in folder.iterdir()) == sorted(["notes.txt", MANIFEST, "weights"])
    assert (folder / "weights" / "last.pt").read_text() == "old" and len(list(folder.parent.iterdir())) == 1


def test_a_run_that_began_replaces_the_old_one_and_keeps_what_belongs_to_neither(folder):
    set_aside(folder)
    write_manifest(folder, {"new": True})
    put_back(folder)
    assert read_manifest(folder) == {"new": True} and (folder / "notes.txt").read_text() == "old"
    assert not (folder / "weights").exists() and len(list(folder.parent.iterdir())) == 1


def test_setting_aside_twice_loses_nothing(folder):
    set_aside(folder)
    set_aside(folder)  # the first run was killed before it began
    put_back(folder)
    put_back(folder)
    assert (folder / "notes.txt").read_text() == "old"


# ---- where a result comes from


def test_the_digest_is_the_file_s(tmp_path):
    file = tmp_path / "x.pt"
    file.write_bytes(bytes(range(256)) * 5000)  # more than one block
    assert sha256(file) == sha256(str(file)) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_versions_name_what_a_result_depends_on():
    import torch

    found = versions()
    assert set(found) == {"python", "platform", "torch", "torchvision", "ultralytics", "numpy"}
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]


# ---- folders that appear whole


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    with whole_folder(folder) as staging:
        (staging / "file").write_text("all of it")
        assert not folder.exists()
    assert (folder / "file").read_text() == "all of it"
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def stopped() -> None:
        with whole_folder(tmp_path / "out") as staging:
            (staging / "file").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_may_be_filled_and_a_full_one_not(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with whole_folder(tmp_path / "out") as staging:
        (staging / "file").touch()
    with pytest.raises(InputError, match="out exists and is not empty"), whole_folder(tmp_path / "out"):
        pass
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]


def test_a_folder_that_cannot_be_made_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made: .*file is a file"):
        new_folder(tmp_path / "file" / "below")
    with pytest.raises(InputError, match="cannot be made"), whole_folder("/proc/below/here"):
        pass


def test_the_current_folder_can_be_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with whole_folder(".") as staging:
        (staging / "file").touch()
    assert (tmp_path / "here" / "file").exists()


def test_folders_are_numbered(tmp_path: Path) -> None:
    assert next_folder(tmp_path, "heatmap") == tmp_path / "heatmap"
    (tmp_path / "heatmap").mkdir()
    (tmp_path / "heatmap2").mkdir()
    assert next_folder(tmp_path, "heatmap") == tmp_path / "heatmap3"


def test_a_name_with_a_comma_is_one_column(tmp_path):
    text = 'epoch,"val/dice/white matter, left",loss\n1,0.2,0.5\n2,0.3,0.4\n3,0.3\n'
    assert kept(tmp_path, text, 2) == text.removesuffix("3,0.3\n")


def test_a_numbered_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file.train cannot be made: \w+"):
        numbered_folder(tmp_path / "file", "train")


def test_a_numbered_folder_is_made(tmp_path: Path) -> None:
    project = tmp_path / "runs" / "distill"
    assert [numbered_folder(project, "train").name for _ in range(3)] == ["train", "train2", "train3"]
    assert sorted(path.name for path in project.iterdir()) == ["train", "train2", "train3"]
    (project / "train4").write_text("a file in the way")
    assert numbered_folder(project, "train").name == "train5"


def test_two_runs_that_start_at_once_get_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def beaten(project: Path, name: str) -> Path:
        """Another run takes the folder between the look and the making, once."""
        folder = next_folder(project, name)
        if not (project / "train").exists():
            folder.mkdir()
            (folder / "theirs").write_text("x")
        return folder

    monkeypatch.setattr(records, "next_folder", beaten)
    folder = numbered_folder(tmp_path, "train")
    assert folder == tmp_path / "train2" and folder.is_dir() and not any(folder.iterdir())
    assert (tmp_path / "train" / "theirs").exists()
