"""U-Nets looked at from checkpoint to folder: pictures and volumes, plain and gated, what gates are worth, refusals."""

from __future__ import annotations

import csv
import json
from importlib.util import find_spec
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
import torch

import distill
from distill import InputError, Taps, energy
from distill.attention.geometry import Lattice
from distill.attention.layers import LayerInfo
from distill.jobs.seeing import worth
from distill.jobs.seeing.comparing import compare
from distill.jobs.seeing.comparison import arrays

if missing := [package for package in ("monai", "lightning", "nibabel") if find_spec(package) is None]:
    pytest.skip(f"needs {', '.join(missing)}", allow_module_level=True)

from ...adapters.segment import kit

CLASSES = ("background", "front", "back")
WIDE = [6, 8, 8]  # so that no level is dead


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """Pictures, and a plain and a gated network for them."""
    folder = tmp_path_factory.mktemp("flat")
    data = kit.pictures(folder, train=2, val=5, size=(25, 32))
    nets = {
        "gated": kit.checkpoint(folder / "gated.ckpt", 0, channels=WIDE, gated="all"),
        "plain": kit.checkpoint(folder / "plain.ckpt", 1, channels=WIDE),
        "other": kit.checkpoint(folder / "other.ckpt", 2, channels=WIDE, gated=True),
    }
    return SimpleNamespace(data=str(data), folder=folder, **{name: str(file) for name, file in nets.items()})


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deep")
    data = kit.volumes(folder, count=10, size=(12, 10, 9))
    file = kit.checkpoint(folder / "gated.ckpt", names=CLASSES, in_channels=1, dims=3, gated=True)
    return SimpleNamespace(data=str(data), folder=folder, gated=str(file))


def test_maps_are_the_networks_own(flat):
    look = compare(student=flat.gated, data=flat.data, layers="E2,G1,X1", device="cpu")
    sample = look.exhibit.samples[0]
    network = distill.loading.segment_adapter().open_lookers({"student": flat.gated}, "cpu")["student"]
    subject = distill.loading.segment_adapter().read_subject(flat.folder / "images" / "val" / "val0.png", None, 3)
    names = {row.name: row.sides["student"].layer for row in look.exhibit.rows}
    assert names == {"E2": "encoder.2", "G1": "gates.1.alpha", "X1": "mixers.1"}
    with torch.no_grad(), Taps(network.module, names.values()) as taps:
        network.module(subject.images[None])
        features = taps.read()
    assert sample.maps["E2"]["student"] == pytest.approx(energy(features["encoder.2"])[0].numpy(), rel=1e-5)
    assert sample.maps["G1"]["student"] == pytest.approx(features["gates.1.alpha"][0, 0].numpy(), rel=1e-5)
    assert sample.maps["E2"]["student"].shape == (13, 16) and sample.picture.shape == (25, 32, 3)
    assert sample.lattice(look.exhibit.rows[0], "student").offset == (1, 1)
    assert (sample.masks["labels"] == kit.square((25, 32), (4, 6), 9)).all()


def test_three_networks_of_both_kinds(flat, tmp_path):
    look = compare(flat.plain, flat.gated, baseline=flat.other, data=flat.data, device="cpu", max_images=2)
    rows = {row.name: set(row.sides) for row in look.exhibit.rows}
    assert list(rows) == ["E1", "G1", "X1", "D1", "E2", "G2", "X2", "D2"]
    assert rows["G1"] == {"student"} and rows["G2"] == {"student", "baseline"} and len(rows["D2"]) == 3
    told = {(row["pair"], row["network"]): row for row in look.exhibit.numbers.maps if row["image"] == "val0"}
    assert told["D1", "student"]["distance"] > 0 and told["D1", "student"]["untrained_distance"] > 0
    assert told["G2", "student"]["distance"] is None and 0 < told["G2", "student"]["alpha_mean"] < 1
    assert told["D1", "student"]["foreground_share"] == pytest.approx(81 / 800)
    assert ("G1", "baseline") not in told
    assert look.exhibit.numbers.summary["D1"]["teacher"]["foreground_ratio"].n == 2
    folder = look.save(tmp_path / "out")
    assert sorted(file.name for file in (folder / "sheets").iterdir())[0] == "val0.png"
    rows = list(csv.DictReader((folder / "gates.csv").open()))
    assert [(row["network"], row["opened"]) for row in rows] == [
        *(("student", name) for name in ("none", "G1", "G2", "all")),
        *(("baseline", name) for name in ("none", "G2")),
    ]
    assert rows[0]["change"] == "" and rows[0]["n"] == "5" and float(rows[1]["change"]) < 1
    assert "what each gate is worth" in str(look)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["task"] == "unet" and manifest["pairs"][0]["student"]["offset"] == [0.5, 0.5]
    page = (folder / "report.html").read_text()
    assert '"gates":[{' in page and "data:image/png;base64" in page


def test_two_networks_without_a_teacher(flat):
    look = compare(student=flat.gated, baseline=flat.plain, data=flat.data, device="cpu", max_images=2)
    assert look.exhibit.reference is None and len(look.exhibit.samples) == 2
    assert {row["distance"] for row in look.exhibit.numbers.maps} == {None}
    assert look.exhibit.numbers.gates[0]["n"] == 5  # the whole split


def test_images_alone_have_no_truth(flat):
    look = compare(student=flat.gated, images=flat.folder / "images" / "val", device="cpu", max_images=2)
    assert all("labels" not in sample.masks and not sample.dice for sample in look.exhibit.samples)
    assert not look.exhibit.numbers.gates and "no known masks" in str(look)
    assert {row["foreground_ratio"] for row in look.exhibit.numbers.maps} == {None}


def test_volumes_are_shown_in_three_planes_and_measured_whole(deep, tmp_path):
    look = compare(student=deep.gated, data=deep.data, device="cpu", layers="E2,G2")
    names = [sample.name for sample in look.exhibit.samples]
    assert names == [f"{case}-{plane}" for case in ("v4", "v9") for plane in ("axial", "coronal", "sagittal")]
    axial, coronal, _ = look.exhibit.samples[:3]
    assert axial.picture.shape == (10, 12, 3) and coronal.picture.shape == (9, 12, 3)
    whole = look.whole.samples[0]
    row = next(row for row in look.exhibit.rows if row.name == "E2")
    assert whole.maps["E2"]["student"].shape == (6, 5, 5) == row.sides["student"].grid
    assert axial.maps["E2"]["student"].shape == (5, 6)
    index = int((whole.masks["labels"] > 0).sum(axis=(0, 1)).argmax())
    assert (axial.maps["E2"]["student"] == whole.maps["E2"]["student"][:, :, index // 2].T).all()
    assert {row["image"] for row in look.exhibit.numbers.maps} == {"v4", "v9"}
    share = next(iter(look.exhibit.numbers.maps))["foreground_share"]
    assert share == pytest.approx((whole.masks["labels"] > 0).mean())
    assert arrays(look.whole)["v4/E2/student"].shape == (6, 5, 5)
    folder = look.save(tmp_path / "out")
    assert len(list((folder / "sheets").iterdir())) == 6 and np.load(folder / "maps.npz")["v9/G2/student"].ndim == 3
    assert "means over 2 volumes" in str(look)


def test_large_images_are_cut_around_the_foreground(deep, monkeypatch):
    from distill.jobs.seeing import unets

    monkeypatch.setattr(unets, "LARGEST", 100)
    monkeypatch.setattr(unets, "WINDOW", 0.5)  # of crops of 16
    look = compare(student=deep.gated, data=deep.data, device="cpu", max_images=1, layers="D1")
    whole = look.whole.samples[0]
    assert whole.maps["D1"]["student"].shape == (8, 8, 8) == whole.masks["labels"].shape == whole.masks["student"].shape
    assert (whole.masks["labels"] > 0).any() and "are large" in str(look)


def test_broken_images_are_named(flat, tmp_path):
    kit.picture(tmp_path / "fine.png", kit.noise(16, 16, 3))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    look = compare(student=flat.plain, images=tmp_path, device="cpu")
    assert len(look.exhibit.samples) == 1 and "broken.png" in look.skipped[0][0]
    with pytest.raises(InputError, match="could be read"):
        compare(student=flat.plain, images=tmp_path / "broken.png", device="cpu")


def test_a_network_of_other_classes(flat):
    stranger = kit.checkpoint(flat.folder / "stranger.ckpt", names=("background", "cat", "cell"), gated=True)
    look = compare(student=str(stranger), data=flat.data, device="cpu", max_images=2)
    assert look.exhibit.classes == ("background", "cell", "cat") and not look.exhibit.samples[0].dice
    assert not look.exhibit.numbers.gates and "the data has others" in str(look)
    found = look.exhibit.samples[0].masks["student"]
    assert set(np.unique(found)) <= {0, 1, 2}


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"student": "best.pt"}, "--baseline is a U-Net"),
        ({"student": "unet.yaml"}, "U-Nets and detectors"),
        ({"student": "attention-unet:8"}, "give a .ckpt"),
        ({"imgsz": 64}, "--imgsz is for detectors"),
        ({"every": 2}, "--every is for detectors"),
        ({"student": None}, "--baseline stands beside --student"),
        ({"split": "test"}, "train and val"),
        ({"student": "missing.ckpt"}, "no such file"),
        ({"layers": "P3"}, "P3"),
    ],
)
def test_what_is_refused(flat, settings, part):
    given = {"student": flat.gated, "baseline": flat.plain, "data": flat.data, **settings}
    with pytest.raises(InputError, match=part) as error:
        compare(**given)
    assert "\n" not in str(error.value)


class Fake:
    """A network of one gate that is right about every second image, and about all of them once the gate is open."""

    names = ("background", "thing")
    layers = (LayerInfo("gates.1.alpha", "Sigmoid", (1, 1, 2, 2), (2.0, 2.0), 0, ("G1",)),)
    lattices = MappingProxyType({"gates.1.alpha": Lattice((1.0, 1.0), (2.0, 2.0))})

    def predict(self, images, opened=()):
        return images[0] if opened or images.sum() < 7 else 0 * images[0]

    def dice(self, found, truth):
        return {"thing": float((found.numpy() == truth).all())}

    def features(self, _images, _layers):
        return {"gates.1.alpha": torch.tensor([[[[0.9, 0.1], [0.1, 0.1]]]])}


def test_worth_by_hand():
    truth = np.zeros((4, 4), int)
    truth[:2, :2] = 1
    subjects = [SimpleNamespace(images=torch.tensor(truth[None] * factor), truth=truth * factor) for factor in (1, 2)]
    as_it_is, opened = worth.gate_worth({"student": Fake(), "baseline": SimpleNamespace(layers=())}, subjects)
    assert (as_it_is["opened"], as_it_is["dice"], as_it_is["change"]) == ("none", 0.5, None)
    assert (opened["opened"], opened["dice"], opened["change"], opened["n"]) == ("G1", 1.0, 0.5, 2)
    assert opened["alpha_mean"] == pytest.approx(0.3) and opened["alpha_r"] == pytest.approx(1)
    assert opened["dice/thing"] == 1 and (opened["low"], opened["high"]) == (0, 1)
    assert worth.gate_worth({"student": SimpleNamespace(layers=())}, subjects) == []
