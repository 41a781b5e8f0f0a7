"""Gates in a detector's neck: where they go, that nothing changes at first, that they stay, learn, load and export."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn import tasks

import distill
from distill.adapters.ultralytics.anatomy import build_teacher, gates_of, layers_of
from distill.adapters.ultralytics.gating import gate_neck, gate_state, top_down
from distill.adapters.ultralytics.inputs import read_checkpoint
from distill.adapters.ultralytics.plan import Plan, plan
from distill.adapters.ultralytics.students import is_pruned
from distill.adapters.ultralytics.supervision import check_shuffled
from distill.adapters.ultralytics.transfer import fixed_weights, terms_of
from distill.adapters.ultralytics.wrapper import upright
from distill.attention.layers import by_role
from distill.attention.taps import Taps
from distill.networks.neck import GatedConcat
from distill.networks.unet import UNet
from distill.settings import Settings

from .kit import Calls, refusal
from .tiny import micro, network, pairs_of, rows, same, strings_in, weights

Checkpoint = Callable[..., Path]
Train = Callable[..., distill.TrainResult]
Starts = list[dict[str, torch.Tensor]]
GATES = ("model.6", "model.9")  # of the small neck below


def neck(width: int = 1, head: tuple[str, list[Any]] = ("Detect", ["nc"])) -> dict[str, Any]:
    """Thirteen layers: the usual backbone of five, up twice past its skips (6, 9), then the head's inputs 7, 10, 11."""
    c = 8 * width
    return {
        **micro(width),
        "head": [
            [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
            [[-1, 3], 1, "Concat", [1]],
            [-1, 1, "Conv", [2 * c, 1, 1]],
            [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
            [[-1, 2], 1, "Concat", [1]],
            [-1, 1, "Conv", [2 * c, 1, 1]],
            [4, 1, "Conv", [2 * c, 1, 1]],
            [[10, 7, 11], 1, *head],
        ],
    }


def gated(model: nn.Module, moved: bool = True) -> Any:
    """The network with a gated neck; its gates, unless they have not `moved`, as they may be after some training."""
    gate_neck(model)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        for layer in gates_of(model) if moved else ():
            nn.init.uniform_(layer.gate.psi.weight, -1, 1)
            nn.init.uniform_(layer.gate.psi.bias, -1, 1)
    return model


def busy(model: nn.Module) -> Any:
    """With BatchNorm statistics as after training, so that the features do not fade on their way."""
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.rand(4, 3, 64, 64))
    return model.eval()


@pytest.fixture(scope="module")
def plain_pt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("plain") / "plain.pt"
    torch.save({"model": network(neck())}, file)
    return file


@pytest.fixture(scope="module")
def gated_pt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gated") / "gated.pt"
    torch.save({"model": gated(network(neck()))}, file)
    return file


@pytest.fixture
def planned(scenes: Path) -> Callable[..., Plan]:
    def make(student: Path | str, ours: dict[str, Any] | None = None, **arguments: Any) -> Plan:
        settings = Settings(str(student), str(scenes), **(ours or {}))
        return plan(settings, {"imgsz": 64, "device": "cpu", **arguments}, "a test")

    return make


def built(prepared: Plan, folder: Path) -> Any:
    """The student as the trainer sets it up."""
    trainer = prepared.trainer(overrides={**prepared.overrides, "save_dir": str(folder)})
    trainer.setup_model()
    return trainer.model


# ---- where gates go, and what they change


@pytest.mark.parametrize(
    ("yaml", "task", "where"),
    [
        ("yolo11n.yaml", "detect", {"G3": 15, "G4": 12}),
        ("yolo26n-seg.yaml", "segment", {"G3": 15, "G4": 12}),
        ("yolo11n-obb.yaml", "obb", {"G3": 15, "G4": 12}),
        ("yolo12n-pose.yaml", "pose", {"G3": 13, "G4": 10}),
        ("yolov8n-p2.yaml", "detect", {"G2": 17, "G3": 14, "G4": 11}),
    ],
)
def test_gates_are_found_by_structure_and_named_by_level(yaml: str, task: str, where: dict[str, int]) -> None:
    model = network(yaml, task)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    concats = {layer.i: (layer.f, layer.i) for layer in top_down(model)}
    gate_neck(model)
    found = {role: layer for role, layer in by_role(layers_of(model, 64)).items() if role.startswith("G")}
    assert {role: layer.name for role, layer in found.items()} == {r: f"model.{i}.gate.alpha" for r, i in where.items()}
    assert all(layer.stride == (2 ** int(role[1]),) * 2 and layer.channels == 1 for role, layer in found.items())
    state = model.state_dict()
    assert same({name: state[name] for name in before}, before)
    assert state.keys() - before.keys() == gate_state(model).keys()  # nothing else has another name
    for layer in gates_of(model):
        assert (layer.f, layer.i) == concats[layer.i] and "GatedConcat" in layer.type
        assert layer.np == sum(p.numel() for p in layer.parameters()) > 0


@pytest.mark.parametrize("yaml", ["yolo11n.yaml", "yolo26n.yaml"])
def test_the_network_starts_equal_to_the_plain_one_with_its_gates_alive(yaml: str) -> None:
    model = busy(network(yaml))
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        expected = model(images)[0]
        found = gated(model, moved=False)(images)[0]
    assert len(gates_of(model)) == 2
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)

    optimizer = torch.optim.SGD(model.train().parameters(), lr=1e-3)
    alive = []
    for _ in range(2):
        optimizer.zero_grad()
        outputs = model(images)
        sum(part.square().sum() for part in leaves(outputs)).backward()
        optimizer.step()
        alive.append({name for name, p in named_gates(model) if p.grad.abs().sum() > 0})
    assert alive[0] == {name for name, _ in named_gates(model) if ".psi." in name}
    assert alive[1] == {name for name, _ in named_gates(model)}


def leaves(outputs: Any) -> list[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        return [outputs] if outputs.requires_grad else []
    parts = outputs.values() if isinstance(outputs, dict) else outputs
    return [leaf for part in parts for leaf in leaves(part)]


def named_gates(model: Any) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in model.named_parameters() if ".gate." in name]


def test_gating_twice_changes_nothing_and_random_states_stay() -> None:
    model = network(neck())
    state = torch.get_rng_state()
    gate_neck(model, seed=5)
    layers, first = gates_of(model), dict(gate_state(model))
    gate_neck(model, seed=6)
    assert torch.equal(torch.get_rng_state(), state)
    assert gates_of(model) == layers and same(first, dict(gate_state(model)))
    (again, other) = (network(neck()) for _ in range(2))
    gate_neck(again, seed=5)
    gate_neck(other, seed=6)
    assert same(first, dict(gate_state(again))) and not same(first, dict(gate_state(other)))


def test_it_folds_halves_and_teaches_like_any_network() -> None:
    model = gated(busy(network(neck(2))))
    images, layers = torch.rand(2, 3, 64, 64), [*(f"{name}.gate.alpha" for name in GATES), "model.10"]
    with torch.no_grad(), Taps(model, layers) as taps:
        expected = model(images)[0]
        seen = taps.read()
    teacher = build_teacher(model, layers)
    for layer, features in teacher(images).items():
        torch.testing.assert_close(features, seen[layer], rtol=1e-3, atol=1e-4)
    assert len(teacher.module.model) == 11
    with torch.no_grad():
        folded = model.fuse(verbose=False)(images)[0]
        halved = model.half()(images.half())[0]
    torch.testing.assert_close(folded, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(halved.float(), expected, rtol=3e-2, atol=0.5)  # boxes, in pixels


@pytest.mark.parametrize(("yaml", "task"), [("rtdetr-l.yaml", "detect"), ("yolo11n-cls.yaml", "classify")])
def test_what_cannot_be_gated_is_refused(
    yaml: str, task: str, data: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = refusal(lambda: plan(Settings(yaml, str(data[task]), gated_neck=True), {"imgsz": 64}, "a test"))
    assert text.startswith(f"--student {yaml}: --gated-neck gates skips that are concatenated with up-sampled features")


# ---- gates stay when Ultralytics rebuilds a network


def test_a_plain_checkpoint_keeps_its_weights_and_names(
    planned: Callable[..., Plan], plain_pt: Path, tmp_path: Path
) -> None:
    prepared = planned(plain_pt, {"gated_neck": True})
    model = built(prepared, tmp_path / "run")
    state, given = model.state_dict(), weights(plain_pt)
    assert len(gates_of(model)) == 2 and same({name: state[name].float() for name in given}, given)
    assert all(p.requires_grad for _, p in named_gates(model))
    assert prepared.lines[0].startswith("gated neck: model.6 gates model.3, model.9 gates model.2; ")
    assert not gates_of(built(planned(plain_pt), tmp_path / "other"))


@pytest.mark.parametrize("nc", [6, 80])
def test_a_gated_checkpoint_stays_gated(nc: int, planned: Callable[..., Plan], gated_pt: Path, tmp_path: Path) -> None:
    """Without the option, its gates' weights included, with another number of classes too."""
    file = tmp_path / "gated.pt"
    torch.save({"model": gated(network(neck(), nc=nc))}, file)
    assert not is_pruned(read_checkpoint(file, "--student").module)
    prepared = planned(file)
    assert prepared.own["gated_neck"] is True
    model = built(prepared, tmp_path / "run")
    taken = {name: t for name, t in weights(file).items() if ".gate." in name}
    assert taken and same(dict(gate_state(model)), taken) and model.model[-1].nc == 6


def test_whose_weights_are_not_wanted_keeps_its_architecture(
    planned: Callable[..., Plan], gated_pt: Path, plain_pt: Path, student: Path, tmp_path: Path
) -> None:
    model = built(planned(gated_pt, pretrained=False), tmp_path / "a")
    assert gates_of(model) and not any(layer.gate.psi.weight.any() for layer in gates_of(model))
    lent = built(planned(plain_pt, {"gated_neck": True}, pretrained=str(gated_pt)), tmp_path / "b")
    assert same(dict(gate_state(lent)), {name: t for name, t in weights(gated_pt).items() if ".gate." in name})
    assert not gates_of(built(planned(plain_pt, pretrained=str(gated_pt)), tmp_path / "c"))  # it lends, no more


def test_a_pruned_network_is_gated_by_what_its_weights_are(planned: Callable[..., Plan], tmp_path: Path) -> None:
    model = network(neck())
    skip, reader, merge = model.model[3], model.model[4], model.model[7]
    kept = 9  # of the sixteen channels of the deeper skip
    for part, names in ((skip.conv, ["weight"]), (skip.bn, ["weight", "bias"])):
        for name in names:
            setattr(part, name, nn.Parameter(getattr(part, name).detach()[:kept].clone()))
    skip.bn.running_mean, skip.bn.running_var = skip.bn.running_mean[:kept], skip.bn.running_var[:kept]
    reader.conv.weight = nn.Parameter(reader.conv.weight.detach()[:, :kept].clone())
    merge.conv.weight = nn.Parameter(merge.conv.weight.detach()[:, : 32 + kept].clone())
    torch.save({"model": model}, tmp_path / "pruned.pt")
    found = built(planned(tmp_path / "pruned.pt", {"gated_neck": True}), tmp_path / "run")
    assert [layer.gate.channels for layer in gates_of(found)] == [(9, 32), (16, 16)]
    torch.save({"model": found}, tmp_path / "both.pt")
    again = built(planned(tmp_path / "both.pt"), tmp_path / "again")
    assert same(again.state_dict(), found.state_dict())


# ---- training


def test_a_gated_student_is_trained_saved_and_resumed(
    train: Train, plain_pt: Path, starts: Starts, tmp_path: Path, cut_off: Callable[..., None]
) -> None:
    cut_off(lambda: train(student=plain_pt, gated_neck=True, epochs=2, name="a"))
    folder = tmp_path / "runs" / "a"
    reached = weights(folder / "weights/last.pt")
    result = distill.resume(folder)
    assert not any(t.any() for name, t in starts[0].items() if name.endswith("psi.weight"))
    assert same({n: t for n, t in starts[0].items() if ".gate." not in n}, weights(plain_pt))
    assert same(starts[1], reached)
    ended = weights(result.best)
    assert ended.keys() == reached.keys()
    for name in GATES:
        assert ended[f"{name}.gate.psi.weight"].abs().sum() > 0
        assert not torch.equal(ended[f"{name}.gate.theta.weight"], starts[0][f"{name}.gate.theta.weight"])
    assert result.manifest["gated"] == [f"{name}.gate.alpha" for name in GATES]
    for words in ("need the package attention-distill to load", "someone else's", "export(format='onnx')"):
        assert words in str(result)


@pytest.mark.parametrize("target", ["teacher", "shuffled", "truth"])
def test_gates_are_supervised(
    target: str, train: Train, plain_pt: Path, checkpoint: Checkpoint, starts: Starts
) -> None:
    """Where the term outweighs the task by far, a few steps bring every alpha nearer to its target."""
    teacher = checkpoint(neck(2), seed=1)
    guide = {"truth": {}, "teacher": {"teacher": teacher, "layers": "none"}, "shuffled": {"teacher": teacher}}[target]
    plainly = {"optimizer": "SGD", "lr0": 0.1, "momentum": 0.0, "gates_weight": 10}
    result = train(student=plain_pt, gated_neck=True, gates=target, **guide, **plainly)
    before, after = (result.manifest[when]["attention"] for when in ("before", "after"))
    assert all(after[f"dist_{name}"] < before[f"dist_{name}"] - 0.01 for name in ("G3", "G4"))
    (row,) = rows(result.table)
    for name in ("G3", "G4"):
        assert row[f"train/at_{name}"] > 0 and -1 <= row[f"train/r_{name}"] <= 1 and row[f"train/std_{name}"] >= 0
    assert ("train/at_P3" in row) == (target == "shuffled") and "val/at_G3" not in row
    gates = result.manifest["methods"]["gates"]
    pairs = {pair["name"]: (pair["student"], pair["teacher"], pair["kind"]) for pair in gates["pairs"]}
    heads = ("", "", "gate") if target == "truth" else ("model.10", "model.7", "energy")
    assert pairs == {
        "G3": ("model.9.gate.alpha", heads[0], heads[2]),
        "G4": ("model.6.gate.alpha", heads[1], heads[2]),
    }
    assert gates["by"] == target and ("on another image" in str(result)) == (target == "shuffled")
    assert "flat" in str(result) and result.manifest["weights"]["gates"] == 10
    assert ("at_P3" in str(result), "\nteacher " in str(result)) == (target == "shuffled", target != "truth")


def test_a_gated_teachers_gates_guide_gates(planned: Callable[..., Plan], gated_pt: Path, plain_pt: Path) -> None:
    prepared = planned(plain_pt, {"gated_neck": True, "gates": "teacher", "teacher": str(gated_pt)})
    assert [(p["student"], p["teacher"], p["kind"]) for p in pairs_of(prepared.own, "gates")] == [
        (f"{name}.gate.alpha", f"{name}.gate.alpha", "gate") for name in reversed(GATES)
    ]
    assert sum("at_G3" in line for line in prepared.lines) == 1


@pytest.mark.parametrize("target", ["teacher", "shuffled", "truth"])
def test_each_target_is_its_own_and_an_audit_never_shuffles(target: str) -> None:
    pair = {"name": "G3", "student": "model.9.gate.alpha", "teacher": "model.10"}
    own = {"methods": {"gates": {"by": target, "pairs": [pair]}}, "p": 2.0}
    (term,), (audit,) = terms_of(own), terms_of(own, audit=True)
    assert term.target == target and audit.target == ("teacher" if target == "shuffled" else target)
    assert term.layers() == (("model.9.gate.alpha",), () if target == "truth" else ("model.10",))


def test_the_gates_weight_is_measured_unless_it_is_given() -> None:
    pairs = {"pairs": [{"name": "G3", "student": "model.9.gate.alpha", "teacher": "model.10"}]}
    methods = {"attention": pairs, "gates": {**pairs, "by": "teacher"}}
    own = {**Settings().as_dict(), "methods": methods, "weights": {}}
    assert fixed_weights(own) == {}
    assert fixed_weights({**own, "gates_weight": 0.7, "weight": 2.0}) == {"gates": 0.7, "attention": 2.0}
    assert fixed_weights({**own, "gates_weight": 0.7, "weights": {"gates": 0.6}}) == {"gates": 0.6}  # it goes on


def test_supervision_that_cannot_be_is_refused(
    planned: Callable[..., Plan], plain_pt: Path, gated_pt: Path, student: Path, teacher: Path
) -> None:
    guided = {"teacher": str(teacher), "gates": "teacher"}
    unguided = {"teacher": str(teacher), "layers": ("none",), "response": ()}
    assert "the student has no gates" in refusal(lambda: planned(plain_pt, guided))
    assert "without --teacher" in refusal(lambda: planned(gated_pt, {"gates": "shuffled"}))
    assert "leaves the teacher nothing to teach" in refusal(lambda: planned(plain_pt, unguided))
    kept = {**unguided, "gated_neck": True, "gates": "teacher", "heatmaps": ("1",)}
    assert "--layers none pairs none" in refusal(lambda: planned(plain_pt, kept))
    assert "--logits is for U-Nets" in refusal(lambda: planned(plain_pt, {"logits": 2.0}))
    both = {"teacher": str(gated_pt), "gates": "teacher", "layers": ("G3",)}
    assert "both guide the student's model.9.gate.alpha" in refusal(lambda: planned(gated_pt, both))
    assert pairs_of(planned(gated_pt, {**both, "gates": "none"}).own)[0]["kind"] == "gate"


@pytest.mark.parametrize(
    ("images", "batch", "fraction", "fits"),
    [(8, 4, 1.0, True), (9, 4, 1.0, False), (8, 4, 0.3, False), (8, 1, 1.0, False), (3, 16, 1.0, True)],
)
def test_no_image_is_shuffled_with_itself(images: int, batch: int, fraction: float, fits: bool) -> None:
    loader = SimpleNamespace(dataset=range(images), batch_size=batch)
    own = {"gates": "shuffled", "teacher_fraction": fraction}
    trainer = SimpleNamespace(own=own, world_size=1, train_loader=loader)
    if fits:
        check_shuffled(trainer)
    else:
        assert "leave one alone" in refusal(lambda: check_shuffled(trainer))


def test_turned_boxes_become_the_upright_ones_around_them() -> None:
    boxes = torch.tensor([[0.5, 0.4, 0.3, 0.1, 0.6], [0.3, 0.6, 0.2, 0.2, 0.0], [0.5, 0.5, 0.1, 0.4, 1.4]])
    height, width = 96, 160
    for box, found in zip(boxes, upright(boxes, (height, width))):
        x, y, w, h, angle = box.tolist()
        turned = ((x * width, y * height), (w * width, h * height), np.rad2deg(angle))
        corners = cv2.boxPoints(turned) / (width, height)
        low, high = corners.min(0), corners.max(0)
        np.testing.assert_allclose(found, [*(low + high) / 2, *(high - low)], atol=1e-5)


# ---- loading and exporting


def test_the_restricted_loader_admits_gates_and_nothing_else_of_ours(gated_pt: Path, tmp_path: Path) -> None:
    assert len(gates_of(read_checkpoint(gated_pt, "--student").module)) == 2
    assert gates_of(tasks.torch_safe_load(gated_pt, safe_only=True)[0]["model"])
    model = network(neck())
    model.extra = UNet(1, 2, (4, 8))
    torch.save({"model": model}, tmp_path / "other.pt")
    assert "names distill.networks.unet.UNet" in refusal(lambda: read_checkpoint(tmp_path / "other.pt", "--student"))
    torch.save({"model": Calls(GatedConcat, 4, 4)}, tmp_path / "built.pt")
    text = refusal(lambda: read_checkpoint(tmp_path / "built.pt", "--student"))
    assert "constructs distill.networks.neck.GatedConcat" in text


def test_ultralytics_loads_it_where_distill_is_installed(gated_pt: Path) -> None:
    model = YOLO(gated_pt)
    assert len(gates_of(model.model)) == 2
    assert model.predict(np.zeros((64, 64, 3), np.uint8), imgsz=64, verbose=False)
    ours = {text for text in strings_in(gated_pt) if text.startswith("distill.")}
    assert ours == {"distill.attention.gates AttentionGate", "distill.networks.neck GatedConcat", *types(model.model)}


def types(model: Any) -> set[str]:
    return {layer.type for layer in gates_of(model)}


def test_where_distill_is_missing_ultralytics_would_install_somebody_elses(
    gated_pt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This is what the summary of a run and the documentation warn of; if it should change, so should they."""

    class Missing:
        def find_spec(self, name: str, *_: Any) -> None:
            if name.partition(".")[0] == "distill":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    asked: list[str] = []
    monkeypatch.setattr(tasks, "check_requirements", asked.append)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    for name in [name for name in sys.modules if name.partition(".")[0] == "distill"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError, match="distill"):
        tasks.torch_safe_load(gated_pt, safe_only=False)
    assert asked == ["distill"]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_onnx_gives_what_torch_gives(gated_pt: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    file = tmp_path / "gated.pt"
    model = gated(busy(network(neck())))
    torch.save({"model": model}, file)
    exported = YOLO(file).export(format="onnx", imgsz=64, simplify=False, dynamic=True, verbose=False)
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    for size in ((64, 64), (96, 64)):
        images = torch.rand(1, 3, *size)
        with torch.no_grad():
            expected = model(images)[0].numpy()
        for layer in gates_of(model):
            assert layer.gate.unity < 1  # or else this would be a plain network
        (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-2)  # boxes, in pixels
    assert "Sigmoid" in {node.op_type for node in sys.modules["onnx"].load(exported).graph.node}
