"""The measured weight gives exactly the share of gradient that was asked for, recomputed here by hand."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from distill import weighting
from distill.attention.maps import energy, unit
from distill.attention.pairs import Pair
from distill.distiller import Distiller, Step
from distill.teacher import Teacher
from distill.terms.attention import AttentionTerm, l2, squared
from distill.terms.base import Batch, Reading
from distill.weighting import EVERY, REACH, Follower, balances_of, due, gradients, measure, norm_of, weight_for_share


@pytest.fixture
def features():
    torch.manual_seed(0)
    first = nn.Conv2d(3, 4, 3)(torch.rand(2, 3, 8, 8))
    return [first, nn.Conv2d(4, 6, 3)(first.relu())]  # the second depends on the first


def gradient_norm(loss, features):
    return norm_of(gradients(loss, features))


def by_hand(loss, features):
    grads = torch.autograd.grad(loss, features, retain_graph=True)
    return math.sqrt(sum((g.double() ** 2).sum().item() for g in grads))


def attention(features, distance):
    target = torch.rand(2, 36, generator=torch.Generator().manual_seed(1))
    return distance(unit(energy(features[0])).flatten(1), unit(target)).mean() + energy(features[1]).mean()


@pytest.mark.parametrize("share", [0.05, 0.2, 1.0, 3.0])
@pytest.mark.parametrize("distance", [l2, squared])
def test_the_share_at_the_tapped_layers_is_exactly_the_one_asked_for(features, share, distance):
    task, ours = features[1].square().sum() + features[0].mean(), attention(features, distance)
    weight = weight_for_share(share, [gradient_norm(task, features)], [gradient_norm(ours, features)])
    assert by_hand(weight * ours, features) / by_hand(task, features) == pytest.approx(share, rel=1e-5)


def test_over_several_batches_the_norms_are_summed():
    assert weight_for_share(0.5, [3.0, 5.0], [1.0, 1.0]) == 2.0


def test_the_norm_covers_all_features_and_every_path(features):
    task = features[1].square().sum()
    assert gradient_norm(task, features) == pytest.approx(by_hand(task, features), rel=1e-6)
    assert gradient_norm(task, features[1:]) == pytest.approx(2 * features[1].norm().item(), rel=1e-6)
    assert gradient_norm(3 * task, features) == pytest.approx(3 * gradient_norm(task, features), rel=1e-6)


def test_terms_are_weighed_each_at_its_own_layers_and_the_task_once_at_each(features, monkeypatch):
    first, second = features
    task, losses = second.square().sum(), {"one": first.square().sum(), "two": second.sum(), "three": second.mean()}
    step = Step(features={"a": first, "b": second}, weights=dict.fromkeys(losses, 2.0))
    step.readings = {name: Reading(loss, {}) for name, loss in losses.items()}
    step.terms = {name: name for name in losses}
    terms = [SimpleNamespace(name=n, at=at) for n, at in (("one", ("a", "b")), ("two", ("b",)), ("three", ("b", "b")))]
    taken = []
    original = weighting.gradients
    monkeypatch.setattr(weighting, "gradients", lambda loss, at: taken.append(loss) or original(loss, at))
    found = balances_of(task, step, terms, scale=8.0)
    assert len(taken) == 5  # three of their own, the task's at {a, b} and at {b}
    for name, at in (("one", features), ("two", [second]), ("three", [second])):
        ours = torch.autograd.grad(16 * losses[name], at, retain_graph=True, allow_unused=True)
        norm = sum(g.square().sum().item() for g in ours if g is not None) ** 0.5
        assert (found[name].task, found[name].own) == pytest.approx((8 * by_hand(task, at), norm), rel=1e-5)
        both = torch.autograd.grad(task, at, retain_graph=True)
        dot = sum((a * b).sum().item() for a, b in zip(both, ours) if b is not None)
        assert found[name].cosine == pytest.approx(dot / by_hand(task, at) / norm, rel=1e-4)


def test_measuring_leaves_the_graph_and_the_gradients_alone(features):
    leaf = torch.rand(2, 3, requires_grad=True)
    loss = leaf.square().sum()
    assert gradient_norm(loss, [leaf]) == gradient_norm(loss, [leaf]) > 0
    assert leaf.grad is None
    loss.backward()


def test_what_does_not_depend_on_the_features_has_norm_zero(features):
    assert gradient_norm(torch.tensor(3.0), features) == 0  # detached
    assert gradient_norm(torch.rand(2, requires_grad=True).sum(), features) == 0
    assert gradient_norm(features[0].sum(), [f.detach() for f in features]) == 0
    assert gradient_norm(features[1].sum(), []) == 0


def test_a_term_without_gradient_has_no_finite_weight():
    assert weight_for_share(0.2, [1.0], [0.0]) == math.inf
    assert weight_for_share(0.2, [1.0], [math.nan]) == math.inf
    assert weight_for_share(0.2, [0.0], [1.0]) == 0


def test_half_precision_gradients_are_summed_in_float32():
    leaf = torch.full((10,), 200.0, dtype=torch.float16, requires_grad=True)
    assert gradient_norm(leaf.float().square().sum(), [leaf]) == pytest.approx(400 * math.sqrt(10))


# ---- following


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.head(self.body(x).relu())


def following(share=0.2, weight=1.0, fraction=1.0, followed=("attention",)):
    teacher = Teacher(Two(), ["body"], stride=1)
    torch.nn.init.normal_(teacher.module.body.weight)
    distiller = Distiller(teacher, [AttentionTerm([Pair("P1", "body", "body")])], {"attention": weight}, fraction)
    return distiller, Follower(distiller, dict.fromkeys(followed, share), {"attention": weight})


def passed(distiller, network, scale=1.0, images=8):
    batch = torch.rand(images, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    with distiller.watch(network, Batch(batch)) as step:
        task = scale * network(batch).square().mean()
    return task, step


def reached(distiller, task, step):
    own = gradient_norm(step.of_term("attention"), [step.features["body"]])
    return own / gradient_norm(task, [step.features["body"]])


def test_it_measures_the_weight_that_gives_the_share_whatever_the_weight_is_now():
    network = Two()
    for weight in (0.01, 1.0, 300.0):
        distiller, follower = following(0.3, weight)
        wanted = follower.wanted(measure(*passed(distiller, network), distiller))
        distiller.weights.update(wanted)
        assert reached(distiller, *passed(distiller, network)) == pytest.approx(0.3, rel=1e-4)


def test_it_goes_a_tenth_of_the_way_and_stays_within_its_reach():
    distiller, follower = following(weight=2.0)
    follower.move({"attention": 2.0 * 1024})
    assert distiller.weights["attention"] == pytest.approx(4.0)  # 1024 ** 0.1 = 2
    for _ in range(50):
        follower.move({"attention": 1e9})
    assert distiller.weights["attention"] == pytest.approx(2.0 * REACH)
    for _ in range(99):
        follower.move({"attention": 1e-9})
    assert distiller.weights["attention"] == pytest.approx(2.0 / REACH)


def test_followed_often_enough_the_share_is_what_was_asked_for_when_the_task_changes():
    network = Two()
    distiller, follower = following(0.2)
    distiller.weights.update(follower.wanted(measure(*passed(distiller, network), distiller)))
    follower.first = dict(distiller.weights)
    assert reached(distiller, *passed(distiller, network, scale=3.0)) == pytest.approx(0.2 / 3, rel=1e-3)
    for _ in range(60):
        follower.move(follower.wanted(measure(*passed(distiller, network, scale=3.0), distiller)))
    assert reached(distiller, *passed(distiller, network, scale=3.0)) == pytest.approx(0.2, rel=0.01)


def test_the_gradients_of_the_step_are_not_touched():
    network = Two()
    distiller, follower = following()
    gradients = []
    for measured in (False, True):
        task, step = passed(distiller, network)
        if measured:
            follower.wanted(measure(task, step, distiller))
        network.zero_grad()
        (task + step.losses()["at_P1"]).backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients))


def test_a_part_of_the_batch_gives_about_the_weight_that_the_whole_gives():
    network, found = Two(), []
    for fraction in (1.0, 0.25):
        distiller, follower = following(fraction=fraction)
        values = [
            follower.wanted(measure(*passed(distiller, network, images=64), distiller))["attention"] for _ in range(3)
        ]
        found.append(sum(values) / 3)
    assert found[1] == pytest.approx(found[0], rel=0.15)


def test_terms_with_a_fixed_weight_or_at_rest_are_left_alone():
    distiller, follower = following(followed=())
    assert follower.wanted(measure(*passed(distiller, Two()), distiller)) == {}
    distiller, follower = following()
    task, step = passed(distiller, Two())
    step.readings.clear()
    assert measure(task, step, distiller) == {}


def test_it_is_due_every_so_many_steps_over_epochs():
    found = [n for n in range(3 * EVERY) if due(Batch(torch.zeros(1), epoch=n // 7, step=n % 7, steps=7))]
    assert found == [EVERY - 1, 2 * EVERY - 1, 3 * EVERY - 1]


# ---- direction


def test_the_cosine_is_one_for_the_task_itself_and_minus_one_against_it(features):
    task = features[1].square().sum()
    step = Step(features={"a": features[0], "b": features[1]}, weights={"with": 3.0, "against": 0.5})
    step.readings = {"with": Reading(task, {}), "against": Reading(-task, {})}
    step.terms = {name: name for name in step.readings}
    terms = [SimpleNamespace(name=name, at=("a", "b")) for name in step.readings]
    found = balances_of(task, step, terms)
    assert found["with"].cosine == pytest.approx(1, abs=1e-5) and found["against"].cosine == pytest.approx(-1, abs=1e-5)
    step.readings["with"] = Reading(torch.zeros(()), {})
    assert math.isnan(balances_of(task, step, terms)["with"].cosine)
