"""One step of distillation: both networks read, losses weighted, hooks gone, the teacher without gradients."""

from contextlib import suppress

import pytest
import torch
from torch import nn

from distill.attention.pairs import Pair
from distill.distiller import Distiller
from distill.errors import InputError, SilentTapError
from distill.teacher import Teacher
from distill.terms.attention import AttentionTerm
from distill.terms.base import Batch, Reading, Term


class Toy(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.neck = nn.Conv2d(width, width, 3, 2, 1)
        self.idle = nn.Conv2d(width, width, 1)

    def forward(self, x):
        return self.neck(self.stem(x).relu())


class Brightness(Term):
    """A second term: the mean of the student's stem; keeps what it was called with."""

    name = "brightness"
    at = ("stem",)
    columns = {"bright": "brightness"}  # noqa: RUF012

    def layers(self):
        return ("stem",), ("neck",)

    def __call__(self, student, teacher, batch):
        self.given = student, teacher, batch
        loss = student.features["stem"].mean()
        return {"bright": Reading(loss, {"bright_max": student.features["stem"].detach().max()})}


PAIRS = [Pair("P1", "stem", "stem"), Pair("P2", "neck", "neck", weight=2.0)]
IMAGES = torch.rand(4, 3, 16, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def student():
    torch.manual_seed(1)
    return Toy(4).train()


@pytest.fixture
def network():
    torch.manual_seed(2)
    return Toy(6)


def build(network, pairs=PAIRS, weight=1.0, **options):
    teacher = Teacher(network, [pair.teacher for pair in pairs], stride=4)
    return Distiller(teacher, [AttentionTerm(pairs)], {"attention": weight}, **options)


def run(distiller, student, images=IMAGES, **batch):
    with distiller.watch(student, Batch(images, **batch)) as step:
        student(images)
    return step


def hooks(module):
    return sum(len(m._forward_hooks) for m in module.modules())


def test_the_losses_are_the_terms_losses_times_their_weights(student, network):
    seen = {name: (student.get_submodule(name), network.get_submodule(name)) for name in ("stem", "neck")}
    mine = {"stem": seen["stem"][0](IMAGES), "neck": student(IMAGES)}
    theirs = {"stem": seen["stem"][1](IMAGES), "neck": network(IMAGES)}

    def distance(name):
        a, b = (f.square().sum(1).flatten(1) for f in (mine[name], theirs[name]))
        return (a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)).norm(dim=1).mean().item()

    for weight in (1.0, 0.25, 30.0):
        losses = run(build(network, weight=weight), student).losses()
        assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(
            {"at_P1": weight * distance("stem"), "at_P2": weight * 2 * distance("neck")}, rel=1e-5
        )
        assert all(loss.shape == () for loss in losses.values())


def test_each_term_has_its_own_weight(student, network):
    teacher = Teacher(network, ["stem", "neck"], stride=4)
    terms = [AttentionTerm(PAIRS), Brightness()]
    distiller = Distiller(teacher, terms, {"attention": 3.0, "brightness": -0.5})
    step = run(distiller, student)
    plain = run(build(network), student).losses()
    assert distiller.student_layers == ("stem", "neck")  # each layer is tapped once
    assert list(step.losses()) == ["at_P1", "at_P2", "bright"]
    assert step.losses()["at_P2"].item() == pytest.approx(3 * plain["at_P2"].item())
    assert step.losses()["bright"].item() == pytest.approx(-0.5 * step.features["stem"].mean().item())
    assert list(step.figures()) == ["cos_P1", "dist_P1", "cos_P2", "dist_P2", "bright_max"]
    distiller.weights["attention"] = 0.0  # weights are read at each step
    assert run(distiller, student).losses()["at_P1"].item() == 0


def test_a_term_without_a_weight_is_an_error_and_not_weight_one(student, network):
    distiller = build(network)
    distiller.weights = {}
    with pytest.raises(KeyError, match="attention"):
        run(distiller, student)


def test_the_gradient_reaches_the_student_and_not_the_teacher(student, network):
    step = run(build(network), student)
    sum(step.losses().values()).backward()
    assert student.stem.weight.grad.any() and student.neck.weight.grad.any()
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    assert not any(f.requires_grad for f in step.guide.values()) and not network.training


def test_hooks_exist_only_while_the_student_runs(student, network):
    distiller = build(network)
    with distiller.watch(student, Batch(IMAGES)):
        assert hooks(student) == 2 and hooks(network) == 0
        student(IMAGES)
    assert hooks(student) == hooks(network) == 0


def test_hooks_are_gone_after_an_exception_and_the_distiller_works_again(student, network):
    distiller = build(network)
    with pytest.raises(RuntimeError), distiller.watch(student, Batch(IMAGES)):
        student(IMAGES[:, :2])  # the student refuses
    assert hooks(student) == hooks(network) == 0
    with pytest.raises(RuntimeError), distiller.watch(student, Batch(IMAGES[:, :2])):  # the teacher refuses
        pass
    assert hooks(student) == hooks(network) == 0
    assert len(run(distiller, student).losses()) == 2


def test_a_layer_that_is_skipped_is_an_error_in_either_network(student, network):
    for pair in (Pair("x", "idle", "stem"), Pair("x", "stem", "idle")):
        with pytest.raises(SilentTapError, match=r"'idle' \(Conv2d\)"):
            run(build(network, [pair]), student)
    with pytest.raises(SilentTapError, match="'stem'"), build(network).watch(student, Batch(IMAGES)):
        pass  # the student was not run at all
    assert hooks(student) == hooks(network) == 0


def test_the_same_student_keeps_its_hook_functions_and_another_gets_its_own(student, network):
    distiller = build(network)
    seen = []
    for watched in (student, student, Toy(4), student):
        with suppress(SilentTapError), distiller.watch(watched, Batch(IMAGES)):
            seen += watched.stem._forward_hooks.values()
    assert seen[0] is seen[1] and seen[1] is not seen[2]


# ---- a part of the batch


def test_a_fraction_runs_the_teacher_on_that_part_and_compares_the_same_images(student, network):
    sizes = []
    network.register_forward_hook(lambda _m, inputs, _o: sizes.append(len(inputs[0])))
    single = [sum(run(build(network), student, IMAGES[[i]]).losses().values()).item() for i in range(4)]
    sizes.clear()
    for fraction, count in ((0.5, 2), (0.75, 3), (0.01, 1), (1.0, 4)):
        distiller = build(network, fraction=fraction)
        step = run(distiller, student)
        assert sizes.pop() == count and step.features["stem"].shape[0] == 4  # the student's whole batch
        chosen = distiller._choose(Batch(IMAGES))
        chosen = range(4) if chosen is None else chosen.tolist()
        assert len(set(chosen)) == count
        expected = sum(single[i] for i in chosen) / count
        assert sum(step.losses().values()).item() == pytest.approx(expected, rel=1e-5)


def test_a_fraction_is_unbiased(student, network):
    with torch.no_grad():
        full = sum(run(build(network), student).losses().values()).item()
        distiller = build(network, fraction=0.5, seed=3)
        parts = torch.stack([sum(run(distiller, student, step=i).losses().values()) for i in range(200)])
    assert parts.unique().numel() == 6  # every choice of two out of four occurs
    assert abs(parts.mean().item() - full) < 4 * parts.std().item() / 200**0.5


def test_the_choice_depends_on_seed_epoch_and_step_only_and_disturbs_no_generator(network):
    images = torch.rand(16, 3, 4, 4)
    state = torch.get_rng_state()

    def choice(seed, epoch, step):
        return tuple(build(network, fraction=0.5, seed=seed)._choose(Batch(images, epoch=epoch, step=step)).tolist())

    first = [choice(1, epoch, step) for epoch in range(3) for step in range(3)]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert first == [choice(1, epoch, step) for epoch in range(3) for step in range(3)]
    assert len(set(first)) == 9 and choice(2, 0, 0) != first[0]


def test_watching_leaves_the_global_generator_alone(student, network):
    state = torch.get_rng_state()
    run(build(network, fraction=0.5), student)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("seed", range(4))
def test_a_term_gets_the_boxes_of_the_compared_images_only(student, network, seed):
    term = Brightness()
    distiller = Distiller(Teacher(network, ["neck"], stride=4), [term], {"brightness": 1.0}, fraction=0.5, seed=seed)
    owners = torch.tensor([0.0, 0.0, 1.0, 3.0, 3.0, 2.0])  # Ultralytics' own are floats
    boxes, classes = torch.rand(6, 4), torch.arange(6.0).unsqueeze(1)
    chosen = distiller._choose(Batch(IMAGES)).tolist()
    run(distiller, student, boxes=boxes, classes=classes, box_image=owners)
    mine, theirs, batch = term.given
    assert len(mine.features["stem"]) == len(theirs.features["neck"]) == len(batch.images) == 2
    assert torch.equal(batch.images, IMAGES[chosen])
    kept = [i for i, owner in enumerate(owners.int().tolist()) if owner in chosen]
    assert torch.equal(batch.boxes, boxes[kept]) and torch.equal(batch.classes, classes[kept])
    assert [chosen[int(i)] for i in batch.box_image] == owners[kept].int().tolist()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("with_boxes", [False, True])
def test_a_term_gets_the_masks_of_the_compared_images_only(student, network, seed, with_boxes):
    term = Brightness()
    distiller = Distiller(Teacher(network, ["neck"], stride=4), [term], {"brightness": 1.0}, fraction=0.5, seed=seed)
    masks = torch.arange(4).view(4, 1, 1).expand(4, 16, 12)
    boxes = {"boxes": torch.rand(3, 4), "classes": torch.zeros(3), "box_image": torch.tensor([0.0, 1.0, 3.0])}
    chosen = distiller._choose(Batch(IMAGES)).tolist()
    run(distiller, student, masks=masks, **(boxes if with_boxes else {}))
    _, _, batch = term.given
    assert torch.equal(batch.images, IMAGES[chosen]) and batch.masks[:, 0, 0].tolist() == chosen
    assert (batch.boxes is not None) == with_boxes


def test_without_a_teacher_the_terms_see_the_student_and_the_labels(student):
    term = Brightness()
    term.layers = lambda: (("stem",), ())
    distiller = Distiller(None, [term], {"brightness": 2.0}, fraction=0.5)
    masks = torch.zeros(4, 16, 12)
    step = run(distiller, student, masks=masks)
    mine, theirs, batch = term.given
    assert not step.guide and not theirs.features and len(mine.features["stem"]) == len(batch.masks) == 2
    assert step.losses()["bright"].item() == pytest.approx(2 * mine.features["stem"].mean().item())
    assert step.terms == {"bright": "brightness"} and hooks(student) == 0


def test_shuffled_each_image_gets_the_teachers_features_of_another(network, student):
    plain, control = build(network), build(network, shuffled=True)
    with plain.watch(student, Batch(IMAGES)) as step:
        student(IMAGES)
    with control.watch(student, Batch(IMAGES)) as other:
        student(IMAGES)
    for layer, features in step.guide.items():
        assert torch.equal(other.guide[layer], features[[3, 0, 1, 2]])
    assert not torch.isclose(step.losses()["at_P1"], other.losses()["at_P1"])
    with pytest.raises(InputError, match="two or more"), control.watch(student, Batch(IMAGES[:1])):
        student(IMAGES[:1])
