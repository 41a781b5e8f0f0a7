"""A student that starts as a part of its teacher computes what that part computes, in every family."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import yaml_model_load

import distill
from distill.adapters.ultralytics import inheriting, trainers
from distill.adapters.ultralytics.anatomy import gates_of
from distill.adapters.ultralytics.gating import gate_neck
from distill.adapters.ultralytics.inheriting import Inherited, inherit
from distill.adapters.ultralytics.plan import plan
from distill.adapters.ultralytics.worth import channels_in, values_of
from distill.config import settings_from
from distill.jobs.checks import doctor
from distill.networks.selection import select

from .kit import refusal
from .tiny import PICO, RTDETR, micro, network, pairs_of, rows, same, weights

FAMILIES = ("yolov8", "yolo11", "yolo12", "yolo26")
TASKS = [
    ("yolo11", "seg"),
    ("yolo26", "seg"),
    ("yolo26", "pose"),
    ("yolo11", "obb"),
    ("yolo26", "sem"),
    ("yolo11", "cls"),
]
NAMES = {"seg": "segment", "pose": "pose", "obb": "obb", "sem": "semantic", "cls": "classify"}

Train = Callable[..., distill.TrainResult]


def lively(yaml: str | dict[str, Any], task: str = "detect", seed: int = 1, nc: int = 6) -> Any:
    """A network whose BatchNorms are not as they are drawn, so that nothing is alike by chance."""
    model = network(yaml, task, nc=nc, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 2),
                (module.bias, -0.5, 1),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2),
            ):
                tensor.data.uniform_(low, high, generator=draw)
    return model


def kept(student: Any, teacher: Any, seed: int = 0) -> dict[tuple[str, int], Tensor]:
    """Where the student's channels lie if what the teacher's are worth were drawn."""
    theirs = channels_in(teacher)
    value = torch.rand(theirs.count, generator=torch.Generator().manual_seed(seed))
    return select(channels_in(student), theirs, inheriting.shared_tensors(student, teacher), value)


def outputs(model: Any, size: int = 96) -> list[Tensor]:
    """What the head gives before it is decoded, its branches for training too, with BatchNorms as in use."""
    for module in model.modules():
        module.training = not isinstance(module, nn.BatchNorm2d)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return list(tensors(model(images)))


def tensors(found: Any) -> Iterator[Tensor]:
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, dict):
        for key, value in found.items():
            if key != "feats":
                yield from tensors(value)
    else:
        for value in found:
            yield from tensors(value)


# ---- what is computed


def check_part(large: str, task: str, small: str) -> None:
    """Of each group of the teacher's channels only as many write anything as the student has; it has to find them."""
    teacher, student = lively(large, task), network(small, task)
    places, readers = kept(student, teacher), channels_in(teacher).readers
    assert sum(place.tolist() != list(range(len(place))) for place in places.values()) > len(places) / 2
    with torch.no_grad():
        for name, tensor in teacher.state_dict().items():
            for axis in (0, 1):
                if (name, axis) in places and (name, axis) not in readers and "running" not in name:
                    silent = torch.ones(tensor.shape[axis], dtype=torch.bool)
                    silent[places[name, axis]] = False
                    tensor.movedim(axis, 0)[silent] = 0
    told = inherit(student, teacher, teacher.names)
    assert (told.taken, told.left, told.spread) == (told.tensors, (), ()) and told.share == 1
    found, expected = outputs(student), outputs(teacher)
    assert len(found) == len(expected) > 0
    for mine, its in zip(found, expected):
        torch.testing.assert_close(mine, its, rtol=0, atol=1e-4)
        assert its.std(dim=-1).max() > 1e-2  # more than 100 times the tolerance


@pytest.mark.parametrize("family", FAMILIES)
def test_a_part_computes_what_the_whole_does_if_the_rest_is_silent(family: str) -> None:
    check_part(f"{family}s.yaml", "detect", f"{family}n.yaml")


@pytest.mark.slow
def test_so_it_does_for_a_student_of_half_the_smallest_size() -> None:
    check_part("yolo11n.yaml", "detect", PICO)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "task"), TASKS)
def test_so_it_does_for_other_tasks(family: str, task: str) -> None:
    check_part(f"{family}s-{task}.yaml", NAMES[task], f"{family}n-{task}.yaml")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_of_the_teachers_size_becomes_the_teacher(family: str) -> None:
    student, teacher = network(f"{family}n.yaml", seed=2), lively(f"{family}n.yaml")
    told = inherit(student, teacher, teacher.names)
    assert same(student.state_dict(), teacher.state_dict())
    assert told == Inherited(len(teacher.state_dict()), len(teacher.state_dict()), 1.0, (), ())
    assert str(told).endswith(" tensors (100.0% of parameters), 0 left as drawn")


@pytest.mark.slow
@pytest.mark.parametrize("pair", ["n<m", "s<m", "s<l", "n<x"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_pair_of_sizes_fits(family: str, pair: str) -> None:
    """Blocks that are of another kind in larger networks stay as drawn, with their BatchNorms."""
    small, large = pair.split("<")
    student, teacher = network(f"{family}{small}.yaml"), lively(f"{family}{large}.yaml")
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    told = inherit(student, teacher, teacher.names)
    assert told.share > 0.85 and told.spread == ()
    for left in told.left:
        assert all(torch.equal(t, before[name]) for name, t in student.state_dict().items() if name.startswith(left))
    assert all(tensor.isfinite().all() for tensor in outputs(student, 64))


def test_deeper_blocks_give_their_first() -> None:
    """Without a choice of channels: the same widths, twice the depth."""
    wide = {"depth_multiple": 1.0, "width_multiple": 0.25}
    deep = {"depth_multiple": 2.0, "width_multiple": 0.25}
    yaml = {key: value for key, value in yaml_model_load("yolov8n.yaml").items() if "scale" not in key}
    student, teacher = network({**yaml, **wide}), lively({**yaml, **deep})
    assert inherit(student, teacher, teacher.names).left == ()
    state, source = student.state_dict(), teacher.state_dict()
    assert torch.equal(state["model.2.m.0.cv1.conv.weight"], source["model.2.m.0.cv1.conv.weight"])
    narrow, full = state["model.2.cv2.conv.weight"], source["model.2.cv2.conv.weight"]
    assert full.shape[1] > narrow.shape[1] and torch.equal(narrow, full[:, : narrow.shape[1]])


def test_the_same_every_time_and_nothing_drawn() -> None:
    teacher, students = lively(micro(4)), [network(micro(), seed=seed) for seed in (1, 2)]
    state = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    for student in students:
        inherit(student, teacher, teacher.names)
    assert same(students[0].state_dict(), students[1].state_dict())
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == state[1:]
    assert teacher.training and all(module.training for module in teacher.modules())


# ---- which channels


def worthy(teacher: Any, channels: Any) -> torch.Tensor:
    carried, read = values_of(teacher, channels)
    return carried * read


def test_a_channel_that_is_scaled_and_read_as_much_less_is_worth_the_same() -> None:
    teacher = lively(micro(2))
    before = worthy(teacher, channels := channels_in(teacher))
    with torch.no_grad():
        teacher.model[0].act = nn.Identity()  # which scales along
        linear = worthy(teacher, channels)
        teacher.model[0].bn.weight[3] *= 8
        teacher.model[0].bn.bias[3] *= 8
        teacher.model[1].conv.weight[:, 3] /= 8
    torch.testing.assert_close(worthy(teacher, channels), linear)
    assert not torch.equal(before, linear)


def test_a_channel_that_its_activation_shuts_is_worth_nothing() -> None:
    """Large factors of a BatchNorm notwithstanding."""
    teacher = lively(micro(2))
    with torch.no_grad():
        teacher.model[0].bn.weight[3] = 4
        teacher.model[0].bn.bias[3] = -40
    found = channels_in(teacher)
    value = worthy(teacher, found)[found.classes(("model.0.conv.weight", 0))]
    assert value[3] < 1e-9 < value.median()


# ---- classes


@pytest.mark.parametrize("yaml", ["yolo11n.yaml", "yolo26n.yaml"])
def test_rows_of_classes_follow_their_names(yaml: str) -> None:
    student, teacher = network(yaml, nc=3), lively(yaml, nc=6)
    names = {0: "new", 1: teacher.names[4], 2: teacher.names[0]}
    before = student.state_dict()["model.23.cv3.0.2.weight"].clone()
    told = inherit(student, teacher, names)
    for part in ("cv3", "one2one_cv3")[: 1 + ("26" in yaml)]:
        for kind in ("weight", "bias"):
            mine, its = (m.state_dict()[f"model.23.{part}.0.2.{kind}"] for m in (student, teacher))
            assert torch.equal(mine[1:], its[[4, 0]]) and not torch.equal(mine[0], its[0])
    assert torch.equal(student.state_dict()["model.23.cv3.0.2.weight"][0], before[0])
    assert told.left == () and told.share < 1


def test_classes_that_the_teacher_does_not_know_stay_as_drawn() -> None:
    student, teacher = network("yolov8n.yaml"), lively("yolov8s.yaml")
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    told = inherit(student, teacher, {i: f"other {i}" for i in range(6)})
    assert told.left == tuple(f"model.22.cv3.{level}.2" for level in range(3))
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items() if ".cv3.0.2" in name)
    assert "6 left as drawn (model.22.cv3.0.2, model.22.cv3.1.2, model.22.cv3.2.2)" in str(told)


def test_one_class_each_is_the_same_class_whatever_its_name() -> None:
    student, teacher = network("yolov8n.yaml", nc=1), lively("yolov8s.yaml", nc=1)
    assert inherit(student, teacher, {0: "item"}).left == ()
    mine, its = (model.state_dict()["model.22.cv3.0.2.bias"] for model in (student, teacher))
    assert torch.equal(mine, its)


def test_gates_of_a_neck_stay_as_drawn_or_come_from_the_teachers() -> None:
    student, teacher = network("yolo11n.yaml"), lively("yolo11s.yaml")
    gate_neck(student)
    assert inherit(student, teacher, teacher.names).left == tuple(f"model.{layer.i}" for layer in gates_of(student))
    gate_neck(teacher)
    assert inherit(student, teacher, teacher.names).left == ()


def test_a_teacher_that_has_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inheriting, "shared_tensors", lambda *_: set())
    text = refusal(lambda: inherit(network(micro()), network(micro(2)), {}))
    assert text == "nothing in this teacher fits the student"


# ---- in a run


@pytest.fixture
def big(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("big") / "big.pt"
    torch.save({"model": lively(micro(2))}, file)
    return file


def expected(teacher: Path) -> dict[str, Tensor]:
    """The student's first state."""
    student, model = network(micro()), torch.load(teacher, weights_only=False)["model"]
    assert inherit(student, model, model.names).left == ()
    state: dict[str, Tensor] = student.state_dict()
    return state


def test_a_run_starts_there_says_so_and_sees_what_any_run_does(
    train: Train,
    big: Path,
    starts: list[dict[str, Tensor]],
    on: Callable[[str, Callable[[Any], None]], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    chance: list[Any] = []
    on("on_train_start", lambda _: chance.append((torch.get_rng_state().tolist(), random.getstate())))
    plain = train(teacher=big)
    assert plain.manifest["initialised"] is None and "initialised" not in caplog.text
    result = train(teacher=big, init="teacher")
    assert chance[0] == chance[1]
    assert same(starts[1], expected(big)) and not same(starts[0], starts[1])
    total = len(starts[1])
    assert (
        f"initialised from teacher: {total} of {total} tensors (100.0% of parameters), 0 left as drawn" in caplog.text
    )
    found = result.manifest["initialised"]
    assert found == {"taken": total, "tensors": total, "share": 1.0, "left": [], "spread": []}
    assert not same(weights(result.last), starts[1])
    assert rows(result.table)[0]["train/at_loss"] > 0


def test_a_resumed_run_goes_on_with_its_own_weights(
    train: Train,
    big: Path,
    tmp_path: Path,
    cut_off: Callable[[Callable[[], Any]], None],
    starts: list[dict[str, Tensor]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut_off(lambda: train(teacher=big, init="teacher", epochs=2, name="a"))
    folder = tmp_path / "runs" / "a"
    last = weights(folder / "weights" / "last.pt")
    monkeypatch.setattr(trainers, "inherit", lambda *_: pytest.fail("initialised again"))
    result = distill.resume(folder)
    assert len(starts) == 2 and not same(starts[1], expected(big))
    assert same({name: tensor.float() for name, tensor in starts[1].items()}, last)
    assert result.manifest["initialised"]["share"] == 1.0 and len(rows(result.table)) == 2


def test_a_teacher_that_only_gives_the_first_weights(train: Train, big: Path, starts: list[dict[str, Tensor]]) -> None:
    result = train(teacher=big, init="teacher", layers="none")
    assert same(starts[0], expected(big))
    assert not [column for column in rows(result.table)[0] if "at_" in column]
    assert result.manifest["teacher"]["file"] == str(big) and pairs_of(result.manifest) == []
    assert "student after" in str(result)


def test_nobody_has_to_ask_for_it(
    train: Train, big: Path, teacher: Path, starts: list[dict[str, Tensor]], caplog: pytest.LogCaptureFixture
) -> None:
    result = train(teacher=big, init="auto")
    assert not same(starts[0], expected(big)) and result.manifest["initialised"]["start"] == "fitted"
    assert "to be fitted to the teacher: " in caplog.text
    result = train(teacher=teacher, init="none")
    assert result.manifest["initialised"] is None


@pytest.fixture
def auto(scenes: Path, student: Path) -> Callable[..., tuple[str, tuple[str, ...]]]:
    """What the default comes to, and what is told of it."""

    def call(arguments: dict[str, Any] | None = None, **settings: Any) -> tuple[str, tuple[str, ...]]:
        values = {"student": student, "data": scenes, **settings}
        given = {key: str(value) for key, value in values.items()}
        made = plan(settings_from(given), {"imgsz": 64, **(arguments or {})}, "the command")
        return made.own["init"], tuple(line for line in made.lines if "drawn" in line or "initialised" in line)

    return call


def test_where_the_default_draws_weights(
    auto: Callable[..., tuple[str, tuple[str, ...]]], big: Path, checkpoint: Callable[..., Path]
) -> None:
    assert auto(teacher=big)[0] == auto(teacher=big, layers="none", response="none")[0] == "fit"
    assert auto() == ("none", ())
    given = checkpoint(micro(), name="given")
    assert auto(teacher=big, student=given) == ("best", ())  # it has weights of its own: a race tells
    assert auto({"pretrained": str(given)}, teacher=big) == ("best", ())
    assert auto(teacher=checkpoint("yolov8s.yaml"), student=checkpoint("yolo11n.yaml")) == ("none", ())
    assert auto(teacher=given) == ("none", ())  # as large as the student: a copy would have nothing to learn
    assert auto(teacher=checkpoint("yolo11n.yaml", nc=80), student="yolo11n.yaml") == (
        "none",
        (),
    )  # but for the classes
    init, (line,) = auto(teacher=checkpoint("yolov8s.yaml"), student="yolo11n.yaml")
    assert init == "none"
    assert line.startswith("first weights: drawn from the seed (yolov8s.pt: of another family than the student: ")


def test_doctor_says_so_too(
    student: Path, scenes: Path, big: Path, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"student": str(student), "data": str(scenes), "teacher": str(big), "init": "teacher", **tiny}
    assert all(check.ok for check in doctor(**given))
    assert "initialised from teacher: " in capsys.readouterr().out
    assert doctor(**given, layers="none", response="none") == ()


# ---- what is refused


@pytest.fixture
def refused(scenes: Path, student: Path) -> Callable[..., str]:
    def call(arguments: dict[str, Any] | None = None, **settings: Any) -> str:
        values = {"student": student, "data": scenes, "init": "teacher", **settings}
        given = {key: str(value) if value is not None else None for key, value in values.items()}
        return refusal(lambda: plan(settings_from(given), {"imgsz": 64, **(arguments or {})}, "the command"))

    return call


def test_what_has_no_teacher_or_has_weights_already(
    refused: Callable[..., str], teacher: Path, checkpoint: Callable[..., Path]
) -> None:
    assert refused() == "--init teacher without --teacher: name the network that the student is to be a part of"
    given = checkpoint(micro(), name="given")
    assert "has weights of its own: give its .yaml instead" in refused(teacher=teacher, student=given)
    text = refused({"pretrained": str(given)}, teacher=teacher)
    assert text == "--init teacher and pretrained= both bring the student's first weights: leave one out"


def test_what_is_no_larger_network_of_the_same_form(
    refused: Callable[..., str], checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    family = refused(teacher=checkpoint("yolov8n.yaml"), student="yolo11n.yaml")
    assert (
        family
        == ("--init teacher: yolov8n.pt: of another family than the student: layer 2 is C2f of -1, not C3k2 of -1")
        or "of another family than the student: layer" in family
    )
    head = refused(teacher=checkpoint("yolo26n.yaml"), student="yolo11n.yaml")
    assert "it ends in Detect of 1 bins, end-to-end, the student in Detect of 16 bins: take a teacher with" in head
    assert "it ends in Segment" in refused(teacher=checkpoint("yolo11n-seg.yaml", "segment"), student="yolo11n.yaml")
    assert "RT-DETR" in refused(teacher=checkpoint(micro(head=RTDETR), "rtdetr"))
    smaller = refused(teacher=checkpoint("yolo11n.yaml"), student="yolo11s.yaml")
    assert smaller == (
        "--init teacher: model.0.conv.weight: the student's has 32 channels, the teacher's 16: "
        "only a smaller student inherits"
    )
    folded = tmp_path_factory.mktemp("folded") / "folded.pt"
    torch.save({"model": network(micro(2)).fuse(verbose=False)}, folded)
    assert "BatchNorms are folded" in refused(teacher=folded)


def test_native_distillation_may_begin_as_a_part_of_the_teacher(train: Train, big: Path) -> None:
    """The comparison that a gain by initialisation needs."""
    runs = [train(teacher=big, init="teacher", layers="none", **more) for more in ({}, {"distill_model": str(big)})]
    assert runs[0].manifest["start"] == runs[1].manifest["start"]
    assert not same(weights(runs[0].last), weights(runs[1].last))
    with pytest.raises(distill.InputError, match="both name a teacher"):
        train(teacher=big, init="teacher", distill_model=str(big))
