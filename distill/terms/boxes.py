"""Response distillation of where a detection head puts its boxes: at the cells where the teacher is confident."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.attention.pairs import Pair
from distill.terms.base import Batch, Reading, Term, View
from distill.terms.dense import confidence, flat, in_words, levels, surest, weighted, weighted_loss

COLUMN = "at_box"
TEMPERATURE = 10.0  # of the distributions, as LD's authors have it


class _OfBoxes(Term):
    """What both terms share: the layers, and the cells that count.

    `pairs` name the layers that give the logits (B, 4 bins, H, W), `bins` student's and teacher's; `scores` are the
    teacher's layers of class logits, level by level, of which the classes `known` count (all, if None). `at` and
    `branch` are as in `ClassTerm`: an untrained student has hardly any boxes to lose, so that the task's gradient at
    the boxes themselves is no measure. The figure is `iou_box`, the mean IoU of both networks' boxes where the teacher
    is confident.
    """

    name = "boxes"
    may_begin_equal = True

    def __init__(
        self,
        pairs: Sequence[Pair],
        scores: Sequence[str],
        bins: tuple[int, int],
        known: Sequence[int] | None = None,
        at: Sequence[str] = (),
        branch: str = "",
    ) -> None:
        self.name = type(self).name + branch
        self.branch = branch
        self.pairs = tuple(pairs)
        self.at = tuple(at) or tuple(pair.student for pair in self.pairs)
        self.columns = {COLUMN + branch: self.title}
        self.logged = (f"iou_box{branch}",)
        self.scores = tuple(scores)
        self.bins = bins
        self.known = known

    @property
    def title(self) -> str:
        return in_words("boxes", self.branch)

    def layers(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return tuple(p.student for p in self.pairs), (*(p.teacher for p in self.pairs), *self.scores)

    def __call__(self, student: View, teacher: View, batch: Batch) -> dict[str, Reading]:
        sides = zip(*levels(self.pairs, student, teacher), strict=True)
        logits = flat([teacher.features[layer].float() for layer in self.scores])
        weights = confidence(logits if self.known is None else logits[..., list(self.known)])  # (B, N)
        weights, where = surest(weights)
        mine, theirs = (flat(side)[where] for side in sides)  # (M, 4 bins)
        with torch.no_grad():
            overlap = iou(*(distances(side, bins) for side, bins in zip((mine, theirs), self.bins, strict=True)))
        loss = weighted_loss(self._apart(mine, theirs), weights)
        return {COLUMN + self.branch: Reading(loss, {f"iou_box{self.branch}": weighted(overlap, weights)})}

    def _apart(self, mine: Tensor, theirs: Tensor) -> Tensor:
        """The distance at each cell: (M, 4 bins) each -> (M,)."""
        raise NotImplementedError


class DistributionTerm(_OfBoxes):
    """Localisation distillation: each side's distribution over distances against the teacher's, over as many bins.

    T^2 KL(teacher || student) at temperature T = 10, in nats, the mean over the four sides, cells weighted by the
    teacher's confidence. (LD, Zheng et al., CVPR 2022, arXiv 2102.12252, eq. 2.)
    """

    def _apart(self, mine: Tensor, theirs: Tensor) -> Tensor:
        p, q = (F.log_softmax(side.unflatten(-1, (4, -1)) / TEMPERATURE, dim=-1) for side in (theirs, mine))
        return TEMPERATURE**2 * F.kl_div(q, p, reduction="none", log_target=True).sum(-1).mean(-1)


class BoxTerm(_OfBoxes):
    """Boxes against the teacher's where there are no distributions to compare: 1 - GIoU plus the relative L1 distance.

    The four distances from a cell to the sides of its box, in cells, are what the layers give where a head has
    `reg_max` 1, else the means of their distributions. The L1 distance is the mean over the sides, over the mean of
    width and height of the teacher's box. (GIoU: Rezatofighi et al., CVPR 2019, arXiv 1902.09630.)
    """

    def _apart(self, mine: Tensor, theirs: Tensor) -> Tensor:
        a, b = (distances(side, bins) for side, bins in zip((mine, theirs), self.bins, strict=True))
        scale = b.sum(-1).div(2).clamp(min=1e-3)
        return 1 - giou(a, b) + (a - b).abs().mean(-1) / scale


def distances(outputs: Tensor, bins: int) -> Tensor:
    """(..., 4 bins) -> (..., 4): cells to the left, top, right, bottom side; of distributions the mean."""
    if bins == 1:
        return outputs
    places = torch.arange(bins, dtype=outputs.dtype, device=outputs.device)
    return (outputs.unflatten(-1, (4, bins)).softmax(-1) * places).sum(-1)  # no matrix product: autocast would halve it


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of two boxes around one point: distances (..., 4) each -> (...) in [0, 1]."""
    both, union, _ = _areas(a, b)
    return both / union


def giou(a: Tensor, b: Tensor) -> Tensor:
    """IoU minus the share of the least box around both that neither covers: (...) in (-1, 1]."""
    both, union, hull = _areas(a, b)
    return both / union - (hull - union) / hull


def _areas(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of the intersection, the union and the least box around both; a box turned inside out has area 0."""
    tiny = 1e-9
    own = [_area(box) for box in (a, b)]
    both, hull = _area(torch.minimum(a, b)), _area(torch.maximum(a, b))
    union = sum(own) - both
    return both, union.clamp(min=tiny), hull.clamp(min=tiny)


def _area(sides: Tensor) -> Tensor:
    left, top, right, bottom = sides.unbind(-1)
    return (left + right).clamp(min=0) * (top + bottom).clamp(min=0)
