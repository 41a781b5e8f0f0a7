"""`--heatmaps` of a U-Net keeps the maps of the same few images at the epochs asked for, and changes nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import distill
from distill.adapters.segment import scores
from distill.adapters.segment.lattices import layers_of_whole_cells
from distill.adapters.segment.networks import build, read_checkpoint
from distill.adapters.segment.pipeline import validation_set
from distill.adapters.segment.plan import plan
from distill.adapters.segment.probing import PROBES, Probe
from distill.adapters.segment.reading import read_case
from distill.adapters.segment.watched import Look, looks, see
from distill.attention.layers import by_role
from distill.attention.taps import Taps
from distill.errors import Interrupted
from distill.settings import Settings
from distill.terms.gates import relative

from . import kit

SMALL = {"batch": 2, "imgsz": 8, "workers": 0, "device": "cpu"}
GATED = "unet: {channels: [2, 3, 4], gated: true}"


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the pictures, which take longer than the training."""
    monkeypatch.setattr("distill.jobs.seeing.timeline.draw_timeline", lambda *_: [])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """6 training and 4 validation volumes of 12x10x8 voxels."""
    file = kit.volumes(tmp_path_factory.mktemp("volumes"), count=10)
    entries = json.loads(file.read_text())
    entries["validation"] = [entries["training"].pop() for _ in range(4)]
    file.write_text(json.dumps(entries))
    return str(file)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("networks") / "gated.yaml"
    file.write_text(GATED)
    return str(file)


def prepared(student: str, data: str, **settings: Any) -> Any:
    return plan(Settings(student=student, data=data, **settings), {"imgsz": 8}, "")


def kept(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    return {file.stem: dict(np.load(file)) for file in sorted((folder / "heatmaps").glob("*.npz"))}


def table(result: distill.TrainResult) -> list[list[str]]:
    return [line.split(",")[:1] + line.split(",")[2:] for line in result.table.read_text().splitlines()]  # not seconds


def equal(a: Any, b: Any) -> bool:
    """Everything in two checkpoints, bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


# ---- a run


def test_training_is_the_same_bit_for_bit(student: str, data: str, tmp_path: Path) -> None:
    common = {"student": student, "data": data, "project": str(tmp_path), "epochs": 3, **SMALL}
    plain, watched = distill.train(**common), distill.train(**common, heatmaps="1,3")
    both = [torch.load(one.last, weights_only=True) for one in (plain, watched)]
    assert any("running_mean" in name for name in both[0]["state_dict"])
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert equal(*(one[part] for one in both)), part
    assert table(plain) == table(watched)
    assert not (plain.folder / "heatmaps").exists()

    moments = kept(watched.folder)
    assert list(moments) == ["epoch0000", "epoch0001", "epoch0003"]  # before training, and what was asked for
    last = moments["epoch0003"]
    assert list(last["rows"]) == ["G2"] and list(last["kinds"]) == ["gate"]
    names = [Path(file).name for file in last["images"]]
    assert names == ["v9.nii.gz", "v8.nii.gz", "v7.nii.gz"]  # the first three quarters: evenly spread over four
    trained = read_checkpoint(watched.last, "")
    for number, file in enumerate(last["images"]):
        case = next(case for case in prepared(student, data).data.val if str(case.image) == file)
        image, truth = read_case(case, 1, 3)
        with torch.no_grad(), Taps(trained.module, ["gates.2.alpha"]) as taps:
            found = trained.module(image[None]).argmax(1)
            alpha = taps.read()["gates.2.alpha"][0, 0].numpy()
        assert last[f"student_G2_{number}"].shape == (3, 3, 2)  # 12x10x8 at stride 4, rounded up
        np.testing.assert_array_equal(last[f"student_G2_{number}"], alpha)
        np.testing.assert_array_equal(last[f"student_mask_{number}"], found[0])
        np.testing.assert_allclose(last["student_dice"][number], scores.overlaps(found, truth[None], 3)["dice"][0])
    first = moments["epoch0000"]
    assert (first["images"] == last["images"]).all() and (first["student_G2_0"] != last["student_G2_0"]).any()
    untrained = build(trained.network, 0).eval()
    with torch.no_grad():
        mask = untrained(read_case(prepared(student, data).data.val[0], 1, 3)[0][None]).argmax(1)[0]
    np.testing.assert_array_equal(first["student_mask_0"], mask)


def test_a_resumed_run_goes_on_keeping(student: str, data: str, tmp_path: Path, monkeypatch: Any) -> None:
    common = {"student": student, "data": data, "project": str(tmp_path), "epochs": 3, "heatmaps": "1", **SMALL}
    whole = distill.train(**common)
    begin = Probe.on_train_epoch_end

    def stop(self: Probe, trainer: Any, module: Any) -> None:
        begin(self, trainer, module)
        if trainer.current_epoch == 1:  # the second epoch is not saved, but its maps are kept
            raise KeyboardInterrupt

    monkeypatch.setattr(Probe, "on_train_epoch_end", stop)
    with pytest.raises(Interrupted):
        distill.train(**common, name="cut")
    monkeypatch.setattr(Probe, "on_train_epoch_end", begin)
    resumed = distill.resume(tmp_path / "cut")
    a, b = kept(whole.folder), kept(resumed.folder)
    assert list(a) == list(b) == ["epoch0000", "epoch0001", "epoch0002", "epoch0003"]
    for epoch, arrays in a.items():
        assert arrays.keys() == b[epoch].keys()
        assert all((values == b[epoch][name]).all() for name, values in arrays.items()), epoch


# ---- the callback


def probe(folder: Path, found: Any) -> tuple[Probe, Any]:
    network = found.new_student()
    return Probe(folder, found, validation_set(found.data)), SimpleNamespace(network=network, device="cpu")


def test_the_student_and_randomness_are_left_as_they_were(student: str, data: str, tmp_path: Path) -> None:
    keeper, module = probe(tmp_path, prepared(student, data, heatmaps=("2",)))
    module.network.train()
    module.network.encoder["1"].eval()  # a frozen part
    modes = [one.training for one in module.network.modules()]
    before = {name: value.clone() for name, value in module.network.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    keeper.on_train_epoch_end(SimpleNamespace(current_epoch=1, is_global_zero=True), module)
    assert torch.equal(torch.rand(1), expected)
    assert [one.training for one in module.network.modules()] == modes
    assert equal(dict(module.network.state_dict()), before)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.network.parameters())
    assert not any(one._forward_hooks for one in module.network.modules())
    assert list(kept(tmp_path)) == ["epoch0002"]


@pytest.mark.parametrize(("epoch", "first"), [(0, True), (1, False)])
def test_the_start_is_kept_once_and_by_the_first_process(epoch, first, student, data, tmp_path):
    keeper, module = probe(tmp_path, prepared(student, data, heatmaps=("2",)))
    keeper.on_train_start(SimpleNamespace(current_epoch=epoch, is_global_zero=True), module)
    assert list(kept(tmp_path)) == (["epoch0000"] if first else [])
    other = tmp_path / "other"
    keeper, module = probe(other, prepared(student, data, heatmaps=("2",)))
    keeper.on_train_start(SimpleNamespace(current_epoch=0, is_global_zero=False), module)
    keeper.on_train_epoch_end(SimpleNamespace(current_epoch=0, is_global_zero=True), module)  # epoch 1 is not due
    assert not other.exists()


def test_at_most_eight_pictures_evenly_spread(tmp_path: Path) -> None:
    found = prepared("unet:2", str(kit.pictures(tmp_path, val=12)))
    keeper, module = probe(tmp_path, found)
    keeper.on_train_start(SimpleNamespace(current_epoch=0, is_global_zero=True), module)
    arrays = kept(tmp_path)["epoch0000"]
    order = [case.name for case in found.data.val]
    assert [order.index(Path(file).stem) for file in arrays["images"]] == [0, 1, 3, 4, 6, 7, 9, 10]
    assert len(arrays["images"]) == PROBES[2]
    assert list(arrays["rows"]) == ["D1", "D2", "D3", "D4"]  # no gates: the decoder
    assert arrays["student_D1_0"].dtype == np.float16 and arrays["student_D1_0"].shape == (24, 32)
    assert np.square(arrays["student_D1_0"].astype(float)).mean() == pytest.approx(1, abs=5e-3)
    assert arrays["student_D3_0"].shape == (6, 8) and list(arrays["student_D3_stride"]) == [4, 4]


# ---- what is looked at


def names(found: dict[str, dict[str, Look]]) -> dict[str, dict[str, str]]:
    return {row: {key: look.layer.name for key, look in sides.items()} for row, sides in found.items()}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("teachers")
    given = {"names": ("background", "front", "back"), "in_channels": 1, "dims": 3, "channels": [3, 4, 5]}
    files = {
        kind: kit.checkpoint(folder / f"{kind}.ckpt", gated=kind == "gated", **given) for kind in ("plain", "gated")
    }
    return {kind: str(file) for kind, file in files.items()}


def test_rows_beside_a_teacher(student: str, data: str, teachers: dict[str, str]) -> None:
    network = build({"channels": [2, 3, 4], "gated": True, "in_channels": 1, "classes": 3, "dims": 3})
    alpha = {"student": "gates.2.alpha", "teacher": "gates.2.alpha"}
    decoders = {f"D{level}": dict.fromkeys(alpha, f"decoder.{level}") for level in (1, 2)}
    assert names(looks(network, prepared(student, data))) == {"G2": {"student": "gates.2.alpha"}}
    guided = prepared(student, data, teacher=teachers["gated"])
    assert names(looks(network, guided)) == {"G2": alpha, **decoders}
    alone = names(looks(network, prepared(student, data, teacher=teachers["plain"])))
    assert alone == {"G2": {"student": "gates.2.alpha"}, **decoders}  # it has no gate to set beside
    paired = prepared(student, data, teacher=teachers["gated"], layers=("G2", "E2:D2"))
    found = looks(network, paired)
    assert names(found)["G2"] == alpha and len(found) == 2
    assert {look.kind for look in found["G2"].values()} == {"gate"}


def test_beside_a_gate_stands_what_guides_it(student: str, data: str, teachers: dict[str, str]) -> None:
    found = prepared(student, data, teacher=teachers["plain"], gates="teacher", layers=("D1",))
    network = found.new_student().eval()
    rows = looks(network, found)
    guide = rows["G2"]["teacher"]
    assert (guide.layer.name, guide.kind, guide.shown) == ("decoder.2", "energy", "gate")
    image, _ = read_case(found.data.val[0], 1, 3)
    _, maps = see(found.teacher.module, image[None], {"G2": guide}, found.crop, 2.0)
    with torch.no_grad(), Taps(found.teacher.module, ["decoder.2"]) as taps:
        found.teacher.module(image[None])
        energy = taps.read()["decoder.2"].square().sum(1, keepdim=True)
    target = relative(torch.nn.functional.interpolate(energy, size=(3, 3, 2), mode="area")[:, 0])
    torch.testing.assert_close(maps["G2"].values, target)
    assert maps["G2"].kind == "gate"


# ---- images larger than a window


def test_large_images_are_seen_in_windows_on_the_same_grids() -> None:
    network = build({"channels": [6, 8], "gated": "all", "in_channels": 3, "classes": 2, "dims": 2}, 1).eval()
    layers = by_role(layers_of_whole_cells(network))
    rows = {
        role: Look(layers[role], kind, kind, layers[role].stride) for role, kind in (("D1", "energy"), ("G1", "gate"))
    }
    x = torch.linspace(-2, 2, 45)
    images = torch.stack([x[:, None] + x[:37], x[:, None] * x[:37], x[:, None].expand(45, 37)])[None]
    logits, windowed = see(network, images, rows, (8, 8), 2.0)
    whole_logits, whole = see(network, images, rows, (64, 64), 2.0)
    torch.testing.assert_close(logits, scores.infer(network, images, (8, 8)).detach())
    assert windowed["G1"].size == whole["G1"].size == (23, 19)
    assert windowed["D1"].size == (45, 37)
    for row in rows:  # the same but near the windows' edges, where the network sees less
        a, b = (one[row].values.flatten() for one in (windowed, whole))
        assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.9, row
    assert (whole_logits != logits).any()
