"""Response distillation of what a detection head calls each cell: its class logits against the teacher's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.attention.maps import unit
from distill.attention.pairs import Pair
from distill.terms.attention import centred
from distill.terms.base import Batch, Reading, Term, View
from distill.terms.dense import Shared, confidence, flat, in_words, levels, weighted, weighted_loss

COLUMN = "at_cls"
Levels = Sequence[tuple[Tensor, Tensor]]


def bce(both: Levels, _temperature: float) -> Tensor:
    """Binary cross-entropy towards the teacher's probabilities, less their entropy: Bernoulli KL, in nats, from 0.

    Summed over classes, and over cells weighted by the teacher's confidence: on its confident positions.
    """
    mine, theirs = (flat(side) for side in zip(*both, strict=True))  # (B, N, K)
    target = theirs.sigmoid()
    loss = F.binary_cross_entropy_with_logits(mine, target, reduction="none")
    least = F.binary_cross_entropy_with_logits(theirs, target, reduction="none")
    return weighted_loss((loss - least).sum(2), confidence(theirs))


def kl(both: Levels, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) over the classes, in nats, cells weighted as in `bce`.

    (Hinton et al. 2015, arXiv 1503.02531.) It says which class, not whether there is anything.
    """
    mine, theirs = (F.log_softmax(flat(side) / temperature, dim=2) for side in zip(*both, strict=True))
    loss = F.kl_div(mine, theirs, reduction="none", log_target=True).sum(2)
    return temperature**2 * weighted_loss(loss, confidence(flat([theirs for _, theirs in both])))


def cwd(both: Levels, temperature: float) -> Tensor:
    """Channel-wise distillation: each class's logits as a distribution over the positions of a level.

    T^2 KL(teacher || student), the mean over classes and levels. (Shu et al., ICCV 2021, arXiv 2011.13256, eq. 3, 4.)
    """
    losses = []
    for pair in both:
        mine, theirs = (F.log_softmax(side.flatten(2) / temperature, dim=2) for side in pair)  # (B, K, HW)
        losses.append(F.kl_div(mine, theirs, reduction="none", log_target=True).sum(2).mean())
    return temperature**2 * torch.stack(losses).mean()


def pkd(both: Levels, _temperature: float) -> Tensor:
    """1 - Pearson's correlation of each class's logits over positions and batch, the mean over classes and levels.

    (Cao et al., NeurIPS 2022, arXiv 2207.02039.)
    """
    losses = []
    for pair in both:
        mine, theirs = (unit(centred(side.transpose(0, 1).flatten(1))) for side in pair)  # (K, B HW)
        losses.append((mine - theirs).square().sum(1).mean() / 2)
    return torch.stack(losses).mean()


FORMS: dict[str, Callable[[Levels, float], Tensor]] = {"bce": bce, "kl": kl, "cwd": cwd, "pkd": pkd}


class ClassTerm(Term):
    """The class logits of a head's levels against the teacher's, as one loss.

    `pairs` name the layers that give the logits (B, K, H, W), level by level; `form` is one of `FORMS`, `temperature`
    softens `kl` and `cwd`; `shared` says which channels mean the same where the class lists differ. The figures are
    `dist_cls`, the mean difference of the best class's probability at the teacher's confident cells, and `agree_cls`,
    how much of that confidence lies on cells where both name the same class. `at` names the student's layers where the
    loss is weighed against the task's, by default the logits themselves. `branch` is appended to every name, where a
    head has several.
    """

    name = "classes"
    may_begin_equal = True  # a student that was fitted to its teacher

    def __init__(
        self,
        pairs: Sequence[Pair],
        form: str = "bce",
        temperature: float = 1.0,
        shared: Shared | None = None,
        at: Sequence[str] = (),
        branch: str = "",
    ) -> None:
        self.name = type(self).name + branch
        self.branch = branch
        self.pairs = tuple(pairs)
        self.at = tuple(at) or tuple(pair.student for pair in self.pairs)
        self.columns = {COLUMN + branch: self.title}
        self.logged = (f"agree_cls{branch}",)
        self.form = form
        self.temperature = temperature
        self.shared = shared
        self._loss = FORMS[form]

    @property
    def title(self) -> str:
        return in_words("class scores", self.branch)

    def layers(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return tuple(pair.student for pair in self.pairs), tuple(pair.teacher for pair in self.pairs)

    def __call__(self, student: View, teacher: View, batch: Batch) -> dict[str, Reading]:
        both = levels(self.pairs, student, teacher)
        if self.shared is not None:
            take = self.shared.take
            both = [(take(mine, self.shared.student), take(theirs, self.shared.teacher)) for mine, theirs in both]
        figures = {name + self.branch: figure for name, figure in _figures(both).items()}
        loss = self._loss(both, self.temperature)
        return {COLUMN + self.branch: Reading(loss, figures, figures[f"dist_cls{self.branch}"])}


@torch.no_grad()
def _figures(both: Levels) -> dict[str, Tensor]:
    mine, theirs = (flat(side) for side in zip(*both, strict=True))
    weights = confidence(theirs)
    apart = (mine.amax(2).sigmoid() - theirs.amax(2).sigmoid()).abs()
    same = (mine.argmax(2) == theirs.argmax(2)).float()
    return {"dist_cls": weighted(apart, weights), "agree_cls": weighted(same, weights)}
