"""What a run may transfer beside attention, where that counts, and how its weights go: from options to results.csv."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import distributed as dist
from ultralytics.nn import tasks
from ultralytics.utils import DEFAULT_CFG_DICT, YAML, IterableSimpleNamespace
from ultralytics.utils.torch_utils import unwrap_model

import distill
from distill import InputError
from distill.adapters.ultralytics.anatomy import build_teacher
from distill.adapters.ultralytics.heads import as_pairs, bins_of, output_pairs, outputs_of
from distill.adapters.ultralytics.pairing import Seen, digest_of_weights
from distill.adapters.ultralytics.plan import plan
from distill.adapters.ultralytics.session import teacher_of
from distill.adapters.ultralytics.transfer import distiller_of, follower_of, schedule_of, shares_of, terms_of
from distill.adapters.ultralytics.wrapper import as_batch, over_ranks
from distill.attention.taps import Taps
from distill.config import settings_from
from distill.records import read_manifest
from distill.terms.dense import Shared
from distill.weighting import Follower, measure

from .tiny import RTDETR, halved, micro, network, rows, same, weights

Train = Callable[..., distill.TrainResult]
Checkpoint = Callable[..., Path]


# ---- where a head predicts


@pytest.mark.parametrize("family", ["yolov8n", "yolo11n", "yolo12n", "yolov9t", "yolo26n", "yolov10n"])
def test_the_outputs_of_a_head_are_what_its_loss_reads(family: str) -> None:
    """Level by level, the modules named give what the head concatenates into its raw predictions."""
    model = tasks.DetectionModel(f"{family}.yaml", nc=5, verbose=False).train()
    head = model.model[-1]
    found = outputs_of(model)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad(), Taps(model, [name for o in found for name in (o.classes, o.boxes)]) as taps:
        raw = model(images)
        seen = taps.read()
    branches = {"": raw.get("one2many", raw), "one2one_": raw.get("one2one")}
    assert {o.branch for o in found} == {"", *(["one2one_"] if "one2one" in raw else [])}
    for branch, expected in branches.items():
        if expected is None:
            continue
        levels = [o for o in found if o.branch == branch]
        assert [o.level for o in levels] == [3, 4, 5]
        for what, key, channels in (("classes", "scores", 5), ("boxes", "boxes", 4 * bins_of(model))):
            mine = torch.cat([seen[getattr(o, what)].flatten(2) for o in levels], 2)
            assert mine.shape[1] == channels and torch.equal(mine, expected[key])
    assert bins_of(model) == head.reg_max


def test_a_head_without_cells_has_no_outputs_and_cannot_be_followed(checkpoint: Checkpoint) -> None:
    assert outputs_of(network(micro(head=RTDETR), "rtdetr")) == []
    with pytest.raises(InputError, match="the teacher's head has none"):
        output_pairs(network(micro()), network(micro(head=RTDETR), "rtdetr"))


def test_a_branch_follows_its_like_and_one_answer_for_each_object_never_many() -> None:
    student, teacher = (tasks.DetectionModel(f"{name}.yaml", nc=5, verbose=False) for name in ("yolo26n", "yolo11n"))
    names = {pair.student: pair.teacher for pair in as_pairs(output_pairs(student, teacher), "classes")}
    assert len(names) == 3 and {name.split(".")[2] for name in (*names, *names.values())} == {"cv3"}
    back = {pair.student: pair.teacher for pair in as_pairs(output_pairs(teacher, student), "classes")}
    assert len(back) == 3 and {name.split(".")[2] for name in back.values()} == {"cv3"}
    own = {pair.name: pair.teacher.split(".")[2] for pair in as_pairs(output_pairs(student, student), "boxes")}
    assert own == {**dict.fromkeys("345", "cv2"), **dict.fromkeys(("3o", "4o", "5o"), "one2one_cv2")}


@pytest.mark.parametrize("family", ["yolo11n", "yolo26n"])
def test_a_teacher_runs_its_head_only_where_it_is_read_and_gives_what_the_whole_network_gives(family: str) -> None:
    model = tasks.DetectionModel(f"{family}.yaml", nc=5, verbose=False).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.normal_(module.running_mean)
    outputs = outputs_of(model)
    layers = ["model.16", *(o.classes for o in outputs), *(o.classes for o in outputs), outputs[0].boxes]
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad(), Taps(model, list(dict.fromkeys(layers))) as taps:
        model(images)
        expected = taps.read()
    teacher = build_teacher(model, layers)
    ran: list[str] = []
    for name, module in teacher.module.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    found = teacher(images)
    assert set(found) == set(expected)
    for layer, features in found.items():
        assert torch.allclose(features, expected[layer], rtol=1e-3, atol=1e-4), layer
    last = len(model.model) - 1
    inside = [name for name in ran if name.startswith(f"model.{last}.") and name.count(".") == 3]
    assert sorted(inside) == sorted({layer for layer in layers if layer.startswith(f"model.{last}.")})
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in teacher.module.model[:last].modules())  # folded


# ---- runs


def test_everything_at_once_is_in_the_log_and_in_the_gradient(train: Train, teacher: Path) -> None:
    result = train(
        teacher=teacher,
        response="bce,boxes",
        focus="teacher",
        schedule="cosine",
        warmup=0.5,
        stop_with_mosaic=True,
        epochs=3,
        close_mosaic=1,
    )
    table = rows(result.table)
    assert len(table) == 3
    for column in ("train/at_cls", "train/at_box", "train/at_P3"):
        values = [float(row[column]) for row in table]
        assert values[0] > 0 and values[1] > 0 and values[2] == 0, column
    assert all(0 <= float(row["train/agree_cls"]) <= 1 and 0 <= float(row["train/iou_box"]) <= 1 for row in table)
    assert {"train/weight_attention", "train/weight_classes", "train/weight_boxes"} <= set(table[0])
    manifest = read_manifest(result.folder)
    assert set(manifest["weights"]) == {"attention", "classes", "boxes"}
    checks = " ".join(manifest["checks"])
    assert "class scores" in checks and "boxes" in checks and "FAIL" not in checks
    assert not any(c.startswith("val/at") for c in table[0])
    plain = train()
    assert not same(weights(result.last), weights(plain.last))


def test_a_teacher_of_a_larger_stride_is_compared_cell_by_cell_on_images_of_any_shape(
    train: Train, checkpoint: Checkpoint, scenes: Path, tmp_path: Path
) -> None:
    """P6 networks take multiples of 64 pixels; with `rect`, and in validation, sides are multiples of 32."""
    data = halved(scenes, tmp_path / "halved")
    result = train(teacher=checkpoint("yolov8n-p6.yaml"), data=data, response="auto", imgsz=192, rect=True)
    assert result.manifest["teacher"] and result.manifest["methods"]["response"]["branches"]
    row = rows(result.table)[0]
    assert row["train/at_cls"] > 0 and row["train/at_box"] > 0 and row["train/at_P3"] > 0


ALONE = [  # options, and what they are compared with
    ({"response": "bce", "layers": "none"}, {"teacher": None}),
    ({"response": "kl", "temperature": 2.0}, {"response": "kl"}),
    ({"response": "cwd,boxes"}, {"response": "cwd"}),
    ({"response": "pkd"}, {}),
    ({"form": "pearson"}, {}),
    ({"focus": "boxes"}, {}),
    ({"shuffled": True}, {}),
]


@pytest.mark.parametrize(("options", "without"), ALONE, ids=["-".join(options) for options, _ in ALONE])
def test_each_option_alone_changes_the_student(
    train: Train, teacher: Path, options: dict[str, Any], without: dict[str, Any]
) -> None:
    runs = [train(**{"teacher": teacher, "epochs": 2, **more}) for more in (options, without)]
    assert not same(*(weights(run.last) for run in runs))


def test_a_student_without_distributions_follows_boxes(train: Train, teacher: Path, checkpoint: Checkpoint) -> None:
    content = {**micro(), "reg_max": 1}
    result = train(teacher=teacher, student=checkpoint(content, name="single"), response="boxes", layers="none")
    assert result.manifest["methods"]["response"]["bins"] == [1, 16]
    assert float(rows(result.table)[0]["train/at_box"]) > 0


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({"stop_with_mosaic": True}, {"epochs": 2, "close_mosaic": 2}, "leave none of 2 epochs"),
        ({"warmup": 20}, {"epochs": 10}, "leave none of 10 epochs"),
        ({"stop_with_mosaic": True}, {"close_mosaic": 0}, "no effect"),
        ({"stop_with_mosaic": True}, {"mosaic": 0.0}, "no effect"),
        ({"stop_with_mosaic": True}, {"rect": True}, "no effect"),
        ({"schedule": "cosine"}, {"time": 1.0}, "leaves open how many epochs"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_before_anything_is_written(
    scenes: Path, student: Path, teacher: Path, options: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    given = {"student": str(student), "data": str(scenes), "teacher": str(teacher), **options}
    with pytest.raises(InputError, match=message):
        plan(settings_from(given), {"imgsz": 64, **arguments}, "")


def test_without_a_known_end_distillation_has_none() -> None:
    """With `time=` Ultralytics estimates the number of epochs anew after each."""
    assert schedule_of({}, {"epochs": 100, "time": 0.5, "close_mosaic": 10, "mosaic": 1.0})(1e6) == 1.0
    assert schedule_of({}, {"epochs": 100, "time": None, "close_mosaic": 10, "mosaic": 1.0})(1e6) == 1.0


def test_classes_are_numbered_by_their_numbers_in_whatever_order_a_yaml_lists_them(
    scenes: Path, student: Path, teacher: Path, tmp_path: Path
) -> None:
    content = YAML.load(scenes)
    folder = scenes.parent
    turned = {number: content["names"][number] for number in sorted(content["names"], reverse=True)}
    paths = {part: str(folder / content[part]) for part in ("train", "val")}
    (file := tmp_path / "turned.yaml").write_text(
        yaml.safe_dump({**content, **paths, "names": turned}, sort_keys=False)
    )
    assert list(YAML.load(file)["names"]) == list(turned)
    given = {"student": str(student), "teacher": str(teacher), "response": "bce"}
    shared = [
        plan(settings_from({**given, "data": str(data)}), {"imgsz": 64}, "").own["methods"]["response"]["shared"]
        for data in (scenes, file)
    ]
    assert shared[0] == shared[1] == [list(range(6)), list(range(6))]


def test_classes_that_are_not_trained_are_not_taught(scenes: Path, student: Path, teacher: Path) -> None:
    """Ultralytics drops the labels of all but `classes=`: the rest is background to the task."""
    given = settings_from({"student": str(student), "teacher": str(teacher), "data": str(scenes)})
    for asked in ([4, 1], 1):
        own = plan(given, {"imgsz": 64, "classes": asked}, "").own
        kept = sorted(asked) if isinstance(asked, list) else [asked]
        assert own["methods"]["response"]["shared"] == [kept, kept]
        *_, classes, boxes = terms_of(own)
        assert classes.shared.student == boxes.known == tuple(kept)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"none of the classes .* \(classes=\) is known to the teacher"):
        Shared((0, 1), (2, 3)).only([5])


@pytest.mark.parametrize("family", ["yolo26n", "yolov10n"])
def test_each_branch_of_an_end_to_end_head_is_weighed_where_its_own_task_has_a_gradient(
    scenes: Path, checkpoint: Checkpoint, family: str
) -> None:
    """The branch that answers once for each object lets no gradient out to what the head reads."""
    both = [str(checkpoint(f"{family}.yaml", name=who, seed=seed)) for seed, who in enumerate("st")]
    own = plan(settings_from({"student": both[0], "teacher": both[1], "data": str(scenes)}), {"imgsz": 64}, "").own
    terms = {term.name: term for term in terms_of({**own, "methods": {"response": own["methods"]["response"]}})}
    assert list(terms) == ["classes", "boxes", "classes_one", "boxes_one"]
    assert terms["boxes"].at == terms["classes"].at and not any("one2one" in name for name in terms["boxes"].at)
    assert terms["boxes_one"].at == terms["classes_one"].at and all("one2one" in n for n in terms["boxes_one"].at)
    assert not {pair.name for pair in terms["boxes"].pairs} & {pair.name for pair in terms["boxes_one"].pairs}
    model = network(f"{family}.yaml").train()
    model.args = IterableSimpleNamespace(**DEFAULT_CFG_DICT)
    boxes, image = torch.tensor([[0.5, 0.5, 0.5, 0.5]] * 2), torch.arange(2.0)
    batch = {"img": torch.rand(2, 3, 64, 64), "cls": image[:, None], "bboxes": boxes, "batch_idx": image}
    distiller = distiller_of(own, teacher_of(own))
    distiller.weights = dict.fromkeys((term.name for term in distiller.terms), 1.0)

    def wanted(many: float, one: float) -> dict[str, float]:
        model.criterion = model.init_criterion()
        model.criterion.o2m, model.criterion.o2o = many, one
        with distiller.watch(model, as_batch(batch)) as step:
            task = model(batch)[0].sum()
        return Follower(distiller, shares_of(own), distiller.weights).wanted(measure(task, step, distiller))

    first, last = wanted(0.8, 0.2), wanted(0.1, 0.9)  # Ultralytics' gains in the first and the last epoch
    assert {name: last[name] / first[name] for name in terms} == pytest.approx(
        {"classes": 0.125, "boxes": 0.125, "classes_one": 4.5, "boxes_one": 4.5}, rel=1e-3
    )


def test_turned_boxes_are_compared_by_distributions_or_not_at_all(
    data: dict[str, Path], checkpoint: Checkpoint
) -> None:
    head = ("OBB", ["nc", 1])
    for bins, fine in ((16, True), (1, False)):
        content = {**micro(head=head), "reg_max": bins}
        both = [str(checkpoint(content, "obb", name=f"{who}{bins}", seed=seed)) for seed, who in enumerate("st")]
        given = {"student": both[0], "teacher": both[1], "data": str(data["obb"]), "response": "boxes"}
        if fine:
            assert plan(settings_from(given), {"imgsz": 64}, "").own["methods"]["response"]["bins"] == [16, 16]
        else:
            with pytest.raises(InputError, match="none alike"):
                plan(settings_from(given), {"imgsz": 64}, "")


def test_by_default_the_outputs_are_transferred_as_far_as_both_heads_have_them(
    scenes: Path, student: Path, teacher: Path, checkpoint: Callable[..., Path], data: dict[str, Path]
) -> None:
    def told(arguments: dict[str, Any] | None = None, **given: Any) -> tuple[list[str], str]:
        values = {"student": str(student), "data": str(scenes), "teacher": str(teacher), **given}
        made = plan(settings_from(values), {"imgsz": 64, **(arguments or {})}, "")
        left_out = [line.partition(":")[0] for line in made.lines if "left out" in line]
        return made.own["methods"].get("response", {}).get("losses", []), " ".join(left_out)

    assert told() == told(response="auto") == (["bce", "boxes"], "")
    assert told(response="none") == told(response=()) == told(teacher=None) == ([], "")
    transformer = checkpoint(micro(head=RTDETR), "rtdetr")
    assert told(teacher=str(transformer)) == ([], "outputs of the heads are left out")
    obb = {**micro(head=("OBB", ["nc", 1])), "reg_max": 1}
    both = [str(checkpoint(obb, "obb", name=f"{who}1", seed=seed)) for seed, who in enumerate("st")]
    assert told(student=both[0], teacher=both[1], data=str(data["obb"])) == (["bce"], "boxes of the heads are left out")
    assert told(teacher_imgsz=96) == ([], "outputs of the heads are left out")
    several, one = {"single_cls": True}, checkpoint(micro(2), nc=1)  # a class "item" is none of the teacher's six
    assert told(several) == ([], "outputs of the heads are left out")
    assert told(several, teacher=str(one)) == (["bce", "boxes"], "")


ONLY_FIRST = {"init": "teacher", "layers": "none", "response": "none", "teacher": True}
IDLE = [
    ({"focus": "boxes"}, "--focus has no effect with no --teacher"),
    ({"response": "bce"}, "--response has no effect with no --teacher"),
    ({"shuffled": True}, "--shuffled has no effect with no --teacher"),
    ({"schedule": "cosine"}, "--schedule has no effect with no --teacher"),
    ({"warmup": 1}, "--warmup has no effect with no --teacher"),
    ({"hold": True}, "--hold has no effect with no --teacher"),
    ({"stop_with_mosaic": True}, "--stop-with-mosaic has no effect with no --teacher"),
    ({"teacher_fraction": 0.5}, "--teacher-fraction has no effect with no --teacher"),
    ({"teacher_imgsz": 64}, "--teacher-imgsz has no effect with no --teacher"),
    ({"schedule": "cosine", **ONLY_FIRST}, "only gives the first weights"),
    ({"hold": True, "weight": 2, "response": "none", "teacher": True}, "all weights are fixed"),
    ({"floor": 0.5, "teacher": True}, "without --schedule cosine"),
    ({"focus": "boxes", "layers": "none", "response": "bce", "teacher": True}, "with --layers none it has no effect"),
    ({"form": "mean", "layers": "none", "response": "bce", "teacher": True}, "with --layers none it has no effect"),
    ({"share": 0.9, "layers": "none", "response": "bce", "teacher": True}, "share=0.9: with --layers none it has no"),
    ({"p": 4, "layers": "none", "response": "bce", "teacher": True}, "p=4.0: with --layers none it has no effect"),
    ({"response_share": 0.5, "response": "none", "teacher": True}, "without --response, or beside"),
    ({"response_share": 0.5, "response": "bce", "response_weight": 1, "teacher": True}, "beside --response-weight"),
    ({"shuffled": True, "gates": "shuffled", "teacher": True}, "twice would be the true teacher"),
    ({"response": "bce", "teacher_imgsz": 64, "teacher": True}, "leave out --teacher-imgsz"),
    ({"response_share": 0.5, "teacher_imgsz": 96, "teacher": True}, "no effect: outputs of the heads are left out: "),
    ({"temperature": 3, "response": "bce", "teacher": True}, "it softens"),
    ({"response": "bce,kl", "teacher": True}, "one of bce"),
    ({"response_weight": 1, "response": "none", "teacher": True}, "without --response"),
]


@pytest.mark.parametrize(("options", "message"), IDLE, ids=[message for _, message in IDLE])
def test_an_option_without_effect_is_refused(
    scenes: Path, student: Path, teacher: Path, options: dict[str, Any], message: str
) -> None:
    given = {**options, "teacher": str(teacher)} if options.get("teacher") else options
    with pytest.raises(InputError, match=message):
        plan(settings_from({"student": str(student), "data": str(scenes), **given}), {"imgsz": 64}, "")


# ---- weights that follow


def test_weights_are_followed_held_or_fixed_and_resumed(
    train: Train, teacher: Path, monkeypatch: pytest.MonkeyPatch, cut_off: Callable[..., None], tmp_path: Path
) -> None:
    monkeypatch.setattr("distill.weighting.EVERY", 1)
    result = train(teacher=teacher, epochs=3)
    column = [float(row["train/weight_attention"]) for row in rows(result.table)]
    first = read_manifest(result.folder)["weights"]["attention"]
    last = read_manifest(result.folder)["weights_at_end"]["attention"]
    assert len({first, *column}) == 4 and column[-1] == pytest.approx(last, rel=1e-4)

    for options in ({"hold": True}, {"weight": 2.0}):
        held = train(teacher=teacher, epochs=2, **options)
        values = {float(row["train/weight_attention"]) for row in rows(held.table)}
        assert len(values) == 1
        assert values.pop() == pytest.approx(read_manifest(held.folder)["weights"]["attention"], rel=1e-4)

    cut_off(lambda: train(teacher=teacher, epochs=3, name="cut"))
    folder = tmp_path / "runs" / "cut"
    saved = torch.load(folder / "weights" / "last.pt", weights_only=False)["train_args"]["distill"]
    assert saved["weights"] != saved["first_weights"] == read_manifest(folder)["weights"]
    begun: list[dict[str, float]] = []
    monkeypatch.setattr(
        "distill.adapters.ultralytics.trainers.follower_of",
        lambda own, distiller: begun.append(dict(distiller.weights)) or follower_of(own, distiller),
    )
    resumed = distill.resume(folder)
    assert begun == [saved["weights"]]
    again = [float(row["train/weight_attention"]) for row in rows(resumed.table)]
    assert again[0] == pytest.approx(column[0], rel=1e-6) and len(set(again)) == 3
    assert all(first / 4 <= value <= first * 4 for value in again)


def test_over_ranks_weights_are_the_geometric_mean_of_those_that_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert over_ranks({"attention": 3.0}) == {"attention": 3.0}

    def gather(found: list[Any], mine: dict[str, float]) -> None:
        found[:] = [mine, {"attention": 8.0}]

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_gather_object", gather)
    assert over_ranks({"attention": 2.0, "boxes": 5.0}) == pytest.approx({"attention": 4.0, "boxes": 5.0})


def test_a_compiled_student_keeps_its_weights(train: Train, teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.weighting.EVERY", 1)
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **_: original(model, backend="eager"))
    result = train(teacher=teacher, epochs=2, compile=True)
    manifest = read_manifest(result.folder)
    assert manifest["weights"] == manifest["weights_at_end"]


# ---- paired runs


def test_arms_of_a_seed_begin_and_see_the_same(train: Train, teacher: Path) -> None:
    arms: list[dict[str, Any]] = [
        {},
        {"distill_model": str(teacher)},
        {"teacher": teacher},
        {"teacher": teacher, "response": "bce,boxes", "focus": "boxes", "schedule": "cosine", "warmup": 0.5},
    ]
    starts = [read_manifest(train(epochs=2, close_mosaic=1, **arm).folder)["start"] for arm in arms]
    assert all(start == starts[0] for start in starts) and len(set(starts[0]["data"])) == 2
    other = read_manifest(train(epochs=2, close_mosaic=1, seed=1).folder)["start"]
    assert other["weights"] != starts[0]["weights"] and other["data"] != starts[0]["data"]


def test_the_digests_see_one_weight_one_pixel_and_the_order() -> None:
    model = network(micro())
    before = digest_of_weights(model)
    assert before == digest_of_weights(unwrap_model(model))
    with torch.no_grad():
        model.model[0].conv.weight[0, 0, 0, 0] += 1e-3
    assert digest_of_weights(model) != before

    def digest(*batches: dict[str, Any]) -> str:
        seen = Seen()
        for batch in batches:
            seen.add(batch)
        return seen.close()

    a, b = ({"im_file": [n], "img": torch.full((1, 3, 8, 8), v, dtype=torch.uint8)} for n, v in (("a", 1), ("b", 2)))
    brighter = {**a, "img": a["img"] + 1}
    assert digest(a, b) == digest(a, b) and len({digest(a, b), digest(b, a), digest(brighter, b)}) == 3
