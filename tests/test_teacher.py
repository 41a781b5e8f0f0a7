"""The teacher stays what it is: frozen, in eval, unmoved, in float32 unless something cheaper gives the same maps."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from distill.errors import SilentTapError
from distill.teacher import Teacher, freeze_report


class Toy(nn.Module):
    """Two convolutions of stride 2, and a buffer that no checkpoint keeps."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.neck = nn.Conv2d(8, 8, 3, 2, 1)
        self.idle = nn.Conv2d(8, 8, 1)
        self.register_buffer("shift", torch.tensor(0.123456789), persistent=False)

    def forward(self, x):
        return self.neck(self.stem(x) + self.shift)


class Cancelling(nn.Module):
    """1000 F - (1000 F - F / 100): bfloat16, of 8 bits, keeps nothing of the difference."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        f = self.conv(x)
        return f * 1000 - (f * 1000 - f / 100)


class Breaking(nn.Module):
    """Not finite in bfloat16."""

    def forward(self, x):
        return x if x.dtype == torch.float32 else x * float("nan")


class Tipping(nn.Module):
    """In bfloat16 the first `count` images' maps are turned upside down."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def forward(self, x):
        return x if x.dtype == torch.float32 else torch.cat([x[: self.count].flip(2, 3), x[self.count :]])


class Refusing(nn.Module):
    """Has no bfloat16 kernel."""

    def forward(self, x):
        if x.dtype == torch.bfloat16:
            raise RuntimeError("not implemented for 'BFloat16'")
        return x


@pytest.fixture
def toy():
    torch.manual_seed(0)
    return Toy().train()


IMAGES = torch.rand(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))


def snapshot(module):
    return {name: t.detach().clone() for name, t in [*module.named_parameters(), *module.named_buffers()]}


def same(module, before):
    return all(torch.equal(t, before[name]) for name, t in snapshot(module).items())


def test_features_come_by_name_in_float32_without_gradients(toy):
    teacher = Teacher(toy, ["neck", "stem"])
    features = teacher(IMAGES)
    assert list(features) == ["neck", "stem"] and features["neck"].shape == (2, 8, 16, 8)
    assert torch.allclose(features["stem"], toy.stem(IMAGES), atol=1e-6)
    for f in features.values():
        assert f.dtype == torch.float32 and not f.requires_grad and not f.is_inference()
    student = torch.rand(2, 8, 16, 8, requires_grad=True)
    (student * features["neck"]).sum().backward()  # an inference tensor could not be saved for backward
    assert student.grad.any()


def test_it_is_frozen_in_eval_and_does_not_move(toy):
    before = snapshot(toy)
    teacher = Teacher(toy, ["neck"])
    for _ in range(2):
        teacher(IMAGES)
    assert same(toy, before)  # BatchNorm's statistics and its count of batches too
    assert not any(m.training for m in toy.modules()) and not any(p.requires_grad for p in toy.parameters())
    assert not any(m._forward_hooks for m in toy.modules())
    assert toy.neck.weight.is_contiguous(memory_format=torch.channels_last)
    assert freeze_report(toy, toy.state_dict()) == []


def test_each_broken_promise_is_reported_by_name(toy):
    teacher = Teacher(toy, ["neck"])
    before = {name: t.clone() for name, t in toy.state_dict().items()}
    toy.stem[1].train()
    assert freeze_report(toy, before) == ["'stem.1' is in train mode"]
    teacher(IMAGES + 1)
    assert freeze_report(toy, before) == ["'stem.1' is in train mode", "'stem.1.running_mean' moved"]
    toy.stem[1].eval()
    toy.neck.bias.requires_grad_()
    toy.load_state_dict(before)
    assert freeze_report(toy, before) == ["'neck.bias' is trainable"]
    toy.train()
    assert freeze_report(toy, before)[0] == "'the network' is in train mode"


def test_hooks_are_gone_when_the_forward_fails_and_silence_is_an_error(toy):
    teacher = Teacher(toy, ["neck"])
    with pytest.raises(RuntimeError):
        teacher(torch.rand(1, 5, 32, 32))
    assert not any(m._forward_hooks for m in toy.modules())
    with pytest.raises(SilentTapError, match=r"'idle' \(Conv2d\)"):
        Teacher(toy, ["idle"])(IMAGES)


def test_a_forward_of_one_s_own_is_used(toy):
    teacher = Teacher(toy, ["stem"], run=lambda network, images: network.stem(images))
    assert teacher(IMAGES)["stem"].shape == (2, 8, 32, 16)


@pytest.mark.parametrize(
    ("given", "size", "stride", "fitted"),
    [
        ((64, 32), None, 32, (64, 32)),  # nothing to do
        ((64, 32), 128, 32, (128, 64)),  # the longer side; the aspect is kept
        ((96, 192), 96, 32, (64, 96)),  # 48 is no multiple of 32
        ((64, 96), 64, 32, (32, 64)),  # 42.7
        ((100, 64), 100, 32, (96, 64)),
        ((100, 64), None, 32, (128, 64)),  # brought to multiples also when no size is asked for
        ((96, 96), None, 64, (128, 128)),  # a P6 teacher at 96 px
        ((96, 64), 16, 64, (64, 64)),  # never below one stride
        ((50, 30), None, 1, (50, 30)),  # takes any size
    ],
)
def test_images_are_brought_to_the_teacher_s_size_and_stride(toy, given, size, stride, fitted):
    seen = []
    teacher = Teacher(toy, ["stem"], lambda net, x: seen.append(x) or net.stem(x), size, stride)
    images = torch.rand(1, 3, *given, generator=torch.Generator().manual_seed(0))
    teacher(images)
    assert tuple(seen[0].shape[2:]) == fitted
    assert torch.equal(seen[0], images) == (given == fitted)
    inside = seen[0] if size else seen[0][:, :, : given[0], : given[1]]
    assert inside.mean().item() == pytest.approx(images.mean().item(), abs=0.02) and seen[0].max() <= 1
    assert size or torch.equal(inside, images)


@pytest.mark.parametrize("given", [(96, 160), (64, 96), (100, 64)])
def test_a_teacher_of_a_larger_stride_tells_the_cells_that_its_student_has(toy, given):
    """Of the border no cell is told, and away from it each cell is what it is without one."""
    images = torch.rand(1, 3, *given)
    layers = ["stem", "neck"]
    plain, larger = Teacher(toy, layers, stride=1)(images), Teacher(toy, layers, stride=64)(images)
    for layer in layers:
        assert larger[layer].shape == plain[layer].shape
        assert torch.allclose(larger[layer][..., :-3, :-3], plain[layer][..., :-3, :-3], atol=1e-6)


def test_an_outer_autocast_or_half_precision_images_do_not_lower_it(toy):
    teacher = Teacher(toy, ["neck"])
    plain = teacher(IMAGES)["neck"]
    with torch.autocast("cpu", torch.bfloat16):
        assert toy.neck(toy.stem(IMAGES)).dtype == torch.bfloat16  # the autocast is on
        inside = teacher(IMAGES)["neck"]
    assert inside.dtype == torch.float32 and torch.equal(inside, plain)
    rounded = teacher(IMAGES.half())["neck"]
    assert rounded.dtype == torch.float32 and torch.equal(rounded, teacher(IMAGES.half().float())["neck"])


def test_use_switches_the_precision_and_back(toy):
    teacher = Teacher(toy, ["neck"])
    plain = teacher(IMAGES)["neck"]
    teacher.use("bfloat16")
    low = teacher(IMAGES)["neck"]
    assert teacher.precision == "bfloat16" and low.dtype == toy.neck.weight.dtype == torch.bfloat16
    assert 0 < (low.float() - plain).abs().max() < 0.05
    with torch.autocast("cpu", torch.float16):
        assert torch.equal(teacher(IMAGES)["neck"], low)
    teacher.use("float32")
    again = teacher(IMAGES)["neck"]
    assert teacher.precision == "float32" and again.dtype == torch.float32 and torch.allclose(again, plain, atol=0.05)
    with pytest.raises(ValueError, match="float16"):
        teacher.use("float16")


def clock(module, bfloat16):
    """Stands in for the clock: a forward takes 2 s in float32 and `bfloat16` seconds in bfloat16 on any machine."""
    now = [0.0]

    def tick():
        now[0] += 2.0 if next(module.parameters()).dtype == torch.float32 else bfloat16
        return now[0]

    return tick


@pytest.mark.parametrize("network", [Cancelling, Breaking, Refusing])
def test_float32_is_kept_where_bfloat16_gives_other_maps(network, toy, monkeypatch):
    """In the second of two layers; the weights come back bit for bit, buffers that are in no state dict too."""
    model = nn.Sequential(toy, nn.Conv2d(8, 3, 1), network())
    monkeypatch.setattr("distill.teacher.time.perf_counter", clock(model, bfloat16=1.0))
    before = snapshot(model)
    teacher = Teacher(model, ["0.neck", "2"])
    plain = teacher(IMAGES)["2"]
    found = teacher.choose_precision(IMAGES, repeats=1)
    assert teacher.precision == "float32" and not found["cosine"] >= 0.999
    assert same(model, before) and all(t.dtype == torch.float32 for t in model.parameters())
    assert torch.equal(teacher(IMAGES)["2"], plain)


@pytest.mark.parametrize(("count", "precision"), [(1, "bfloat16"), (2, "float32")])
def test_a_single_image_that_rounding_tips_does_not_decide(toy, monkeypatch, count, precision):
    model = nn.Sequential(toy, Tipping(count))
    monkeypatch.setattr("distill.teacher.time.perf_counter", clock(model, bfloat16=1.0))
    teacher = Teacher(model, ["0.neck", "1"])
    teacher.choose_precision(torch.rand(3, 3, 64, 32, generator=torch.Generator().manual_seed(0)), repeats=1)
    assert teacher.precision == precision


def test_a_copy_of_what_holds_the_teacher_shares_it(toy):
    teacher = Teacher(toy, ["neck"])
    assert deepcopy({"teacher": teacher})["teacher"] is teacher


@pytest.mark.parametrize("faster", [True, False])
def test_bfloat16_is_taken_where_the_maps_agree_and_it_is_faster(toy, monkeypatch, faster):
    before = snapshot(toy)
    teacher = Teacher(toy, ["stem", "neck"])
    monkeypatch.setattr("distill.teacher.time.perf_counter", clock(toy, bfloat16=1.0 if faster else 3.0))
    found = teacher.choose_precision(IMAGES, repeats=1)
    assert found["cosine"] > 0.999 and (found["bfloat16"] < found["float32"]) == faster
    assert teacher.precision == ("bfloat16" if faster else "float32") and same(toy, before) == (not faster)
