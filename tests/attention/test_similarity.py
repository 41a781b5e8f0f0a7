"""CKA and attention cosines: against sums written out, their invariances, and what chance gives."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from distill.attention.maps import AttentionMap, meet
from distill.attention.similarity import LikenessMeter, Response, centred_gram, hsic_matrix, linear_cka


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference_hsic(x: Tensor, y: Tensor) -> float:
    """Song et al. 2012 as a U-statistic: the mean over all quadruples of different images, nothing simplified."""
    k, m = ((z.flatten(1) @ z.flatten(1).T).tolist() for z in (x, y))
    quadruples = list(itertools.permutations(range(len(x)), 4))
    terms = (k[i][j] * (m[i][j] + m[p][q] - 2 * m[i][p]) for i, j, p, q in quadruples)
    return sum(terms) / len(quadruples)


def biased_cka(x: Tensor, y: Tensor) -> float:
    x, y = (z.flatten(1) - z.flatten(1).mean(dim=0) for z in (x, y))
    return float((x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm()))


def measured(teacher: dict[str, Tensor], student: dict[str, Tensor], sizes: list[int]):
    meter = LikenessMeter()
    sides = ([dict(zip(side, part)) for part in zip(*(z.split(sizes) for z in side.values()))]
             for side in (teacher, student))  # fmt: skip
    for t, s in zip(*sides):
        meter.add(Response.of(t), Response.of(s))
    return meter.result()


# ---- CKA


def test_hsic_equals_the_sums_written_out():
    x, y = features(7, 3, 2, 2), 5 + features(7, 4, 3, 1, seed=1)
    value = hsic_matrix(centred_gram(x)[None], centred_gram(y)[None])
    assert value.item() == pytest.approx(reference_hsic(x, y), rel=1e-9)


def test_cka_equals_the_sums_written_out():
    x = features(6, 5)
    y = x[:, :2] + 0.5 * features(6, 2, seed=1)
    expected = reference_hsic(x, y) / math.sqrt(reference_hsic(x, x) * reference_hsic(y, y))
    assert 0.1 < expected < 1
    assert linear_cka(x, y) == pytest.approx(expected, rel=1e-9)


def test_features_are_like_themselves():
    x = features(8, 3, 4, 5)
    assert linear_cka(x, x) == pytest.approx(1)
    assert linear_cka(x, 100 + x) == pytest.approx(1)


def test_nothing_changes_under_rotation_scale_and_shift():
    x, y = features(9, 12), features(9, 7, seed=1) + features(9, 12)[:, :7]
    rotation = torch.linalg.qr(features(12, 12, seed=2))[0]
    value = linear_cka(x, y)
    assert linear_cka(-3.5 * x @ rotation + features(12, seed=3), 0.01 * y) == pytest.approx(value, rel=1e-9)
    assert linear_cka(x.flip(0), y.flip(0)) == pytest.approx(value, rel=1e-9)
    assert linear_cka(x, y.flip(0)) != pytest.approx(value, abs=0.05)  # other images
    stretched = x * torch.linspace(0.1, 3, 12)  # not a common factor: another similarity
    assert linear_cka(stretched, y) != pytest.approx(value, abs=0.01)


def test_unrelated_features_give_zero_on_average():
    pairs = [(features(8, 50, seed=2 * i), features(8, 40, seed=2 * i + 1)) for i in range(200)]
    values = torch.tensor([linear_cka(x, y) for x, y in pairs])
    assert abs(values.mean()) < 3 * values.std() / math.sqrt(len(values)) + 0.005
    assert (values < 0).float().mean() > 0.3
    assert min(biased_cka(x, y) for x, y in pairs) > 0.6


def test_large_means_do_not_drown_single_precision():
    x, y = features(8, 200), features(8, 200) + features(8, 200, seed=1)
    assert linear_cka((x + 1000).float(), (y - 1000).float()) == pytest.approx(linear_cka(x, y), abs=1e-3)


def test_features_that_do_not_depend_on_the_image():
    still = torch.full((6, 4), 0.1)
    assert math.isnan(linear_cka(still, features(6, 4)))
    assert not centred_gram(torch.zeros(6, 4)).any()


def test_three_images_are_too_few():
    with pytest.raises(ValueError, match="4 images are the least"):
        centred_gram(features(3, 2))


# ---- both, over minibatches


def test_one_minibatch_is_the_single_batch():
    x, y = features(8, 3, 4, 4), features(8, 5, 2, 2, seed=1)
    likeness = measured({"a": x, "b": y}, {"a": x}, [8])
    assert likeness.cka.tolist() == [[pytest.approx(1)], [pytest.approx(linear_cka(y, x))]]


def test_hsic_is_summed_before_it_is_normalised():
    x, y = features(10, 6), features(10, 6)[:, :4] + features(10, 4, seed=1)
    x, y = x.view(10, 6, 1, 1), y.view(10, 4, 1, 1)
    parts = list(zip(x.split([4, 6]), y.split([4, 6])))
    sums = [sum(reference_hsic(*(part[i] for i in which)) for part in parts) for which in ((0, 1), (0, 0), (1, 1))]
    value = measured({"x": x}, {"y": y}, [4, 6]).cka.item()
    assert value == pytest.approx(sums[0] / math.sqrt(sums[1] * sums[2]), rel=1e-9)
    assert value != pytest.approx(sum(linear_cka(*part) for part in parts) / 2, abs=1e-3)


def test_chance_is_how_far_shuffled_images_scatter():
    x, y = features(16, 30, 1, 1), features(16, 20, 1, 1, seed=1)
    generator = torch.Generator().manual_seed(2)
    shuffled = [linear_cka(x, y[torch.randperm(16, generator=generator)]) for _ in range(400)]
    chance = measured({"x": x}, {"y": y}, [16]).chance.item()
    assert chance == pytest.approx(torch.tensor(shuffled).std().item(), rel=0.4)  # of 15 shifts
    assert measured({"x": x}, {"x": x}, [16]).cka.item() > 5 * chance


def test_cosines_are_those_of_the_same_image_and_of_all_others():
    x, y = features(5, 3, 4, 6), features(5, 2, 2, 3, seed=1)
    likeness = measured({"x": x}, {"y": y}, [5])
    a, b = (one.unit() for one in meet(AttentionMap.read(x, "x"), AttentionMap.read(y, "y")))
    pairs = {(i, j): float(a[i] @ b[j]) for i in range(5) for j in range(5)}
    same = [value for (i, j), value in pairs.items() if i == j]
    other = [value for (i, j), value in pairs.items() if i != j]
    assert likeness.cosine.item() == pytest.approx(sum(same) / 5, rel=1e-6)
    assert likeness.shuffled.item() == pytest.approx(sum(other) / 20, rel=1e-6)
    own = AttentionMap.read(x, "x").unit()
    different = [float(own[i] @ own[j]) for i in range(5) for j in range(5) if i != j]
    assert likeness.constant.tolist() == pytest.approx([sum(different) / 20], rel=1e-6)


def test_a_layer_that_answers_the_same_to_every_image_is_constant():
    x = features(1, 3, 4, 4).expand(6, -1, -1, -1)
    assert measured({"x": x}, {"y": features(6, 3, 4, 4, seed=1)}, [6]).constant.item() == pytest.approx(1)


def test_cosines_count_images_not_minibatches():
    x, y = features(10, 3, 4, 4), features(10, 3, 4, 4, seed=1)
    assert measured({"x": x}, {"y": y}, [4, 6]).cosine.item() == pytest.approx(
        measured({"x": x}, {"y": y}, [10]).cosine.item(), rel=1e-6
    )


def test_grids_meet_where_either_is_smaller():
    likeness = measured({"x": features(4, 3, 8, 2)}, {"y": features(4, 3, 2, 4, seed=1)}, [4])
    assert 0 < likeness.cosine.item() <= 1


def test_zero_maps_are_left_out():
    x = features(5, 3, 4, 4)
    holed = x.clone()
    holed[2] = 0
    kept = [0, 1, 3, 4]
    value = measured({"x": holed}, {"y": x}, [5])
    assert value.cosine.item() == pytest.approx(1)
    assert value.shuffled.item() == pytest.approx(
        sum(
            float(AttentionMap.read(x[[i]], "x").unit()[0] @ AttentionMap.read(x[[j]], "x").unit()[0])
            for i in kept for j in range(5) if i != j
        ) / 16
    )  # fmt: skip
    dead = measured({"x": 0 * x}, {"y": x}, [5])
    assert all(math.isnan(one.item()) for one in (dead.cka, dead.chance, dead.cosine, dead.shuffled))


def test_a_meter_without_images():
    with pytest.raises(ValueError, match="nothing was added"):
        LikenessMeter().result()
