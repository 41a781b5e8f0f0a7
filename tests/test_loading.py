"""From what a user names to the adapter that knows it."""

import sys

import pytest

from distill import loading
from distill.config import settings_from
from distill.errors import InputError


@pytest.mark.parametrize(
    "name",
    ["unet", "unet:8", "attention-unet", "attention-unet:16", "unet:", "unet:x", "best.ckpt", "runs/a/BEST.CKPT"],
)
def test_names_and_checkpoints_of_unets(name):
    assert loading.is_unet(name)


@pytest.mark.parametrize(
    "name", ["yolo11n.yaml", "yolo11n.pt", "best.pt", "unets", "my-unet", "unet.pt", "unet8", "ckpt", "", "None"]
)
def test_what_is_none(name):
    assert not loading.is_unet(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unet: {channels: [2, 3]}", True),
        ("# a comment\nunet:\n  channels: [2, 3]\n", True),
        ("unet : {channels: [2, 3]}", True),
        ("backbone: [unet]\n", False),
        ("model:\n  unet: x\n", False),
        ("# unet: not this\nnc: 3\n", False),
        ("my_unet: 1\n", False),
    ],
)
@pytest.mark.parametrize("suffix", ["yaml", "yml", "YAML"])
def test_a_yaml_with_an_entry(tmp_path, text, expected, suffix):
    file = tmp_path / f"net.{suffix}"
    file.write_text(text)
    assert loading.is_unet(str(file)) is expected


def test_a_yaml_that_cannot_be_read_is_not_a_unets(tmp_path):
    assert not loading.is_unet(str(tmp_path / "nowhere.yaml"))
    (tmp_path / "bytes.yaml").write_bytes(b"unet: \xff\xfe")
    assert not loading.is_unet(str(tmp_path / "bytes.yaml"))
    (tmp_path / "folder.yaml").mkdir()
    assert not loading.is_unet(str(tmp_path / "folder.yaml"))


def test_the_student_chooses_the_adapter(monkeypatch):
    monkeypatch.setattr(loading, "segment_adapter", lambda: "segment")
    monkeypatch.setattr(loading, "ultralytics_adapter", lambda trust: f"ultralytics {trust}")
    assert loading.adapter_for(settings_from({"student": "unet:8"})) == "segment"
    assert loading.adapter_for(settings_from({"student": "yolo11n.yaml", "trust": True})) == "ultralytics True"
    assert loading.adapter_for(settings_from({})) == "ultralytics False"


def test_a_missing_package_is_named_with_the_extra(monkeypatch):
    for package in ("monai", "nibabel"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"^U-Nets need monai, nibabel: pip install 'attention-distill\[segment\]'$"):
        loading.segment_adapter()
