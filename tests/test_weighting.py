"""The measured weight gives exactly the share of gradient that was asked for, recomputed here by hand."""

import math

import pytest
import torch
from torch import nn

from distill.attention.maps import energy, unit
from distill.terms.attention import l2, squared
from distill.weighting import gradient_norm, weight_for_share


@pytest.fixture
def features():
    torch.manual_seed(0)
    first = nn.Conv2d(3, 4, 3)(torch.rand(2, 3, 8, 8))
    return [first, nn.Conv2d(4, 6, 3)(first.relu())]  # the second depends on the first


def by_hand(loss, features):
    grads = torch.autograd.grad(loss, features, retain_graph=True)
    return math.sqrt(sum((g.double() ** 2).sum().item() for g in grads))


def attention(features, distance):
    target = torch.rand(2, 36, generator=torch.Generator().manual_seed(1))
    return distance(unit(energy(features[0])).flatten(1) - unit(target)).mean() + energy(features[1]).mean()


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
