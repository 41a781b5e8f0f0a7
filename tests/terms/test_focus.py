"""Where an attention map counts: boxes by hand, confidence, and what each focus does to the loss."""

import pytest
import torch

from distill.attention.pairs import Pair
from distill.errors import InputError
from distill.terms.attention import AttentionTerm
from distill.terms.base import Batch, View
from distill.terms.focus import BoxFocus, ScoreFocus

PAIR = Pair("P3", "s", "t")


def batch(boxes, images=1, box_image=None):
    boxes = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    box_image = torch.zeros(len(boxes)) if box_image is None else torch.tensor(box_image, dtype=torch.float32)
    return Batch(torch.zeros(images, 3, 64, 64), boxes, torch.zeros(len(boxes), 1), box_image)


def focus_of(seen, size=(8, 8)):
    return BoxFocus()(PAIR, View({}), seen, size)


def test_a_box_of_four_cells_counts_a_half_in_each():
    weights = focus_of(batch([[0.25, 0.5, 0.25, 0.25]]))  # x 1 to 3, y 3 to 5
    expected = torch.zeros(1, 8, 8)
    expected[:, 3:5, 1:3] = 0.5
    assert torch.allclose(weights, expected)


def test_every_box_has_the_same_weight_in_the_squared_distance_whatever_its_size():
    seen = batch([[0.25, 0.25, 0.5, 0.5], [0.5 / 8, 7.5 / 8, 0.125, 0.125]])
    weights = focus_of(seen)[0].square()
    assert weights[:4, :4].sum().item() == pytest.approx(1) and weights[7, 0].item() == pytest.approx(1)
    assert weights.sum().item() == pytest.approx(2)


def test_of_overlapping_boxes_the_smaller_counts_and_a_part_of_a_cell_counts_as_that():
    weights = focus_of(batch([[0.5, 0.5, 1.0, 1.0], [0.25, 0.25, 0.25, 0.25]]))[0]
    assert weights[1, 1].item() == pytest.approx(0.5) and weights[6, 6].item() == pytest.approx(1 / 8)
    half = focus_of(batch([[0.25, 0.25, 0.25, 0.1875]]))[0]  # rows 1.25 to 2.75
    assert half[1, 1].item() == pytest.approx(0.5)
    uneven = focus_of(batch([[0.25, 1.5 / 8, 0.25, 0.125 * 1.5]]))[0]  # rows 0.75 to 2.25
    assert uneven[0, 1].item() == pytest.approx(uneven[1, 1].item() / 4)


@pytest.mark.parametrize("side", [0.01, 0.0625, 0.2, 0.7])
@pytest.mark.parametrize("centre", [0.5 / 8, 0.5, 0.437])
@pytest.mark.parametrize("size", [(2, 2), (8, 8), (5, 13)])
def test_every_box_weighs_one_however_small_and_wherever_it_lies_on_the_grid(side, centre, size):
    weights = focus_of(batch([[centre, centre, side, side]]), size)
    assert weights.square().sum().item() == pytest.approx(1, rel=1e-4)


def test_a_box_outside_the_image_counts_nothing():
    assert (
        not focus_of(batch([[1.5, 0.5, 0.2, 0.2]])).isnan().any() and not focus_of(batch([[1.5, 0.5, 0.2, 0.2]])).any()
    )


def test_boxes_belong_to_their_images_and_an_image_without_any_has_no_loss():
    seen = batch([[0.25, 0.25, 0.25, 0.25]], images=2, box_image=[1])
    weights = focus_of(seen)
    assert not weights[0].any() and weights[1].any()
    torch.manual_seed(0)
    features = torch.randn(2, 4, 8, 8, requires_grad=True)
    term = AttentionTerm([PAIR], focus=BoxFocus())
    term(View({"s": features}), View({"t": torch.randn(2, 6, 8, 8)}), seen)["at_P3"].loss.backward()
    assert not features.grad[0].any() and features.grad[1, :, 1:3, 1:3].abs().min() > 0
    assert torch.isfinite(features.grad).all()


def test_no_boxes_in_the_task_is_an_error():
    with pytest.raises(InputError, match="labelled boxes"):
        focus_of(Batch(torch.zeros(1, 3, 8, 8)))


def test_confidence_is_the_best_class_brought_to_the_maps_grid():
    logits = torch.full((1, 2, 4, 4), -20.0)
    logits[0, 1, :2, :2] = 20.0
    focus = ScoreFocus({"P3": "head.0", "B3": "head.0"})
    weights = focus(Pair("B3", "s", "t"), View({"head.0": logits}), batch([]), (2, 2))
    assert torch.allclose(weights, torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]), atol=1e-6)
    assert focus.layers() == ("head.0",)


class Counted(BoxFocus):
    asked = 0

    def __call__(self, pair, teacher, batch, size):
        self.asked += 1
        return super().__call__(pair, teacher, batch, size)


def test_pairs_on_one_grid_share_their_weights_and_no_others_do():
    torch.manual_seed(0)
    pairs = [Pair("B3", "a", "a"), Pair("P3", "b", "b"), Pair("P4", "c", "c")]
    views = [View({n: torch.randn(1, 3, side, side) for n, side in zip("abc", (8, 8, 4), strict=True)}) for _ in "12"]
    seen, focus = batch([[0.3, 0.4, 0.3, 0.2]]), Counted()
    together = AttentionTerm(pairs, focus=focus)(*views, seen)
    assert focus.asked == 2
    for pair in pairs:
        alone = AttentionTerm([pair], focus=BoxFocus())(*views, seen)
        assert torch.equal(together[pair.column].loss, alone[pair.column].loss)


def test_scores_of_two_levels_on_one_grid_are_not_mixed_up():
    torch.manual_seed(0)
    pairs = [Pair("P3", "a", "a"), Pair("P4", "b", "b")]
    focus = ScoreFocus({"P3": "head.0", "P4": "head.1"})
    student, teacher = ({n: torch.randn(1, 3, 4, 4) for n in ("a", "b", "head.0", "head.1")} for _ in "12")
    together = AttentionTerm(pairs, focus=focus)(View(student), View(teacher), batch([]))
    for pair in pairs:
        alone = AttentionTerm([pair], focus=focus)(View(student), View(teacher), batch([]))
        assert torch.equal(together[pair.column].loss, alone[pair.column].loss)
