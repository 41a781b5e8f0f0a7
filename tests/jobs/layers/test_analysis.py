"""What an analysis finds on tiny networks, and what it refuses; the command line has tests of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from distill.errors import InputError
from distill.jobs.layers.analysis import Analysis, analyse
from distill.jobs.layers.measures import minibatches

from ...adapters.conftest import checkpoint, scenes, student, teacher  # noqa: F401
from ...adapters.tiny import PICO, RTDETR, micro


@pytest.fixture(scope="module")
def found(scenes: Path, student: Path, teacher: Path) -> Analysis:  # noqa: F811
    return analyse(str(teacher), str(student), str(scenes), imgsz=64, split="train", max_images=8, batch=4)


def names(layers) -> list[str]:
    return [layer.name for layer in layers]


def test_layers_and_what_they_cost(found: Analysis):
    big, small = found.networks
    assert (big.key, big.trained, small.key, small.trained) == ("teacher", True, "student", False)
    assert names(row.info for row in small.layers) == [f"model.{i}" for i in range(8)]  # 8 is the head
    assert big.parameters > 1.5 * small.parameters > 0
    for network in found.networks:
        shares = [row.share for row in network.layers]
        assert all(share > 0 for share in shares) and 0.2 < sum(shares) < 1  # the head takes the rest
        reach = [row.reach for row in network.layers]
        assert reach == sorted(reach) and reach[-1] == pytest.approx(sum(shares))
        assert sum(row.seconds for row in network.layers) == pytest.approx(sum(shares) * network.seconds)
    assert [row.info.roles for row in small.layers][2:] == [("B3",), ("B4",), ("B5",), ("P3",), ("P4",), ("P5",)]


def test_matrices_are_teacher_by_student(found: Analysis):
    compared = found.compared
    assert names(compared.teacher) == names(compared.student) == [f"model.{i}" for i in range(8)]
    assert compared.likeness.cka.shape == (8, 8) and torch.isfinite(compared.likeness.cosine).all()
    assert len(compared.images) == 8 and len(set(compared.images)) == 8
    assert all(pair.cost < 1 for pair in compared.candidates)
    assert any("the student is untrained" in note for note in found.notes)


def test_a_network_with_itself(scenes: Path, teacher: Path):  # noqa: F811
    same = analyse(
        str(teacher), str(teacher), str(scenes), imgsz=64, split="train", max_images=8, layers=["P3", "3", "4:2"]
    )
    compared = same.compared
    assert (names(compared.teacher), names(compared.student)) == (
        ["model.2", "model.3", "model.5"],
        ["model.3", "model.4", "model.5"],
    )
    likeness = compared.likeness
    for row, column in ((1, 0), (2, 2)):
        assert likeness.cka[row, column].item() == pytest.approx(1)
        assert likeness.cosine[row, column].item() == pytest.approx(1)
    assert likeness.cka[0, 0] < 0.9999 and not same.notes[0].startswith("the student")
    assert all(pair.student != pair.teacher for pair in compared.suggested)  # what is equal has nothing to learn


def test_the_seed_decides_on_everything_drawn(found: Analysis, scenes: Path, student: Path, teacher: Path):  # noqa: F811
    again, other = (
        analyse(str(teacher), str(student), str(scenes), imgsz=64, split="train", max_images=8, batch=4, seed=seed)
        for seed in (0, 1)
    )
    assert torch.equal(again.compared.likeness.cka, found.compared.likeness.cka)
    assert again.compared.images == found.compared.images
    assert not torch.allclose(other.compared.likeness.cosine, found.compared.likeness.cosine)


def test_the_random_generators_are_left_alone(student: Path):  # noqa: F811
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    analyse(student=str(student), imgsz=64)
    assert torch.equal(torch.rand(1), expected)


def test_layers_inside_others(student: Path):  # noqa: F811
    (network,) = analyse(student=student, imgsz=64, depth="all").networks  # a Path will do
    rows = {row.info.name: row for row in network.layers}
    inner, outer = rows["model.3.conv"], rows["model.3"]
    assert inner.seconds is None and inner.share is None and inner.reach == outer.reach


def test_another_family(scenes: Path, checkpoint: Callable[..., Path]):  # noqa: F811
    transformer = checkpoint(micro(2, RTDETR), task="rtdetr")
    compared = analyse(str(transformer), PICO, str(scenes), imgsz=64, split="train", max_images=4).compared
    assert {pair.pattern for pair in compared.candidates if pair.same_role} >= {"P3", "P4", "P5", "B3", "B4", "B5"}
    assert names(compared.student)[16] == "model.16" and len(compared.teacher) == 8


@pytest.mark.parametrize(("images", "batch", "sizes"), [(32, 16, [16, 16]), (5, 4, [5]), (9, 4, [5, 4]), (4, 16, [4])])
def test_minibatches_are_never_too_small(images: int, batch: int, sizes: list[int]):
    assert [len(part) for part in minibatches(torch.zeros(images, 1), batch)] == sizes


def test_unreadable_images_are_named(scenes: Path, teacher: Path, tmp_path: Path):  # noqa: F811
    folder = tmp_path / "images"
    folder.mkdir()
    for image in (scenes.parent / "images" / "train").glob("*.png"):
        (folder / image.name).write_bytes(image.read_bytes())
    (folder / "broken.png").write_bytes(b"no image")
    (tmp_path / "data.yaml").write_text(f"train: {folder}\nval: {folder}\nnames: [a]\n")
    result = analyse(str(teacher), str(teacher), str(tmp_path / "data.yaml"), imgsz=64)
    assert [(Path(file).name, why) for file, why in result.skipped] == [("broken.png", "not readable as an image")]
    assert len(result.compared.images) == 8


def test_a_damaged_network(scenes: Path, teacher: Path, tmp_path: Path):  # noqa: F811
    content = torch.load(teacher, weights_only=False)
    content["model"].model[2].conv.weight.data.fill_(float("nan"))
    torch.save(content, tmp_path / "nan.pt")
    with pytest.raises(InputError, match=r"layer 'model.2' gives values that are not finite"):
        analyse(str(tmp_path / "nan.pt"), str(teacher), str(scenes), imgsz=64)


@pytest.mark.parametrize("given", [{"student": "best.ckpt"}, {"teacher": "unet:8"}])
def test_a_unet_is_refused_with_the_command_that_shows_it(given):
    with pytest.raises(InputError, match=r"this is for detectors; .* distill heatmap"):
        analyse(**given)
