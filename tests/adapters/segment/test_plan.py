"""A plan: what is paired with what, and what is refused before anything is written."""

import pytest
import torch

from distill.adapters.segment.plan import USUAL_BATCH, device_of, plan
from distill.config import settings_from

from .kit import checkpoint, noise, pictures, volume, volumes

GATED = "unet: {channels: [2, 3, 4, 5], gated: true}"


@pytest.fixture
def given(tmp_path):
    """Settings of a run on 2-D data: a plain or a gated student, and teachers that are wider."""
    (tmp_path / "plain.yaml").write_text("unet: {channels: [2, 3, 4, 5]}")
    (tmp_path / "gated.yaml").write_text(GATED)
    checkpoint(tmp_path / "teacher.ckpt", channels=[4, 6, 8, 10])
    checkpoint(tmp_path / "gated.ckpt", channels=[4, 6, 8, 10], gated=True)
    pictures(tmp_path / "data")

    def settings(student="plain.yaml", teacher=None, data="data/data.yaml", **more):
        files = {"student": str(tmp_path / student), "data": str(tmp_path / data), "device": "cpu"}
        return {**files, **({"teacher": str(tmp_path / teacher)} if teacher else {}), **more}

    return settings


def planned(values, **arguments):
    return plan(settings_from(values), arguments, "distill train")


def matched(pairs):
    return {pair.name: (pair.student, pair.teacher, pair.kind) for pair in pairs}


# ---- sound plans


def test_without_a_teacher_nothing_is_compared(given, tmp_path):
    found = planned(given(), epochs=3)
    assert not found.pairs and not found.gates and found.teacher is None and found.student is None
    assert found.network == {"channels": [2, 3, 4, 5], "in_channels": 3, "classes": 2, "dims": 2}
    assert (found.crop, found.batch, found.options.epochs) == ((16, 32), USUAL_BATCH[2], 3)
    assert found.lines == ("3 training and 2 validation images, classes background, cell; crops of 16x32, batch 16",)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("data", "gated.ckpt", "gated.yaml", "plain.yaml", "teacher.ckpt")
    ]


def test_decoders_are_paired_by_level_whatever_the_widths(given):
    found = planned(given(teacher="teacher.ckpt"))
    assert matched(found.pairs) == {
        f"D{level}": (f"decoder.{level}", f"decoder.{level}", "energy") for level in (1, 2, 3)
    }
    assert not found.gates


def test_only_levels_that_both_networks_have_are_paired(given, tmp_path):
    checkpoint(tmp_path / "shallow.ckpt", channels=[4, 8])
    checkpoint(tmp_path / "deep.ckpt", channels=[4, 6, 8, 10, 12])
    assert list(matched(planned(given(teacher="shallow.ckpt")).pairs)) == ["D1"]
    assert list(matched(planned(given(teacher="deep.ckpt")).pairs)) == ["D1", "D2", "D3"]


def test_layers_that_are_named(given):
    found = planned(given("gated.yaml", "gated.ckpt", layers="E2,G2,D3:D2@2"))
    assert [(pair.student, pair.teacher, pair.kind, pair.weight) for pair in found.pairs] == [
        ("encoder.2", "encoder.2", "energy", 1),
        ("gates.2.alpha", "gates.2.alpha", "gate", 1),
        ("decoder.3", "decoder.2", "energy", 2),
    ]
    assert [pair.name for pair in found.pairs][:2] == ["E2", "G2"]


@pytest.mark.parametrize(
    ("teacher", "guide", "kind"), [("gated.ckpt", "gates.{}.alpha", "gate"), ("teacher.ckpt", "decoder.{}", "energy")]
)
@pytest.mark.parametrize("target", ["teacher", "shuffled"])
def test_gates_are_guided_by_the_gate_of_their_level_or_by_the_decoder(given, teacher, guide, kind, target):
    found = planned(given("gated.yaml", teacher, gates=target, layers="none"))
    assert not found.pairs
    assert matched(found.gates) == {f"G{k}": (f"gates.{k}.alpha", guide.format(k), kind) for k in (2, 3)}
    assert f"alpha to {target}, by {kind}" in found.lines[1]


def test_gates_and_pairs_of_energy_go_together(given):
    found = planned(given("gated.yaml", "gated.ckpt", gates="teacher"))
    assert list(matched(found.pairs)) == ["D1", "D2", "D3"] and list(matched(found.gates)) == ["G2", "G3"]


def test_gates_by_the_labels_need_no_teacher(given):
    found = planned(given("gated.yaml", gates="truth"))
    assert matched(found.gates) == {f"G{k}": (f"gates.{k}.alpha", "", "gate") for k in (2, 3)}
    assert "labels" in found.lines[1] and "decoder" not in found.lines[1]
    both = planned(given("gated.yaml", "teacher.ckpt", gates="truth"))
    assert list(matched(both.pairs)) == ["D1", "D2", "D3"] and both.gates == found.gates


def test_every_head_of_a_gate_has_the_guide_of_its_level(given, tmp_path):
    (tmp_path / "heads.yaml").write_text("unet: {channels: [2, 3, 4], gated: true, heads: 2}")
    checkpoint(tmp_path / "heads.ckpt", channels=[4, 6, 8], gated=True, heads=2)
    one = planned(given("heads.yaml", "gated.ckpt", gates="teacher", layers="none")).gates
    assert {pair.name: pair.teacher for pair in one} == dict.fromkeys(("G2.1", "G2.2"), "gates.2.alpha")
    two = planned(given("heads.yaml", "heads.ckpt", gates="teacher", layers="none")).gates
    assert {pair.name: pair.teacher for pair in two} == {"G2.1": "gates.2.alpha.1", "G2.2": "gates.2.alpha.2"}


def test_logits_alone(given):
    found = planned(given(teacher="teacher.ckpt", layers="none", logits=2))
    assert not found.pairs and not found.gates and found.settings.logits == 2


def test_volumes(tmp_path):
    data = volumes(tmp_path / "data", size=(20, 18, 33))
    names = ("background", "front", "back")
    teacher = checkpoint(tmp_path / "t.ckpt", names=names, dims=3, in_channels=1, channels=[2, 4])
    settings = {"student": "unet:2", "data": str(data), "teacher": str(teacher), "device": "cpu", "layers": "D1"}
    found = planned(settings)
    assert (found.crop, found.batch, found.network["dims"], found.network["classes"]) == ((16, 16, 32), 4, 3, 3)
    assert "volumes, classes background, front, back; crops of 16x16x32" in found.lines[0]
    assert planned(settings, imgsz=8).crop == (8, 8, 8) and planned(settings, imgsz="8,16,24").crop == (8, 16, 24)


@pytest.mark.parametrize("name", ["start.ckpt", "START.CKPT"])
def test_training_goes_on_from_a_checkpoint(given, tmp_path, name):
    """Whatever the case of its name: it must not become a plain U-Net from scratch."""
    checkpoint(tmp_path / name, seed=5, channels=[2, 3, 4])
    found = planned(given(name, "teacher.ckpt"))
    assert found.network["channels"] == [2, 3, 4]
    again = found.new_student()
    assert again.training and again is found.student.module
    raw = torch.load(tmp_path / name, weights_only=True)["state_dict"]
    assert all(torch.equal(tensor, raw[key]) for key, tensor in again.state_dict().items())


def test_weights_of_a_new_student_follow_from_the_seed(given):
    one, two, other = (planned(given(seed=seed)).new_student().state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_nothing_that_is_a_detectors_may_be_said_of_a_unet(given):
    """A recipe for both kinds may say that no outputs of a head are compared, and that weights are drawn."""
    assert planned({**given(), "response": "none", "init": "none"}).new_student() is not None


# ---- what is refused


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"student": None}, ["--student is missing", "unet:8"]),
        ({"data": None}, ["--data is missing"]),
        ({"data": "nowhere"}, ["--data", "nowhere"]),
        ({"teacher_imgsz": 64}, ["--teacher-imgsz is for detectors"]),
        ({"gated_neck": True}, ["--gated-neck is for detectors"]),
        ({"teacher_precision": "bfloat16"}, ["--teacher-precision is for detectors"]),
        ({"init": "teacher"}, ["--init teacher is for detectors"]),
        ({"response": "bce"}, ["--response is for detectors"]),
        ({"layers": "D1"}, ["--layers has no effect with no --teacher"]),
        ({"weight": 2.0}, ["--weight has no effect with no --teacher"]),
        ({"logits": 2.0}, ["--logits has no effect with no --teacher"]),
        ({"gates": "teacher"}, ["--gates teacher without --teacher", "--gates truth"]),
        ({"gates": "shuffled"}, ["--gates shuffled without --teacher"]),
        ({"gates": "truth"}, ["--gates truth", "no gates", "attention-unet"]),
    ],
)
def test_without_a_teacher(given, refused, settings, parts):
    refused(lambda: planned({**given(), **settings}), *parts)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"gates": "teacher"}, ["--gates teacher", "the student has no gates"]),
        ({"layers": "none"}, ["nothing to teach", "--gates teacher or --logits 2"]),
        ({"layers": "D9"}, ["'D9'", "student"]),
        ({"layers": "G2"}, ["'G2'", "student"]),
    ],
)
def test_a_plain_student_with_a_teacher(given, refused, settings, parts):
    refused(lambda: planned(given(teacher="gated.ckpt", **settings)), *parts)


def test_a_gate_is_guided_once(given, refused):
    settings = given("gated.yaml", "gated.ckpt", gates="teacher", layers="D2,G2")
    refused(lambda: planned(settings), "attention and gates both guide", "gates.2.alpha", "once is enough")


def test_a_gate_without_a_level_to_guide_it(given, tmp_path, refused):
    checkpoint(tmp_path / "shallow.ckpt", channels=[4, 8, 16])
    settings = given("gated.yaml", "shallow.ckpt", gates="teacher", layers="none")
    refused(lambda: planned(settings), "no level 3", "G3")


def test_a_unet_does_not_learn_from_a_detector(given, tmp_path, refused):
    (tmp_path / "yolo.pt").write_bytes(b"x")
    refused(lambda: planned(given(teacher="yolo.pt")), "--teacher", "yolo.pt", "a U-Net learns from a U-Net", ".ckpt")
    refused(lambda: planned(given(teacher="nowhere.ckpt")), "--teacher", "nowhere.ckpt", "no such file")


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_checkpoint_for_other_images(given, tmp_path, refused, role):
    checkpoint(tmp_path / "volumes.ckpt", dims=3, in_channels=1)
    settings = given("volumes.ckpt") if role == "student" else given(teacher="volumes.ckpt")
    refused(lambda: planned(settings), f"--{role}", "volumes.ckpt", "3-D images of 1 channels", "2-D ones of 3")


def test_volumes_of_other_channels(tmp_path, refused):
    data = volumes(tmp_path / "data")
    for i in range(5):
        volume(tmp_path / "data" / "imagesTr" / f"v{i}.nii.gz", noise(12, 10, 8, 4).astype("float32"))
    teacher = checkpoint(tmp_path / "t.ckpt", dims=3, in_channels=1)
    settings = {"student": "unet:2", "data": str(data), "teacher": str(teacher)}
    refused(lambda: planned(settings), "--teacher", "1 channels", "3-D ones of 4")


def test_classes_that_differ(given, tmp_path, refused):
    """Scores need the same classes in the same order; where a layer looks does not depend on them."""
    checkpoint(tmp_path / "other.ckpt", names=["background", "dog"], channels=[4, 6, 8, 10])
    assert len(planned(given(teacher="other.ckpt")).pairs) == 3
    refused(lambda: planned(given(teacher="other.ckpt", logits=2)), "--logits", "dog", "cell")
    checkpoint(tmp_path / "three.ckpt", names=["background", "a", "b"])
    refused(lambda: planned(given("three.ckpt")), "--student", "knows 3 classes, the data has 2")


def test_options_are_checked(given, refused):
    refused(lambda: planned(given(), epoch=3), "epoch=", "'epochs'")
    refused(lambda: planned(given(), imgsz="16,16,16"), "imgsz=16,16,16", "2 axes")
    refused(lambda: planned(given(), amp=True), "amp=True", "GPU")
    refused(lambda: planned(given(device="77")), "--device 77", "no such device")


def test_layers_of_one_position_carry_no_attention(given, tmp_path, refused):
    (tmp_path / "deep.yaml").write_text("unet: {channels: [2, 2, 2, 2, 2]}")
    checkpoint(tmp_path / "deep.ckpt", channels=[2, 2, 2, 2, 2])
    refused(lambda: planned(given("deep.yaml", "deep.ckpt", layers="E5"), imgsz=16), "E5", "one position")


def test_batches_that_are_too_small(given, tmp_path, refused):
    (tmp_path / "deep.yaml").write_text("unet: {channels: [2, 2, 2, 2, 2]}")
    refused(lambda: planned(given("deep.yaml"), imgsz=16, batch=1), "single position", "BatchNorm", "imgsz=")
    assert planned(given("deep.yaml"), imgsz=16, batch=2) and planned(given("deep.yaml"), imgsz=32, batch=1)
    shuffled = given("gated.yaml", "gated.ckpt", gates="shuffled")
    refused(lambda: planned(shuffled, batch=1), "--gates shuffled", "another image")
    refused(lambda: planned({**shuffled, "teacher_fraction": 0.4}, batch=9), "--gates shuffled", "1 of a batch")
    assert planned({**shuffled, "teacher_fraction": 0.5}, batch=9)  # three images: two of them are compared


def test_devices():
    assert device_of("cpu").type == "cpu" and device_of(None).type in ("cpu", "cuda")
