"""Masks of new images, and U-Nets without Python."""

import sys

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

import distill
from distill.adapters.segment.exporting import export_onnx
from distill.adapters.segment.networks import MARK, build
from distill.cli import main
from distill.errors import InputError


def checkpoint(path, dims, classes=3, crop=16):
    """A network whose class follows from brightness alone: class 0, 1, 2 for normalised values about -1, 0, 1."""
    network = {"in_channels": 3 if dims == 2 else 1, "classes": classes, "channels": [4, 8], "dims": dims}
    torch.manual_seed(0)
    module = build(network, 0).eval()
    names = ["background", *(f"c{i}" for i in range(1, classes))]
    about = {"network": network, "names": names, "crop": [crop] * dims}
    torch.save({"state_dict": module.state_dict(), MARK: about}, path)
    return module


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for name, shape in (("a.png", (21, 34, 3)), ("b.jpg", (16, 16, 3))):
        Image.fromarray(rng.integers(0, 255, shape, np.uint8)).save(tmp_path / "images" / name)
    return tmp_path / "images"


def test_a_mask_is_what_the_network_says_on_the_pictures_own_grid(pictures, tmp_path, capsys):
    module = checkpoint(tmp_path / "net.ckpt", 2, crop=64)
    out = tmp_path / "masks"
    command = ["predict", "--model", str(tmp_path / "net.ckpt"), "--source", str(pictures), "--out", str(out)]
    assert main([*command, "--device", "cpu"]) == 0
    assert "c1" in capsys.readouterr().out and sorted(f.name for f in out.iterdir()) == ["a.png", "b.png"]
    pixels = np.array(Image.open(pictures / "a.png")).astype(np.float32)
    x = torch.from_numpy((pixels - pixels.mean()) / pixels.std()).movedim(-1, 0).unsqueeze(0)
    expected = module(x)[0].argmax(0).numpy()
    found = Image.open(out / "a.png")
    assert found.mode == "P" and found.size == (34, 21) and np.array_equal(np.array(found), expected)
    assert main([*command, "--device", "cpu"]) == 2  # nothing is overwritten
    assert "not empty" in capsys.readouterr().err


def test_a_volumes_mask_keeps_its_place_in_space(tmp_path):
    checkpoint(tmp_path / "net.ckpt", 3)
    affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 3, 1], [0, 0, 0, 1]])
    values = np.random.default_rng(0).normal(size=(11, 13, 17)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "case.nii.gz")
    folder, shares = distill.predict(str(tmp_path / "net.ckpt"), str(tmp_path / "case.nii.gz"), tmp_path / "m", "cpu")
    mask = nibabel.load(folder / "case.nii.gz")
    assert mask.shape == values.shape and np.array_equal(mask.affine, affine) and mask.get_data_dtype() == np.uint8
    assert sum(shares.values()) == pytest.approx(1) and list(shares) == ["background", "c1", "c2"]


@pytest.mark.parametrize("dims", [2, 3])
def test_onnx_says_the_same(dims, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    module = checkpoint(tmp_path / "net.ckpt", dims)
    file = export_onnx(str(tmp_path / "net.ckpt"))
    x = torch.randn(1, module.in_channels, *[16] * dims)
    logits = onnxruntime.InferenceSession(str(file)).run(["logits"], {"images": x.numpy()})[0]
    assert np.allclose(logits, module(x).detach().numpy(), atol=1e-4)
    with pytest.raises(InputError, match="exists already"):
        export_onnx(str(tmp_path / "net.ckpt"))


def test_what_cannot_be_used(pictures, tmp_path, capsys):
    checkpoint(tmp_path / "volumes.ckpt", 3)
    checkpoint(tmp_path / "pictures.ckpt", 2)
    (tmp_path / "empty").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(pictures / "a.bmp")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for model, source, message in (
        ("volumes.ckpt", pictures / "a.png", "the network reads volumes"),
        ("pictures.ckpt", tmp_path / "empty", "no images or volumes there"),
        ("pictures.ckpt", pictures, "would give one mask"),
        ("pictures.ckpt", tmp_path / "broken.png", "broken.png: not readable as an image"),
        ("best.pt", pictures, "for a detector: yolo predict model="),
        ("missing.ckpt", pictures, "no such file"),
    ):
        given = ["--model", str(tmp_path / model), "--source", str(source), "--out", str(tmp_path / "out")]
        assert main(["predict", *given, "--device", "cpu"]) == 2
        error = capsys.readouterr().err.strip()
        assert message in error and "\n" not in error and not (tmp_path / "out").exists()
    assert main(["export", "--model", "best.pt"]) == 2 and "yolo export" in capsys.readouterr().err


def test_without_onnx_the_extra_is_named(tmp_path, monkeypatch):
    checkpoint(tmp_path / "net.ckpt", 2)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"pip install 'attention-distill\[export\]'"):
        export_onnx(str(tmp_path / "net.ckpt"))
    assert [path.name for path in tmp_path.iterdir()] == ["net.ckpt"]


def test_a_broken_image_is_found_before_any_is_predicted(pictures, tmp_path, monkeypatch):
    checkpoint(tmp_path / "net.ckpt", 2)
    (pictures / "z.png").write_bytes(b"no picture")
    monkeypatch.setattr("distill.adapters.segment.scores.infer", lambda *_: pytest.fail("predicted"))
    with pytest.raises(InputError, match=r"z\.png: not readable as an image"):
        distill.predict(str(tmp_path / "net.ckpt"), str(pictures), tmp_path / "out", "cpu")
