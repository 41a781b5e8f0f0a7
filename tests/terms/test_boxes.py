"""Boxes against the teacher's: hand references, invariances, gradients."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from distill.attention.pairs import Pair
from distill.terms.base import Batch, View
from distill.terms.boxes import BoxTerm, DistributionTerm, distances, giou, iou
from distill.terms.dense import confidence, flat, surest, weighted_loss

PAIR = Pair("3", "s", "t")
BATCH = Batch(torch.zeros(2, 3, 32, 32))
BINS = 4


def drawn(seed, channels, dtype=torch.float64):
    return torch.randn(2, channels, 3, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def read(term, mine, theirs, scores):
    return term(View({"s": mine}), View({"t": theirs, "c": scores}), BATCH)["at_box"]


def cells(tensor):
    return [tensor[i, :, y, x].double() for i in range(2) for y in range(3) for x in range(2)]


def by_cells(mine, theirs, scores, loss):
    total = weights = 0.0
    for s, t, c in zip(cells(mine), cells(theirs), cells(scores)):
        weight = 1 / (1 + math.exp(-c.max().item()))
        total, weights = total + weight * float(loss(s, t)), weights + weight
    return total / weights


def test_distributions_by_hand():
    mine, theirs, scores = drawn(1, 4 * BINS), drawn(2, 4 * BINS), drawn(3, 5)

    def loss(s, t):
        sides = []
        for side in range(4):
            p, q = ((x[side * BINS : (side + 1) * BINS] / 10).softmax(0) for x in (t, s))
            sides.append(100 * (p * (p / q).log()).sum())
        return sum(sides) / 4

    found = read(DistributionTerm([PAIR], ["c"], (BINS, BINS)), mine, theirs, scores)
    assert found.loss.item() == pytest.approx(by_cells(mine, theirs, scores, loss), rel=1e-4)


def test_means_of_distributions_are_where_ultralytics_decodes_them():
    from ultralytics.nn.modules.block import DFL

    outputs = drawn(1, 4 * 16, torch.float32)
    expected = DFL(16)(outputs.flatten(2))  # (B, 4, N)
    found = distances(outputs.flatten(2).transpose(1, 2), 16)
    assert torch.allclose(found.transpose(1, 2), expected, atol=1e-5)


def test_overlaps_agree_with_torchvision():
    from torchvision.ops import box_iou, generalized_box_iou

    torch.manual_seed(0)
    a, b = torch.rand(1, 50, 4) * 4 - 0.5, torch.rand(1, 50, 4) * 4 - 0.5  # the cell may lie outside
    a[..., 2:] += 1  # but no box is turned inside out
    b[..., 2:] += 1
    corners = [torch.cat([-x[0, :, :2], x[0, :, 2:]], 1) for x in (a, b)]
    assert torch.allclose(iou(a, b)[0], box_iou(*corners).diagonal(), atol=1e-5)
    assert torch.allclose(giou(a, b)[0], generalized_box_iou(*corners).diagonal(), atol=1e-5)


def test_boxes_by_hand():
    """Student 2 x 2 around the cell, teacher 4 x 4: IoU and GIoU 1/4, each side one cell off, of a mean side of 4."""
    mine, theirs = torch.ones(2, 4, 3, 2), torch.full((2, 4, 3, 2), 2.0)
    found = read(BoxTerm([PAIR], ["c"], (1, 1)), mine, theirs, drawn(3, 5))
    assert found.loss.item() == pytest.approx(1 - 0.25 + 1 / 4)
    assert found.figures["iou_box"].item() == pytest.approx(0.25)


def test_a_head_with_distributions_may_follow_one_without_and_the_other_way_round():
    logits = drawn(1, 4 * BINS, torch.float32)
    means = distances(logits.flatten(2).transpose(1, 2), BINS).transpose(1, 2).reshape(2, 4, 3, 2)
    for mine, theirs, bins in ((logits, means, (BINS, 1)), (means, logits, (1, BINS))):
        found = read(BoxTerm([PAIR], ["c"], bins), mine, theirs, drawn(3, 5))
        assert found.loss.item() == pytest.approx(0, abs=1e-5) and found.figures["iou_box"].item() == pytest.approx(1)


@pytest.mark.parametrize("term", [DistributionTerm([PAIR], ["c"], (BINS, BINS)), BoxTerm([PAIR], ["c"], (BINS, BINS))])
def test_equal_is_zero_other_is_more_and_the_gradient_is_right(term):
    theirs, scores = drawn(2, 4 * BINS), drawn(3, 5)
    mine = theirs.clone().requires_grad_()
    loss = read(term, mine, theirs, scores).loss
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5) and torch.isfinite(mine.grad).all()
    other = drawn(1, 4 * BINS).requires_grad_()
    assert read(term, other, theirs, scores).loss.item() > 0.1
    assert gradcheck(lambda m: read(term, m, theirs, scores).loss.double(), (other,), eps=1e-3, atol=2e-3, rtol=2e-2)


def test_only_confident_cells_of_known_classes_count():
    theirs, scores = drawn(2, 4).abs() + 0.5, torch.full((2, 3, 3, 2), -40.0)
    scores[1, 0, 2, 1] = 3.0
    scores[0, 2, 0, 0] = 3.0  # a class that the student does not know
    mine = theirs + 0.5 * (torch.arange(12).view(2, 1, 3, 2) != 11)  # wrong everywhere but there
    assert read(BoxTerm([PAIR], ["c"], (1, 1), known=[0, 1]), mine, theirs, scores).loss.item() == pytest.approx(
        0, abs=1e-4
    )
    assert read(BoxTerm([PAIR], ["c"], (1, 1)), mine, theirs, scores).loss.item() > 0.01


def test_a_teacher_that_sees_nothing_teaches_no_boxes():
    theirs, mine = drawn(2, 4).abs() + 0.5, drawn(3, 4).abs() + 0.5
    term, losses = BoxTerm([PAIR], ["c"], (1, 1)), []
    for logit in (3.0, -14.0):
        losses.append(read(term, mine, theirs, torch.full((2, 3, 3, 2), logit)).loss.item())
    assert losses[0] > 0.1 and losses[1] < 1e-3


def test_boxes_turned_inside_out_are_finite():
    mine, theirs = torch.full((2, 4, 3, 2), -1.0, requires_grad=True), torch.ones(2, 4, 3, 2)
    loss = read(BoxTerm([PAIR], ["c"], (1, 1)), mine, theirs, drawn(3, 5)).loss
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(mine.grad).all() and mine.grad.abs().sum() > 0


def test_cells_where_the_teacher_sees_nothing_are_left_out():
    """Of many cells a quarter is compared, the surest ones, wherever they stand; of few all are."""
    sure = torch.full((2, 5, 64, 32), -9.0)
    sure[0, 1, :, :8] = sure[1, 3, 60, 31] = 9.0  # 513 of 4096 cells
    mine, theirs = (torch.randn(2, 4 * BINS, 64, 32, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    term = DistributionTerm([PAIR], ["c"], (BINS, BINS))
    found = read(term, mine, theirs, sure).loss
    weights, where = surest(confidence(flat([sure])))
    assert weights.shape == (1024,) and (weights > 0.5).sum() == 513
    rows = [flat([side])[where] for side in (mine, theirs)]
    assert torch.allclose(found, weighted_loss(term._apart(*rows), weights))
    whole = weighted_loss(term._apart(flat([mine]), flat([theirs])), confidence(flat([sure])))
    assert torch.allclose(found, whole, rtol=1e-2) and found != whole
    changed = mine.clone()
    changed[1, :, 60, 31] += 5 * torch.arange(4 * BINS)
    assert read(term, changed, theirs, sure).loss != found
