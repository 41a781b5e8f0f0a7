"""U-Nets trained for real, on a handful of small images: what a run leaves, how it goes on, what it refuses."""

import csv
import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import distill
from distill.adapters.segment import runs
from distill.adapters.segment.networks import read_checkpoint
from distill.cli import main
from distill.errors import InputError, Interrupted, ProofFailed, TrainingFailed
from distill.jobs.summary import TrainResult

SMALL = {"batch": 4, "imgsz": 16, "workers": 0, "device": "cpu"}
TINY = "unet: {{channels: [{0}, {1}, {2}], gated: {gated}}}"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Bright squares on noise: 12 and 4 pictures of 20x28 pixels with masks."""
    root = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            mask = np.zeros((20, 28), np.uint8)
            y, x = rng.integers(0, 12), rng.integers(0, 20)
            mask[y : y + 8, x : x + 8] = 1
            image = (rng.uniform(0, 90, (20, 28, 3)) + 120 * mask[..., None]).astype(np.uint8)
            Image.fromarray(image).save(root / "images" / split / f"{i}.png")
            Image.fromarray(mask).save(root / "masks" / split / f"{i}.png")
    file = root / "data.yaml"
    file.write_text("train: images/train\nval: images/val\nnames: [background, square]\n")
    return str(file)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Descriptions of small networks, by name."""
    folder = tmp_path_factory.mktemp("networks")
    widths = {"wide": (8, 16, 32), "thin": (4, 8, 12)}
    for name, channels in widths.items():
        (folder / f"{name}.yaml").write_text(TINY.format(*channels, gated="false"))
        (folder / f"gated-{name}.yaml").write_text(TINY.format(*channels, gated="true"))
    return lambda name: str(folder / f"{name}.yaml")


@pytest.fixture(scope="module")
def teacher(data, network, tmp_path_factory):
    project = str(tmp_path_factory.mktemp("teacher"))
    return distill.train(student=network("gated-wide"), data=data, project=project, epochs=6, lr0=0.01, **SMALL)


def rows(result):
    return list(csv.DictReader(result.table.open()))


def weights(file):
    return torch.load(file, map_location="cpu", weights_only=True)["state_dict"]


# ---- a plain run


def test_a_run_learns_and_leaves_plain_files(teacher):
    assert [row["epoch"] for row in rows(teacher)] == [str(n) for n in range(1, 7)]
    first, last = rows(teacher)[0], rows(teacher)[-1]
    assert float(last["train/task"]) < float(first["train/task"])
    assert 0.5 < teacher.score <= 1 and teacher.score == teacher.metrics["dice"]
    assert {"dice", "iou", "precision", "recall", "hd95", "asd", "dice/square"} <= set(teacher.metrics)
    best = torch.load(teacher.best, weights_only=True)
    assert set(best) == {"state_dict", "distill"} and not any(
        name.startswith("network.") for name in best["state_dict"]
    )
    assert best["distill"]["network"]["channels"] == [8, 16, 32] and best["distill"]["names"] == [
        "background",
        "square",
    ]
    assert max(float(row["val/dice"]) for row in rows(teacher)) == pytest.approx(teacher.score, abs=1e-6)
    cases = list(csv.DictReader((teacher.folder / "cases.csv").open()))
    assert len(cases) == 4 and np.mean([float(case["dice/square"]) for case in cases]) == pytest.approx(teacher.score)
    assert "dice" in str(teacher) and str(teacher.best) in str(teacher)


def test_best_loads_into_a_network_of_its_own_description(teacher):
    trained = read_checkpoint(teacher.best, "--student")
    assert not trained.module.training and trained.crop == (16, 16)
    x = torch.randn(1, 3, 33, 20)
    assert trained.module(x).shape == (1, 2, 33, 20)
    own = distill.UNet(**trained.network).eval()
    assert not torch.equal(trained.module(x), own(x))
    own.load_state_dict(weights(teacher.best))
    assert torch.equal(trained.module(x), own(x))


def test_last_goes_on_as_a_student_too(teacher, data, tmp_path):
    """From a full checkpoint as from a stripped one; it starts where the other ended."""
    again = distill.train(student=str(teacher.last), data=data, project=str(tmp_path), epochs=1, lr0=1e-9, **SMALL)
    assert again.score == pytest.approx(float(rows(teacher)[-1]["val/dice"]), abs=0.1)


def test_a_score_that_does_not_exist_is_not_told(teacher, tmp_path):
    """No validation image has any foreground, and none was found: the mean Dice is of nothing."""
    manifest = json.loads((teacher.folder / "manifest.json").read_text())
    manifest["after"]["metrics"]["dice"] = None
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    result = TrainResult.read(tmp_path)
    assert np.isnan(result.score) and "not known" in str(result)


# ---- the life cycle


@contextmanager
def stopping(monkeypatch, epoch, error):
    """Training stops, as by Ctrl-C or a kill, when this epoch (from 0) begins."""
    start = runs.Segmentation.on_train_epoch_start

    def stop(self):
        if self.current_epoch == epoch:
            raise error
        start(self)

    with monkeypatch.context() as patch:
        patch.setattr(runs.Segmentation, "on_train_epoch_start", stop)
        yield


def test_a_resumed_run_equals_an_unbroken_one(data, network, teacher, tmp_path, monkeypatch):
    setting = {"student": network("gated-thin"), "data": data, "teacher": str(teacher.best)}
    setting |= {"gates": "shuffled", "logits": 2}
    whole = distill.train(**setting, project=str(tmp_path), name="whole", epochs=3, **SMALL)
    with stopping(monkeypatch, 2, KeyboardInterrupt()), pytest.raises(Interrupted, match=r"train --resume .*broken"):
        distill.train(**setting, project=str(tmp_path), name="broken", epochs=3, **SMALL)
    resumed = distill.resume(tmp_path / "broken")
    assert [row["epoch"] for row in rows(resumed)] == ["1", "2", "3"]
    for a, b in zip(rows(whole), rows(resumed)):
        assert {k: v for k, v in a.items() if k != "seconds"} == {k: v for k, v in b.items() if k != "seconds"}
    for name, tensor in weights(whole.last).items():
        assert torch.equal(tensor, weights(resumed.last)[name]), name
    with pytest.raises(InputError, match="finished"):
        distill.resume(tmp_path / "broken")


def test_stopped_before_the_first_epoch_nothing_is_left(data, network, tmp_path, monkeypatch):
    with stopping(monkeypatch, 0, KeyboardInterrupt()), pytest.raises(Interrupted, match="nothing was kept"):
        distill.train(student=network("thin"), data=data, project=str(tmp_path / "p"), epochs=1, **SMALL)
    assert list((tmp_path / "p").iterdir()) == []


def test_a_loss_that_is_not_finite_is_an_error(data, network, tmp_path):
    with pytest.raises(TrainingFailed, match=r"the loss is nan in epoch \d: try a smaller lr0"):
        distill.train(student=network("thin"), data=data, project=str(tmp_path), epochs=9, lr0=1e30, **SMALL)


def test_weight_zero_trains_as_without_a_teacher(data, network, teacher, tmp_path):
    common = dict(student=network("thin"), data=data, project=str(tmp_path), epochs=2, **SMALL)
    plain = distill.train(**common, name="plain")
    idle = distill.train(**common, name="idle", teacher=str(teacher.best), weight=0)
    taught = distill.train(**common, name="taught", teacher=str(teacher.best), weight=3)
    assert all(torch.equal(tensor, weights(idle.best)[name]) for name, tensor in weights(plain.best).items())
    assert not all(torch.equal(tensor, weights(taught.best)[name]) for name, tensor in weights(plain.best).items())


# ---- distillation


def test_energy_gates_and_logits_move_towards_the_teacher(data, network, teacher, tmp_path):
    setting = dict(data=data, project=str(tmp_path), epochs=6, lr0=0.01, gates="teacher", gates_weight=2.0, **SMALL)
    result = distill.train(
        **setting, student=network("gated-thin"), teacher=str(teacher.best), layers="E*,D*", logits=3, share=1.0
    )
    before, after = result.manifest["before"]["attention"], result.manifest["after"]["attention"]
    assert set(result.cosines) == {"E1", "E2", "E3", "D1", "D2"}
    assert np.mean(list(result.cosines.values())) > np.mean(list(result.cosines_before.values()))
    assert after["r_G2"] > before["r_G2"] and after["dist_G2"] < before["dist_G2"]
    assert after["dist_logits"] < before["dist_logits"]
    assert {"train/at_E1", "train/at_D1", "train/at_G2", "train/at_logits", "train/r_G2"} <= set(rows(result)[0])
    assert set(result.manifest["weights"]) == {"attention", "gates", "logits"}
    assert "teacher" in str(result) and "at_D1" in str(result)


@pytest.mark.parametrize("gates", ["truth", "shuffled"])
def test_the_controls_train(gates, data, network, teacher, tmp_path):
    guide = {} if gates == "truth" else {"teacher": str(teacher.best), "layers": "none"}
    common = dict(data=data, project=str(tmp_path), epochs=1, gates=gates, **SMALL)
    result = distill.train(**common, student=network("gated-thin"), **guide)
    assert set(result.manifest["weights"]) == {"gates"} and "train/at_G2" in rows(result)[0]


def test_doctor_trains_nothing_and_names_a_teacher_that_cannot_teach(data, network, teacher, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checks = distill.doctor(
        student=network("gated-thin"), data=data, teacher=str(teacher.best), gates="teacher", **SMALL
    )
    assert all(check.ok for check in checks) and list(tmp_path.iterdir()) == []
    blind = torch.load(teacher.best, weights_only=True)
    for name, tensor in blind["state_dict"].items():
        if name == "gates.2.psi.weight":
            tensor.zero_()
    torch.save(blind, tmp_path / "blind.ckpt")
    given = {"student": network("gated-thin"), "data": data, "gates": "teacher"}
    given["teacher"] = str(tmp_path / "blind.ckpt")
    assert [c.detail for c in distill.doctor(**given, **SMALL) if not c.ok] == [
        "what it is to follow is the same everywhere: there is nothing to learn: leave it out with --gate-layers"
    ]
    with pytest.raises(ProofFailed, match="pair G2"):
        distill.train(**given, project=str(tmp_path / "p"), epochs=1, **SMALL)
    assert list((tmp_path / "p").iterdir()) == []


# ---- what a run refuses, by the command


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mosaic=1"], "mosaic=: a U-Net takes epochs, batch"),
        (["--gated-neck"], "--gated-neck is for detectors"),
        (["--gates", "truth"], "the student has no gates: take --student attention-unet"),
        (["--logits", "2"], "--logits has no effect with no --teacher"),
        (["amp=True"], "amp=True needs a GPU"),
        (["imgsz=8,8,8"], "the data has 2 axes"),
        (["--device", "17"], "this machine has no such device"),
    ],
)
def test_bad_input_is_one_line(words, message, data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    device = [] if "--device" in words else ["--device", "cpu"]
    assert main(["train", "--student", "unet:4", "--data", data, "epochs=1", *device, *words]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error and list(tmp_path.iterdir()) == []


def test_a_named_folder_is_not_overwritten(teacher, data, network):
    with pytest.raises(InputError, match="exists: take another name"):
        distill.train(
            student=network("thin"), data=data, project=str(teacher.folder.parent), name=teacher.folder.name, **SMALL
        )


def test_the_record_says_what_made_it(teacher):
    manifest = json.loads((teacher.folder / "manifest.json").read_text())
    assert manifest["finished"] and manifest["task"] == "unet" and {"monai", "lightning"} <= set(manifest["versions"])
    assert yaml.safe_load((teacher.folder / "distill.yaml").read_text())["arguments"]["epochs"] == 6
    assert Path(manifest["after"]["checkpoint"]) == teacher.best


# ---- resuming, elsewhere and of what is damaged


@pytest.fixture
def broken(data, teacher, network, tmp_path, monkeypatch):
    """A run of three epochs, stopped in the third, whose files were given by relative paths."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "thin.yaml").write_text(Path(network("thin")).read_text())
    (tmp_path / "big.ckpt").write_bytes(teacher.best.read_bytes())
    with stopping(monkeypatch, 2, KeyboardInterrupt()), pytest.raises(Interrupted):
        distill.train(student="thin.yaml", teacher="big.ckpt", data=data, project="p", name="r", epochs=3, **SMALL)
    return tmp_path / "p" / "r"


def test_a_run_goes_on_from_another_folder(broken, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(rows(distill.resume("../p/r"))) == 3


def test_a_run_that_was_moved_keeps_its_best(broken, tmp_path):
    """What was best before is not replaced by the first epoch that follows."""
    moved = broken.rename(tmp_path / "moved")
    last = torch.load(moved / "weights" / "last.ckpt", weights_only=True)
    for state in last["callbacks"].values():
        if "best_model_score" in state:
            state["best_model_score"] = torch.tensor(2.0)  # out of reach
            state["best_k_models"] = {path: torch.tensor(2.0) for path in state["best_k_models"]}
    torch.save(last, moved / "weights" / "last.ckpt")
    before = read_checkpoint(moved / "weights" / "best.ckpt", "--student").about["epoch"]
    assert distill.resume(moved).manifest["after"]["epoch"] == before < 3


def test_a_damaged_checkpoint_is_named(broken, capsys):
    last = broken / "weights" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:2000])
    assert main(["train", "--resume", str(broken)]) == 2
    error = capsys.readouterr().err.strip()
    assert "last.ckpt is damaged" in error and "\n" not in error and last.exists()


def test_names_with_commas_stay_in_their_column(tmp_path):
    given = [{"file": 'a "b", c.png', "dice/white matter, left": 0.5, "iou": float("nan")}]
    runs.write_cases(tmp_path / "cases.csv", given)
    (row,) = csv.DictReader((tmp_path / "cases.csv").open(encoding="utf-8"))
    assert row == {"file": 'a "b", c.png', "dice/white matter, left": "0.5", "iou": ""}


def test_doctor_checks_gates_that_follow_the_labels_without_a_teacher(data, network):
    checks = distill.doctor(student=network("gated-thin"), data=data, gates="truth", **SMALL)
    assert all(check.ok for check in checks) and {"pair G2", "weight of gates"} <= {check.name for check in checks}
